#include "io/npy.h"

#include <cstdlib>
#include <cstring>

#include "base/dim.h"
#include "base/view.h"
#include "io/safetensors.h"

namespace dagrt {
namespace {

struct Header {
  std::string descr;
  bool fortran = false;
  std::vector<int64_t> shape;
};

/// The few Python literals that NumPy writes: no more is understood.
struct HeaderParser {
  const std::string& path;
  std::string text;
  size_t at = 0;

  [[noreturn]] void bad() const { fail(ErrorKind::format, path, ": the header of this .npy file is damaged"); }
  void space() {
    while (at < text.size() && (text[at] == ' ' || text[at] == '\n')) at++;
  }
  bool skip(char c) {
    space();
    if (at >= text.size() || text[at] != c) return false;
    at++;
    return true;
  }
  void need(char c) {
    if (!skip(c)) bad();
  }
  std::string string() {
    space();
    char quote = at < text.size() ? text[at] : ' ';
    if (quote != '\'' && quote != '"') bad();
    size_t end = text.find(quote, at + 1);
    if (end == std::string::npos) bad();
    std::string s = text.substr(at + 1, end - at - 1);
    at = end + 1;
    return s;
  }
  bool boolean() {
    space();
    for (const char* word : {"True", "False"})
      if (text.compare(at, std::strlen(word), word) == 0) {
        at += std::strlen(word);
        return word[0] == 'T';
      }
    bad();
  }
  std::vector<int64_t> tuple() {
    std::vector<int64_t> list;
    need('(');
    while (!skip(')')) {
      space();
      int64_t n = 0;
      size_t first = at;
      for (; at < text.size() && text[at] >= '0' && text[at] <= '9'; at++)
        if (__builtin_mul_overflow(n, 10, &n) || __builtin_add_overflow(n, text[at] - '0', &n)) bad();
      if (at == first) bad();
      skip('L');  // Python 2
      list.push_back(n);
      if (!skip(',')) {
        need(')');
        break;
      }
    }
    return list;
  }
  Header header() {
    Header h;
    int seen = 0;
    need('{');
    while (!skip('}')) {
      std::string key = string();
      need(':');
      if (key == "descr") {
        space();
        if (at < text.size() && text[at] == '[')
          fail(ErrorKind::dtype, path, ": is a structured array; save its fields one by one");
        h.descr = string(), seen |= 1;
      } else if (key == "fortran_order") {
        h.fortran = boolean(), seen |= 2;
      } else if (key == "shape") {
        h.shape = tuple(), seen |= 4;
      } else {
        bad();
      }
      if (!skip(',')) {
        need('}');
        break;
      }
    }
    space();
    if (seen != 7 || at != text.size()) bad();
    return h;
  }
};

struct Element {
  const char* descr;
  size_t bytes;
  DType dtype;
};
constexpr Element elements_known[] = {{"<f4", 4, DType::float32},  {"<f2", 2, DType::float16},  {"<i4", 4, DType::int32},
                                      {"<i8", 8, DType::int64},    {"|u1", 1, DType::uint8},    {"|b1", 1, DType::bool_},
                                      {"<V2", 2, DType::bfloat16}, {"|V2", 2, DType::bfloat16}, {"<f8", 8, DType::float32}};

std::shared_ptr<void> allocate(size_t bytes, const std::string& path) {
  void* p = std::malloc(bytes ? bytes : 1);
  if (!p) fail(ErrorKind::memory_limit, path, ": its ", bytes, " bytes do not fit into memory");
  return {p, std::free};
}

}  // namespace

NpyArray read_npy(const std::string& path) {
  MappedFile file(path);
  const char* p = file.data();
  auto byte = [&](size_t i) { return size_t(uint8_t(p[i])); };
  if (file.size() >= 4 && std::memcmp(p, "PK\3\4", 4) == 0)
    fail(ErrorKind::format, path, ": is a .npz archive; save each array by itself with numpy.save");
  if (file.size() < 10 || std::memcmp(p, "\x93NUMPY", 6) != 0)
    fail(ErrorKind::format, path, ": is not a .npy file; write one with numpy.save");
  if (byte(6) < 1 || byte(6) > 3)
    fail(ErrorKind::format, path, ": .npy version ", byte(6), ".", byte(7), "; versions 1 to 3 are known");
  size_t start = byte(6) == 1 ? 10 : 12;
  if (file.size() < start) fail(ErrorKind::format, path, ": this .npy file is cut off");
  size_t length = byte(8) | byte(9) << 8;
  if (start == 12) length |= byte(10) << 16 | byte(11) << 24;
  if (length > file.size() - start) fail(ErrorKind::format, path, ": this .npy file is cut off in its header");
  Header h = HeaderParser{path, std::string(p + start, length)}.header();

  const Element* element = nullptr;
  for (const Element& e : elements_known)
    if (h.descr == e.descr) element = &e;
  if (!element && !h.descr.empty() && h.descr[0] == '>')
    fail(ErrorKind::dtype, path, ": has big-endian elements ('", h.descr, "'); convert it: a.astype(a.dtype.newbyteorder('<'))");
  if (!element)
    fail(ErrorKind::dtype, path, ": has elements of type '", h.descr,
         "'; expected float32 (or 16, 64), int32, int64, uint8 or bool; convert it with a.astype");
  if (h.shape.size() > size_t(max_rank))
    fail(ErrorKind::shape, path, ": has ", h.shape.size(), " axes; at most ", max_rank, " are possible");
  if (h.fortran && h.shape.size() > 1) fail(ErrorKind::format, path, ": is in Fortran order; save numpy.ascontiguousarray(a)");
  size_t rest = file.size() - start - length;
  int64_t count = checked_elements(h.shape);
  if (count < 0 || uint64_t(count) > rest / element->bytes || uint64_t(count) * element->bytes != rest)
    fail(ErrorKind::format, path, ": its shape ", text(Dims(h.shape.begin(), h.shape.end())), " does not fit its ", rest,
         " bytes of data; the file may be cut off");

  NpyArray a{element->dtype, h.shape, nullptr, ""};
  const char* from = p + start + length;
  a.data = allocate(size_t(count) * size_of(a.dtype), path);
  if (h.descr == "<f8") {
    float* to = static_cast<float*>(a.data.get());
    for (int64_t i = 0; i < count; i++) {
      double d;
      std::memcpy(&d, from + i * 8, 8);
      to[i] = float(d);
    }
    a.note = path + ": float64 converted to float32";
  } else if (rest) {
    std::memcpy(a.data.get(), from, rest);
  }
  if (a.dtype == DType::bool_)
    for (size_t i = 0; i < rest; i++)
      if (uint8_t(from[i]) > 1) fail(ErrorKind::format, path, ": a bool must be 0 or 1, got ", int(uint8_t(from[i])));
  return a;
}

void write_npy(const std::string& path, DType dtype, const std::vector<int64_t>& shape, const void* data) {
  int64_t count = checked_elements(shape);
  if (count < 0) fail(ErrorKind::value, path, ": impossible shape");
  std::vector<uint32_t> widened;
  size_t bytes = size_t(count) * size_of(dtype);
  if (dtype == DType::bfloat16) {
    widened.resize(size_t(count));
    for (size_t i = 0; i < widened.size(); i++) widened[i] = uint32_t(static_cast<const uint16_t*>(data)[i]) << 16;
    dtype = DType::float32;
    data = widened.data();
    bytes = widened.size() * 4;
  }
  const char* descr = "";
  for (const Element& e : elements_known)
    if (e.dtype == dtype && !*descr) descr = e.descr;
  std::string header = std::string("{'descr': '") + descr + "', 'fortran_order': False, 'shape': (";
  for (size_t i = 0; i < shape.size(); i++) header += (i ? ", " : "") + std::to_string(shape[i]);
  header += shape.size() == 1 ? ",), }" : "), }";
  header.resize((10 + header.size() + 1 + 63) / 64 * 64 - 11, ' ');
  header += '\n';
  std::string start("\x93NUMPY\x01\x00", 8);
  start += char(header.size() & 255);
  start += char(header.size() >> 8);
  start += header;
  write_atomically(path, {{start.data(), start.size()}, {data, bytes}});
}

}  // namespace dagrt
