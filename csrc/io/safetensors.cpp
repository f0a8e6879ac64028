#include "io/safetensors.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "base/view.h"

namespace dagrt {
namespace {

using Json = nlohmann::json;

constexpr uint64_t max_header = 100u << 20;  // as the format's own library has it
constexpr int max_depth = 4;

constexpr std::pair<const char*, DType> names[] = {{"F32", DType::float32}, {"BF16", DType::bfloat16}, {"F16", DType::float16},
                                                   {"I32", DType::int32},   {"I64", DType::int64},     {"U8", DType::uint8},
                                                   {"BOOL", DType::bool_}};

/// Parses the header; nesting and repeated keys, which a parser would accept, are refused.
Json parse_header(const char* text, size_t bytes, const std::string& path) {
  std::vector<std::set<std::string>> keys;
  auto check = [&](int depth, Json::parse_event_t event, Json& value) {
    if (depth > max_depth) fail(ErrorKind::format, path, ": the safetensors header is nested too deeply");
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end) keys.pop_back();
    if (event == Json::parse_event_t::key && !keys.back().insert(value.get<std::string>()).second)
      fail(ErrorKind::format, path, ": the safetensors header has '", value.get<std::string>(), "' twice");
    return true;
  };
  try {
    Json header = Json::parse(text, text + bytes, check);
    if (!header.is_object()) fail(ErrorKind::format, path, ": the safetensors header must be an object");
    return header;
  } catch (const Json::exception& e) {
    fail(ErrorKind::format, path, ": the safetensors header is damaged: ", e.what());
  }
}

uint64_t natural(const Json& j, const std::string& path, const std::string& name, const char* what) {
  if (!j.is_number_unsigned() || j.get<uint64_t>() > uint64_t(INT64_MAX))
    fail(ErrorKind::format, path, ": tensor '", name, "': ", what, " must be a natural number of 63 bits, got ",
         j.dump(-1, ' ', true, Json::error_handler_t::replace));
  return j.get<uint64_t>();
}

FileTensor read_tensor(const std::string& name, const Json& j, const char* data, size_t size, const std::string& path) {
  auto bad = [&](auto&&... parts) { fail(ErrorKind::format, path, ": tensor '", name, "': ", parts...); };
  if (!j.is_object() || j.size() != 3 || !j.contains("dtype") || !j.contains("shape") || !j.contains("data_offsets"))
    bad("expected dtype, shape and data_offsets");
  FileTensor t;
  t.name = name;
  const Json &dtype = j["dtype"], &shape = j["shape"], &offsets = j["data_offsets"];
  if (!dtype.is_string()) bad("dtype must be a string");
  auto known = std::find_if(std::begin(names), std::end(names), [&](auto& n) { return dtype == n.first; });
  if (known == std::end(names))
    bad("dtype ", dtype.get<std::string>(), " is not one that dagrt has: F32, BF16, F16, I32, I64, U8, BOOL");
  t.dtype = known->second;
  if (!shape.is_array() || shape.size() > size_t(max_rank)) bad("shape must be a list of at most ", max_rank, " sizes");
  for (const Json& d : shape) t.shape.push_back(int64_t(natural(d, path, name, "a size")));
  if (!offsets.is_array() || offsets.size() != 2) bad("data_offsets must be two numbers");
  uint64_t from = natural(offsets[0], path, name, "an offset"), to = natural(offsets[1], path, name, "an offset");
  if (from > to || to > size)
    bad("its bytes ", from, " to ", to, " must lie within the ", size, " bytes of data; the file may be cut off");
  int64_t elements = checked_elements(t.shape);
  if (elements < 0 || uint64_t(elements) > size / size_of(t.dtype) || uint64_t(elements) * size_of(t.dtype) != to - from)
    bad("its shape does not fit its ", to - from, " bytes");
  t.bytes = size_t(to - from);
  t.data = data + from;
  if (t.dtype == DType::bool_)
    for (size_t i = 0; i < t.bytes; i++)
      if (uint8_t(data[from + i]) > 1) bad("a bool must be 0 or 1, got ", int(uint8_t(data[from + i])));
  return t;
}

}  // namespace

int64_t checked_elements(const std::vector<int64_t>& shape) {
  int64_t n = 1;
  bool zero = false;
  for (int64_t d : shape) {
    if (d < 0) return -1;
    zero |= d == 0;
  }
  if (zero) return 0;
  for (int64_t d : shape)
    if (__builtin_mul_overflow(n, d, &n)) return -1;
  return n;
}

