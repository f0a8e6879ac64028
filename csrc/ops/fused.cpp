// pointwise {program, constants}: a chain of pointwise ops over float32 and bool, made by the pass fuse_pointwise after
// gradients. It computes what the ops computed one by one, bit for bit, but keeps everything between in L1.
#include "ops/fused.h"

#include <cstdlib>
#include <cstring>

#include "kernels/pointwise.h"
#include "ops/registry.h"

namespace dagrt {
namespace {

static_assert(fused_most_inputs == fused_inputs && fused_most_instructions == fused_instructions &&
              fused_most_constants == fused_constants);

// ---------------------------------------------------------------- which functors
enum class Form : uint8_t { floats, compare, predicate, logical, select, cast };

struct Row {
  const char* name;
  Functor f;
  int operands;
  Form form;
  double ns;
};

const std::vector<Row>& rows() {
  static const std::vector<Row> all = {
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

const Row* find_row(const std::string& name) {
  for (const Row& r : rows())
    if (name == r.name) return r.f == Functor::floor_divide_ || r.f == Functor::mod_ ? nullptr : &r;  // they check
  return nullptr;
}

/// The result's dtype for operands of these dtypes, or false where the functor does not take them.
bool result_of(const Row& r, const DType* in, DType& out) {
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

// ---------------------------------------------------------------- attributes
struct FusedAttrs {
  std::vector<std::string> program;
  std::vector<double> constants;
  template <class V> void visit(V& v) {
    v("program", program);
    v("constants", constants);
  }

  struct Step {
    const Row* row;
    int arg[3];  // constants: -1 - k
  };
  std::vector<Step> steps;  // the program read; operands are checked against the inputs by infer
};

[[noreturn]] void bad_program(const std::string& line) {
  fail(ErrorKind::format, "pointwise: expected an instruction such as \"multiply 0 c1\", got \"", line, "\"");
}

void read_program(FusedAttrs& a) {
  if (a.program.empty() || a.program.size() > fused_most_instructions || a.constants.size() > fused_most_constants)
    fail(ErrorKind::format, "pointwise: expected 1 to ", fused_most_instructions, " instructions and at most ",
         fused_most_constants, " constants, got ", a.program.size(), " and ", a.constants.size());
  for (const std::string& line : a.program) {
    std::istringstream text(line);
    std::string word;
    text >> word;
    FusedAttrs::Step s{find_row(word), {}};
    if (!s.row) bad_program(line);
    for (int k = 0; k < s.row->operands; k++) {
      if (!(text >> word)) bad_program(line);
      bool constant = word[0] == 'c';
      char* end = nullptr;
      long n = std::strtol(word.c_str() + constant, &end, 10);
      if (*end || end == word.c_str() + constant || n < 0 || n > 1000) bad_program(line);
      if (constant && size_t(n) >= a.constants.size()) bad_program(line);
      s.arg[k] = constant ? int(-1 - n) : int(n);
    }
    if (text >> word) bad_program(line);
    a.steps.push_back(s);
  }
}

AttrType fused_attr_type() {
  AttrType t = attr_type<FusedAttrs>();
  t.read = [](const std::string& op, const AttrMap& map) -> Attrs {
    auto a = std::make_shared<FusedAttrs>();
    attr_detail::Reader r{op, map};
    a->visit(r);
    r.finish();
    read_program(*a);
    return a;
  };
  return t;
}

/// Dtypes of all values, inputs first; an error where the program does not fit the inputs.
struct Flow {
  DType dtype[fused_inputs + fused_instructions];
  DType operand[fused_instructions];
};
template <class DtypeOf, class Refuse> Flow flow_of(const FusedAttrs& a, int inputs, const DtypeOf& of, const Refuse& refuse) {
  Flow flow{};
  for (int i = 0; i < inputs; i++) flow.dtype[i] = of(i);
  for (size_t i = 0; i < a.steps.size(); i++) {
    const FusedAttrs::Step& s = a.steps[i];
    DType in[3] = {};
    for (int k = 0; k < s.row->operands; k++) {
      if (s.arg[k] >= inputs + int(i)) refuse(a.program[i]);
      in[k] = s.arg[k] < 0 ? DType::float32 : flow.dtype[s.arg[k]];
    }
    if (!result_of(*s.row, in, flow.dtype[inputs + int(i)])) refuse(a.program[i]);
    flow.operand[i] = in[0];
  }
  return flow;
}

// ---------------------------------------------------------------- the op
Types infer_fused(const InferContext& c) {
  const auto& a = c.attrs<FusedAttrs>();
  Dims shape = c.in[0].shape;
  for (const TensorType& t : c.in) shape = broadcast(shape, t.shape);
  int inputs = int(c.in.size());
  Flow flow = flow_of(
      a, inputs, [&](int i) { return c.in[size_t(i)].dtype; },
      [&](const std::string& line) {
        c.fail(ErrorKind::dtype, "instruction \"", line, "\" does not fit ", inputs, " inputs of these types");
      });
  return {{flow.dtype[inputs + int(a.steps.size()) - 1], shape}};
}

void run_fused(const RunContext& c) {
  const auto& attrs = c.attrs<FusedAttrs>();
  Flow flow = flow_of(attrs, c.inputs, [&](int i) { return c.in[i].dtype; }, [](const std::string&) {});
  FusedArgs a;
  const View& y = c.out[0];
  a.operands = c.inputs;
  a.count = int(attrs.steps.size());
  for (int i = 0; i < a.count; i++) {
    const FusedAttrs::Step& s = attrs.steps[size_t(i)];
    FusedInstruction& code = a.code[i];
    code.f = s.row->f;
    code.operands = s.row->operands;
    code.operand = flow.operand[i];
    code.result = flow.dtype[c.inputs + i];
    for (int k = 0; k < code.operands; k++) code.arg[k] = s.arg[k];
    a.ns += s.row->ns + 0.06;
  }
  for (size_t k = 0; k < attrs.constants.size(); k++) a.constants[k] = float(attrs.constants[k]);
  a.rank = y.rank;
  for (int d = 0; d < y.rank; d++) a.dims[d] = y.dims[d];
  for (int k = 0; k <= c.inputs; k++) {
    const View& v = k ? c.in[k - 1] : y;
    a.data[k] = v.data;
    a.dtype[k] = v.dtype;
    int64_t stride = 1;
    for (int d = v.rank - 1; d >= 0; d--) {
      int at = d + y.rank - v.rank;
      a.strides[k][at] = v.dims[d] == y.dims[at] ? stride : 0;
      stride = d == v.rank - 1 ? (v.ld ? v.ld : v.dims[d]) : stride * v.dims[d];
    }
  }
  fused_pointwise(a, c.stream);
}

Cost cost_fused(const void* attrs, const Types& in, const Types& out) {
  Cost cost;
  for (const auto& s : static_cast<const FusedAttrs*>(attrs)->steps)
    cost.flops += (s.row->ns > 0.05 ? 10 : 1) * double(out[0].elements());
  cost.bytes = double(out[0].bytes());
  for (const TensorType& t : in) cost.bytes += double(t.bytes());
  return cost;
}

}  // namespace

bool fusable(const Op& op, const Types& in, const TensorType& out) {
  if (!op.pointwise || op.checks) return false;
  const Row* r = find_row(op.name);
  if (!r || int(in.size()) != r->operands) return false;
  DType types[3] = {}, result;
  for (size_t i = 0; i < in.size(); i++) types[i] = in[i].dtype;
  return result_of(*r, types, result) && result == out.dtype;
}

AttrMap fused_attrs(const std::vector<std::string>& program, const std::vector<double>& constants) {
  AttrList lines, numbers;
  for (const std::string& s : program) lines.push_back({s});
  for (double x : constants) numbers.push_back({x});
  return {{"program", {lines}}, {"constants", {numbers}}};
}

void register_fused(Registry& r) {
  Op o;
  o.name = "pointwise";
  o.equation = "a chain of pointwise ops, made by passes";
  o.attrs = fused_attr_type();
  o.min_inputs = 1;
  o.max_inputs = int(fused_most_inputs);
  o.infer = infer_fused;
  o.run = run_fused;
  o.cost = cost_fused;
  for (int i = 0; i < int(fused_most_inputs); i++) o.in_place.push_back({i, 0});
  o.not_differentiable = "it is made by passes after gradients are expanded; write the ops one by one";
  r.add(std::move(o));
}

}  // namespace dagrt
