// Programs of pointwise instructions: the rows of kernels/functors.h that may stand in one, and the text's reader.
#include "ops/program.h"

#include <cstdlib>
#include <sstream>

namespace dagrt {
namespace {

enum class Form : uint8_t { floats, compare, predicate, logical, select, cast };

}  // namespace

struct ProgramRow {
  const char* name;
  Functor f;
  int operands;
  Form form;
  double ns;
};

namespace {

const std::vector<ProgramRow>& rows() {
  static const std::vector<ProgramRow> all = {
#define DAGRT_ROW(name, equation, types, ns, ...) {#name, Functor::name##_, 1, Form::floats, ns},
      DAGRT_UNARY(DAGRT_ROW)
#undef DAGRT_ROW
#define DAGRT_ROW(name, equation, types, ns, ...) {#name, Functor::name##_, 2, Form::floats, ns},
          DAGRT_BINARY(DAGRT_ROW)
#undef DAGRT_ROW
#define DAGRT_ROW(name, ...) {#name, Functor::name##_, 2, Form::compare, 0.05},
              DAGRT_COMPARE(DAGRT_ROW)
#undef DAGRT_ROW
#define DAGRT_ROW(name, ...) {#name, Functor::name##_, 1, Form::predicate, 0.05},
                  DAGRT_PREDICATE(DAGRT_ROW)
#undef DAGRT_ROW
                      {"logical_and", Functor::logical_and_, 2, Form::logical, 0.02},
      {"logical_or", Functor::logical_or_, 2, Form::logical, 0.02},
      {"logical_xor", Functor::logical_xor_, 2, Form::logical, 0.02},
      {"logical_not", Functor::logical_not_, 1, Form::logical, 0.02},
      {"select", Functor::select_, 3, Form::select, 0.05},
      {"cast", Functor::cast_, 1, Form::cast, 0.1}};
  return all;
}

const ProgramRow* find_row(const std::string& name) {
  for (const ProgramRow& r : rows())
    if (name == r.name) return r.f == Functor::floor_divide_ || r.f == Functor::mod_ ? nullptr : &r;  // they check
  return nullptr;
}

/// The result's dtype for operands of these dtypes, or false where the functor does not take them.
bool result_of(const ProgramRow& r, const DType* in, DType& out) {
  const DType f = DType::float32, b = DType::bool_;
  switch (r.form) {
    case Form::floats: out = f; return in[0] == f && (r.operands < 2 || in[1] == f);
    case Form::compare: out = b; return in[0] == f && in[1] == f;
    case Form::predicate: out = b; return in[0] == f;
    case Form::logical: out = b; return in[0] == b && (r.operands < 2 || in[1] == b);
    case Form::select: out = f; return in[0] == b && in[1] == f && in[2] == f;
    case Form::cast: out = f; return in[0] == b;
  }
  return false;
}

[[noreturn]] void bad_line(const std::string& op, const std::string& line) {
  fail(ErrorKind::format, op, ": expected an instruction such as \"multiply 0 c1\", got \"", line, "\"");
}

}  // namespace

void Chain::read(const std::string& op, const std::vector<std::string>& lines, const std::vector<double>& numbers) {
  if (lines.size() > size_t(fused_instructions) || numbers.size() > size_t(fused_constants))
    fail(ErrorKind::format, op, ": expected at most ", fused_instructions, " instructions and ", fused_constants,
         " constants, got ", lines.size(), " and ", numbers.size());
  steps.clear();
  constants.assign(numbers.begin(), numbers.end());
  for (const std::string& line : lines) {
    std::istringstream text(line);
    std::string word;
    text >> word;
    Step s{find_row(word), {}};
    if (!s.row) bad_line(op, line);
    for (int k = 0; k < s.row->operands; k++) {
      if (!(text >> word)) bad_line(op, line);
      bool constant = word[0] == 'c';
      char* end = nullptr;
      long n = std::strtol(word.c_str() + constant, &end, 10);
      if (*end || end == word.c_str() + constant || n < 0 || n > 1000) bad_line(op, line);
      if (constant && size_t(n) >= numbers.size()) bad_line(op, line);
      s.arg[k] = constant ? int(-1 - n) : int(n);
    }
    if (text >> word) bad_line(op, line);
    steps.push_back(s);
  }
}

int Chain::flow(int inputs, const DType* in, FusedInstruction* code, DType* result) const {
  DType types[fused_inputs + fused_instructions];
  for (int i = 0; i < inputs; i++) types[i] = in[i];
  for (int i = 0; i < int(steps.size()); i++) {
    const Step& s = steps[size_t(i)];
    DType operand[3] = {};
    for (int k = 0; k < s.row->operands; k++) {
      if (s.arg[k] >= inputs + i) return i;
      operand[k] = s.arg[k] < 0 ? DType::float32 : types[s.arg[k]];
    }
    if (!result_of(*s.row, operand, types[inputs + i])) return i;
    code[i].f = s.row->f;
    code[i].operands = s.row->operands;
    code[i].operand = operand[0];
    code[i].result = types[inputs + i];
    for (int k = 0; k < 3; k++) code[i].arg[k] = s.arg[k];
  }
  *result = steps.empty() ? types[0] : types[inputs + int(steps.size()) - 1];
  return -1;
}

double Chain::element_ns() const {
  double ns = 0;
  for (const Step& s : steps) ns += s.row->ns + 0.06;
  return ns;
}

double Chain::element_flops() const {
  double flops = 0;
  for (const Step& s : steps) flops += s.row->ns > 0.05 ? 10 : 1;
  return flops;
}

bool Chain::fits(const std::string& name, const DType* in, int inputs, DType out) {
  const ProgramRow* r = find_row(name);
  DType result;
  return r && inputs == r->operands && result_of(*r, in, result) && result == out;
}

}  // namespace dagrt
