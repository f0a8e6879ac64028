// LSTM layers: inference with packed weights, and training (packing, forward, backward). Products alone count as flops.
// Batch 1 is bound by reading the weights in every step: its bytes are those.
#include "kernels/lstm.h"

#include "peers.h"

using namespace dagrt;

namespace bench {
namespace {

struct Case {
  const char* model;
  int64_t B, T, C, U;
};

struct Held {
  Floats x, w, r, b, h, packed, gates, cells, hidden, dx, dw, dr, db, dh;
  LstmArgs forward, backward;
  std::unique_ptr<Memory> there, back;

  Held(const Case& l, bool train) {
    const int64_t G = 4 * l.U, rows = l.B * l.T;
    x = values(rows * l.C), w = values(l.C * G, 2), r = values(l.U * G, 3), b = values(G, 4), dh = values(l.B * l.U, 5);
    h.resize(size_t(l.B * l.U)), packed.resize(size_t(lstm_packed_size(l.C, l.U)));
    LstmArgs& a = forward;
    a.B = l.B, a.T = l.T, a.C = l.C, a.U = l.U, a.ldx = l.C, a.ldy = a.lddy = l.U;
    a.x = x.data(), a.kernel = w.data(), a.recurrent = r.data(), a.bias = b.data(), a.h = h.data(), a.packed = packed.data();
    const LstmMemory m = lstm_memory(l.B, l.T, l.U);
    there = std::make_unique<Memory>(m.workspace, m.scratch);
    a.workspace = there->workspace();
    lstm_pack(a, there->stream());
    if (!train) return;
    gates.resize(size_t(rows * G)), cells.resize(size_t(rows * l.U)), hidden.resize(size_t(rows * l.U));
    dx.resize(x.size()), dw.resize(w.size()), dr.resize(r.size()), db.resize(b.size());
    a.gates = gates.data(), a.cells = cells.data(), a.hidden = hidden.data();
    backward = a;
    backward.dh = dh.data(), backward.dx = dx.data();
    backward.dkernel = dw.data(), backward.drecurrent = dr.data(), backward.dbias = db.data();
    const LstmMemory n = lstm_grad_memory(l.B, l.T, l.C, l.U);
    back = std::make_unique<Memory>(n.workspace, n.scratch);
    backward.workspace = back->workspace();
  }
};

Work layer(const Case& l, bool train) {
  auto h = std::make_shared<Held>(l, train);
  const Lstm p{l.B, l.T, l.C, l.U, h->x.data(), h->w.data(), h->r.data(), h->b.data(), h->dh.data()};
  Work w;
  if (train) {
    w.dagrt = {"dagrt",
               [h] {
                 lstm_pack(h->forward, h->there->stream());
                 lstm(h->forward, h->there->stream());
                 lstm_grad(h->backward, h->back->stream());
               },
               [h] { return copy(h->dx.data(), int64_t(h->dx.size())); }};
    w.peers = peers(&Framework::lstm_train, p);
  } else {
    w.dagrt = {"dagrt", [h] { lstm(h->forward, h->there->stream()); }, [h] { return copy(h->h.data(), int64_t(h->h.size())); }};
    w.peers = peers(&Framework::lstm, p);
  }
  w.flops = (train ? 6.0 : 2.0) * double(l.B * l.T) * double(4 * l.U) * double(l.C + l.U);
  if (l.B == 1) w.read = 4.0 * double(4 * l.U * l.U), w.read_passes = int(l.T);
  return w;
}

}  // namespace

void add_rows() {
  const Case cases[] = {{"ticket", 1, 500, 64, 128},    {"ticket", 32, 500, 64, 128},  {"ticket", 32, 100, 64, 128},
                        {"siamese", 1, 100, 128, 64},   {"siamese", 32, 100, 128, 64}, {"language", 1, 64, 256, 256},
                        {"language", 32, 64, 256, 256}, {"odd sizes", 32, 50, 30, 33}};
  for (bool train : {false, true})
    for (const Case& c : cases)
      if (!train || c.B > 1)
        add_row(std::string(train ? "train" : "forward") + "/" + c.model + " batch " + std::to_string(c.B) + ", " +
                    std::to_string(c.T) + " steps, " + std::to_string(c.C) + " to " + std::to_string(c.U),
                [=] { return layer(c, train); });
}

}  // namespace bench