const FileTensor* Safetensors::find(const std::string& name) const {
  auto it = tensors_.find(name);
  return it == tensors_.end() ? nullptr : &it->second;
}

Safetensors::Safetensors(const std::string& path) : file_(path) {
  if (file_.size() < 8) fail(ErrorKind::format, path, ": not a safetensors file: ", file_.size(), " bytes are too few");
  uint64_t length = 0;
  for (int i = 7; i >= 0; i--) length = length << 8 | uint8_t(file_.data()[i]);
  size_t rest = file_.size() - 8;
  if (length > max_header || length > rest)
    fail(ErrorKind::format, path, ": not a safetensors file, or cut off: it announces a header of ", length, " bytes, but has ",
         rest);
  const char* text = file_.data() + 8;
  if (!length || text[0] != '{') fail(ErrorKind::format, path, ": not a safetensors file: its header must begin with '{'");
  Json header = parse_header(text, size_t(length), path);
  const char* data = text + length;
  size_t size = rest - size_t(length);
  for (auto it = header.begin(); it != header.end(); ++it) {
    if (it.key() == "__metadata__") {
      if (!it->is_object()) fail(ErrorKind::format, path, ": __metadata__ must be an object");
      for (auto m = it->begin(); m != it->end(); ++m) {
        if (!m->is_string()) fail(ErrorKind::format, path, ": __metadata__: '", m.key(), "' must be a string");
        metadata_[m.key()] = m->get<std::string>();
      }
    } else {
      tensors_[it.key()] = read_tensor(it.key(), *it, data, size, path);
    }
  }
  std::vector<const FileTensor*> by_offset;
  for (auto& [name, t] : tensors_) by_offset.push_back(&t);
  std::sort(by_offset.begin(), by_offset.end(),
            [](auto* a, auto* b) { return std::pair(a->data, a->bytes) < std::pair(b->data, b->bytes); });
  const char* end = data;
  for (const FileTensor* t : by_offset) {
    if (t->data != end)
      fail(ErrorKind::format, path, ": tensor '", t->name, "' ",
           t->data < end ? "overlaps the one before it" : "leaves a hole before it");
    end += t->bytes;
  }
  if (end != data + size) fail(ErrorKind::format, path, ": ", data + size - end, " bytes at the end belong to no tensor");
}

void write_safetensors(const std::string& path, const std::map<std::string, std::string>& metadata,
                       std::vector<FileTensor> tensors) {
  std::sort(tensors.begin(), tensors.end(), [](const FileTensor& a, const FileTensor& b) {
    size_t sa = size_of(a.dtype), sb = size_of(b.dtype);
    return sa != sb ? sa > sb : a.name < b.name;
  });
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t at = 0;
  for (const FileTensor& t : tensors) {
    int64_t elements = checked_elements(t.shape);
    if (elements < 0 || uint64_t(elements) * size_of(t.dtype) != t.bytes)
      fail(ErrorKind::value, path, ": tensor '", t.name, "': its shape does not fit its ", t.bytes, " bytes");
    if (t.name == "__metadata__" || header.contains(t.name))
      fail(ErrorKind::value, path, ": two tensors are called '", t.name, "'");
    const char* dtype = std::find_if(std::begin(names), std::end(names), [&](auto& n) { return n.second == t.dtype; })->first;
    header[t.name] = {{"dtype", dtype}, {"shape", t.shape}, {"data_offsets", {at, at + t.bytes}}};
    at += t.bytes;
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const Json::exception& e) {
    fail(ErrorKind::value, path, ": names and metadata must be UTF-8: ", e.what());
  }
  text.resize((text.size() + 7) / 8 * 8, ' ');
  if (text.size() > max_header)
    fail(ErrorKind::value, path, ": the header has ", text.size(), " bytes; at most ", max_header, " are allowed");
  std::string length(8, '\0');
  for (int i = 0; i < 8; i++) length[size_t(i)] = char(uint64_t(text.size()) >> (8 * i));
  std::vector<Piece> pieces{{length.data(), 8}, {text.data(), text.size()}};
  for (const FileTensor& t : tensors) pieces.push_back({t.data, t.bytes});
  write_atomically(path, pieces);
}

}  // namespace dagrt
