// Loads model files.
#include <cmath>
#include <cstring>

#include "api/dagrt.h"
#include "io/model_file.h"

namespace dagrt {
namespace {

Tensor copy_of(const FileTensor& t) {  // the file's bytes may be unaligned
  Tensor copy = Tensor::empty(t.dtype, t.shape);
  if (t.bytes) std::memcpy(copy.data.get(), t.data, t.bytes);
  return copy;
}

double number_at(const Tensor& t, int64_t i) {
  switch (t.dtype) {
    case DType::float32: return double(t.as<float>()[i]);
    case DType::int32: return double(t.as<int32_t>()[i]);
    case DType::int64: return double(t.as<int64_t>()[i]);
    case DType::uint8:
    case DType::bool_: return double(t.as<uint8_t>()[i]);
    case DType::bfloat16: {
      uint32_t bits = uint32_t(t.as<uint16_t>()[i]) << 16;
      float f;
      std::memcpy(&f, &bits, 4);
      return double(f);
    }
    case DType::float16: {
      uint32_t h = t.as<uint16_t>()[i], exponent = h >> 10 & 31, mantissa = h & 1023;
      double m = exponent == 31 ? (mantissa ? double(NAN) : double(INFINITY))
                 : exponent     ? std::ldexp(1024.0 + mantissa, int(exponent) - 25)
                                : std::ldexp(double(mantissa), -24);
      return h & 0x8000 ? -m : m;
    }
  }
  return 0;
}

}  // namespace

Model Model::load(const std::string& path) {
  ModelFile file(path);
  Model model;
  Module module = file.module();
  for (size_t i = 0; i < module.constants.size(); i++) module.constants[i].data = copy_of(*file.constants()[i]).data;
  std::vector<VariableRef> variables;
  for (size_t i = 0; i < module.variables.size(); i++) {
    const FileTensor& t = *file.variables()[i];
    variables.push_back(std::make_shared<Variable>(module.variables[i].name, t.dtype, t.shape, t.data));
  }
  model.function_ =
      std::make_shared<Callable>(std::move(module), std::move(variables), "main", exact_by_default(), default_device());
  model.metadata_ = file.metadata();
  for (const FileTensor* t : file.selftest_inputs()) model.selftest_inputs_.push_back(copy_of(*t));
  for (const FileTensor* t : file.selftest_outputs()) model.selftest_outputs_.push_back(copy_of(*t));
  return model;
}

void Model::selftest(double relative, double absolute) const {
  if (selftest_outputs_.empty()) return;
  std::vector<Tensor> got = run(selftest_inputs_);
  for (size_t k = 0; k < selftest_outputs_.size(); k++) {
    const Tensor &want = selftest_outputs_[k], &have = got[k];
    if (have.dtype != want.dtype || have.shape != want.shape)
      fail(ErrorKind::data, "self-test: output ", k, " has another type than the file recorded");
    for (int64_t i = 0, n = want.view().elements(); i < n; i++) {
      double a = number_at(have, i), b = number_at(want, i);
      bool same = std::isnan(a) ? std::isnan(b) : a == b || std::fabs(a - b) <= absolute + relative * std::fabs(b);
      if (!same) fail(ErrorKind::data, "self-test: expected ", b, " at position ", i, " of output ", k, ", got ", a);
    }
  }
}

}  // namespace dagrt
