#include "ops/registry.h"

#include <algorithm>
#include <map>
#include <memory>

namespace dagrt {
namespace {

const Registry& registry() {
  static const Registry* all = [] {
    auto* r = new Registry;
    register_structural(*r);
    register_pointwise(*r);
    register_reduce(*r);
    register_layout(*r);
    register_indexing(*r);
    register_matmul(*r);
    register_matmul_bf16_packed(*r);
    register_conv2d(*r);
    register_winograd(*r);
    register_pool2d(*r);
    register_batch_norm(*r);
    register_softmax(*r);
    register_lstm(*r);
    register_lstm_packed(*r);
    register_random(*r);
    register_optimizer(*r);
    return r;
  }();
  return *all;
}

size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); j++) row[j] = j;
  for (size_t i = 1; i <= a.size(); i++) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); j++) {
      size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1])});
      diagonal = above;
    }
  }
  return row[b.size()];
}

}  // namespace

const Op* find_op(const std::string& name) { return registry().find(name); }

std::vector<const Op*> all_ops() { return registry().all(); }

const Op& op(const std::string& name) {
  if (const Op* found = find_op(name)) return *found;
  std::vector<std::pair<size_t, std::string>> near;
  for (const Op* o : all_ops()) near.emplace_back(edit_distance(name, o->name), o->name);
  std::sort(near.begin(), near.end());
  std::string list;
  for (size_t i = 0; i < near.size() && i < 3; i++) list += (i ? ", " : "") + near[i].second;
  fail(ErrorKind::graph, "unknown op '", name, "'; the nearest are ", list,
       ". A file written by a newer dagrt needs that version to be read.");
}

void check_arity(const Op& op, const Types& in) {
  if (int(in.size()) < op.min_inputs || (op.max_inputs >= 0 && int(in.size()) > op.max_inputs))
    fail(ErrorKind::graph, op.name, ": expected ", op.min_inputs,
         op.max_inputs < 0               ? " or more"
         : op.max_inputs > op.min_inputs ? " to " + std::to_string(op.max_inputs)
                                         : "",
         " inputs, got ", in.size());
  for (size_t i = 0; i < in.size(); i++) {
    if (in[i].rank() > max_rank)
      fail(ErrorKind::shape, op.name, ": expected at most ", max_rank, " axes, got ", text(in[i].shape));
    if (in[i].absent && (int(i) < op.min_inputs || op.max_inputs < 0))
      fail(ErrorKind::graph, op.name, ": input ", i, " is required, but absent");
  }
}

Types infer(const Op& op, const void* attrs, const Types& in) {
  check_arity(op, in);
  InferContext c{op, in, attrs};
  Types out = op.infer(c);
  for (const TensorType& t : out) {
    if (t.rank() > max_rank)
      fail(ErrorKind::shape, op.name, ": expected at most ", max_rank, " axes, got ", text(t.shape), " as a result");
    for (const Dim& d : t.shape)
      if (d.known() && d.value() < 0) fail(ErrorKind::shape, op.name, ": the result would have a negative size, ", text(t.shape));
  }
  return out;
}

}  // namespace dagrt
