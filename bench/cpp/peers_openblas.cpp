// OpenBLAS: the product alone, and bias and relu in a loop behind it.
#include <cblas.h>

#include "peers.h"

namespace bench {
namespace {

class OpenBlas : public Framework {
 public:
  std::string describe() const override {
    std::string config = openblas_get_config();  // "OpenBLAS 0.3.21 DYNAMIC_ARCH ..."
    return config.substr(0, config.find(' ', 9));
  }
  void set_threads(int n) override { openblas_set_num_threads(n); }
  Side matmul(const Matmul& m) override {
    auto c = std::make_shared<Floats>(size_t(m.M * m.N));
    return {"openblas",
            [=] {
              cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, int(m.M), int(m.N), int(m.K), 1, m.a, int(m.K), m.b,
                          int(m.N), 0, c->data(), int(m.N));
              for (int64_t i = 0; i < m.M; i++) {
                float* row = c->data() + i * m.N;
                for (int64_t j = 0; j < m.N; j++) {
                  const float z = row[j] + m.bias[j];
                  row[j] = z > 0 ? z : 0;
                }
              }
            },
            [=] { return copy(c->data(), m.M * m.N); }};
  }
};

Register<OpenBlas> here;

}  // namespace
}  // namespace bench
