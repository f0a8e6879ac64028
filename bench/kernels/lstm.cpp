// The LSTM, forward, and forward with backward as in training: time and share of the multiply-add peak (products alone
// count), on one thread and on two. Batch 1 is bound by reading the weights from L2: bytes of R a step are shown too.
//   bench_lstm [threads]
#include "kernels/lstm.h"

#include "harness.h"

using namespace dagrt;
using namespace bench;

namespace {

struct Layer {
  int64_t B, T, C, U;
};

void row(const Layer& l, int threads, double peak) {
  const int64_t G = 4 * l.U, rows = l.B * l.T;
  std::vector<float> x = values(rows * l.C), w = values(l.C * G, 2), r = values(l.U * G, 3), b = values(G, 4),
                     h(size_t(l.B * l.U)), packed(size_t(lstm_packed_size(l.C, l.U)) + 16), y(size_t(rows * l.U));
  LstmArgs a;
  a.B = l.B, a.T = l.T, a.C = l.C, a.U = l.U, a.ldx = l.C, a.ldy = a.lddy = l.U;
  a.x = x.data(), a.kernel = w.data(), a.recurrent = r.data(), a.bias = b.data(), a.h = h.data();
  a.packed = packed.data() + (64 - reinterpret_cast<size_t>(packed.data()) % 64) / 4 % 16;
  LstmMemory m = lstm_memory(l.B, l.T, l.U);
  Workspace forward(m.workspace, m.scratch, threads);
  a.workspace = forward.workspace();
  lstm_pack(a, forward.stream);
  double flops = 2.0 * double(rows) * double(G) * double(l.C + l.U);
  double ns = best_ns([&] { lstm(a, forward.stream); });
  std::printf("%4lld x %3lld, %3lld -> %3lld  forward %9.3f ms  %5.1f %% of peak", (long long)l.B, (long long)l.T, (long long)l.C,
              (long long)l.U, ns / 1e6, 100 * flops / ns / peak / threads);
  if (l.B == 1) std::printf("  %6.0f ns a step, R at %.1f GB/s", ns / double(l.T), double(l.U * G) * 4 * double(l.T) / ns);
  if (l.B > 1) {
    std::vector<float> gates(size_t(rows * G)), cells(size_t(rows * l.U)), hidden(size_t(rows * l.U)), dx(size_t(rows * l.C)),
        dw(size_t(l.C * G)), dr(size_t(l.U * G)), db = values(G), dh = values(l.B * l.U, 5);
    LstmArgs t = a;
    t.gates = gates.data(), t.cells = cells.data(), t.hidden = hidden.data();
    LstmArgs g = t;
    g.dh = dh.data(), g.dx = dx.data(), g.dkernel = dw.data(), g.drecurrent = dr.data(), g.dbias = db.data();
    LstmMemory n = lstm_grad_memory(l.B, l.T, l.C, l.U);
    Workspace back(n.workspace, n.scratch, threads);
    g.workspace = back.workspace();
    double forward_ns = best_ns([&] { lstm_pack(t, forward.stream), lstm(t, forward.stream); });
    double back_ns = best_ns([&] { lstm_grad(g, back.stream); });
    std::printf("  training %9.3f + %9.3f ms  %5.1f, %5.1f %%", forward_ns / 1e6, back_ns / 1e6,
                100 * flops / forward_ns / peak / threads, 200 * flops / back_ns / peak / threads);
  }
  std::printf("\n");
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
  double peak = peak_gflops();
  std::printf("%d threads, %s; peak %.1f GFLOP/s a core\n", threads, name_of(chosen_isa), peak);
  FlushDenormals flush;
  for (const Layer& l :
       {Layer{1, 500, 64, 128}, Layer{1, 100, 128, 64}, Layer{32, 100, 64, 128}, Layer{32, 100, 128, 64}, Layer{8, 100, 64, 128},
        Layer{32, 50, 30, 17}, Layer{32, 50, 30, 33}, Layer{32, 50, 64, 100}, Layer{32, 30, 256, 256}})
    row(l, threads, peak);
}
