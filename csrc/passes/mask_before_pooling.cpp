// mask_before_pooling: the gradient of a relu in front of a maximum pooling masks what the pooling sends back,
//   dx = select(y > k, max_pool2d_grad(g, argmax), 0),   p, argmax = max_pool2d(y)
// A window sends its gradient to the one pixel whose y is its p, so the mask may be taken of p, on the smaller side:
//   dx = max_pool2d_grad(select(p > k, g, 0), argmax)
// The same bits. It spares two passes over the larger tensor, y need not live until then, and the smaller mask becomes the
// epilogue of what made g.
//
// Before and after: a specialised module without gradients.
#include "passes/passes.h"
#include "passes/uses.h"

namespace dagrt {
namespace {

class Mover {
 public:
  Mover(Module& m, Function& f) : f_(f), b_(m, f), uses_(f) {}

  void run() {
    std::vector<int> grads(f_.nodes.size(), -1);  // of a select: the pooling's gradient that it masks
    std::vector<bool> gone(f_.nodes.size(), false);
    bool any = false;
    for (size_t i = 0; i < f_.nodes.size(); i++) {
      grads[i] = masked(f_.nodes[i]);
      if (grads[i] >= 0) gone[size_t(grads[i])] = any = true;
    }
    if (!any) return;
    std::vector<Node> old = std::move(f_.nodes);
    f_.nodes.clear();
    for (size_t i = 0; i < old.size(); i++) {
      if (grads[i] >= 0)
        emit(old[i], old[size_t(grads[i])], old);
      else if (!gone[i])
        f_.nodes.push_back(old[i]);
    }
  }

 private:
  int masked(const Node& n) const {
    if (n.op->name != "select" || !uses_.constant[size_t(n.inputs[2])] || uses_.number[size_t(n.inputs[2])] != 0) return -1;
    const Node *above = uses_.made_by(f_, n.inputs[0], "greater"), *grad = uses_.made_by(f_, n.inputs[1], "max_pool2d_grad");
    if (!above || !grad || !uses_.constant[size_t(above->inputs[1])]) return -1;
    const Node* pool = uses_.made_by(f_, grad->inputs[1], "max_pool2d");
    if (!pool || pool->outputs[1] != grad->inputs[1] || pool->inputs[0] != above->inputs[0]) return -1;
    if (uses_.kept[size_t(n.inputs[1])] || uses_.users[size_t(n.inputs[1])].size() != 1) return -1;
    return uses_.producer[size_t(n.inputs[1])];
  }

  void emit(const Node& select, Node grad, const std::vector<Node>& old) {
    const Node& above = old[size_t(uses_.producer[size_t(select.inputs[0])])];
    const Node& pool = old[size_t(uses_.producer[size_t(grad.inputs[1])])];
    b_.paths = select.paths;
    ValueId mask = b_.emit("greater", {pool.outputs[0], above.inputs[1]});
    grad.inputs[0] = b_.select(mask, grad.inputs[0], select.inputs[2]);
    grad.outputs = select.outputs;
    f_.nodes.push_back(std::move(grad));
  }

  Function& f_;
  Builder b_;
  Uses uses_;
};

}  // namespace

void mask_before_pooling(Module& module) {
  for (size_t i = 0; i < module.functions.size(); i++) Mover(module, module.functions[i]).run();
}

}  // namespace dagrt
