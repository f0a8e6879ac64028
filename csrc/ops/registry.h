// One line for each file of ops. registry.cpp calls them all, once.
#pragma once
#include <map>
#include <memory>

#include "ops/op.h"

namespace dagrt {

class Registry {
 public:
  void add(Op op);  // a second op of one name is a programming error
  const Op* find(const std::string& name) const;
  std::vector<const Op*> all() const;

 private:
  std::map<std::string, std::unique_ptr<Op>> ops_;
};

void register_structural(Registry&);  // read, constant, gradients, scan
void register_pointwise(Registry&);
void register_reduce(Registry&);    // reduce_*, argmax, argmin, cumsum, top_k, sort, argsort
void register_layout(Registry&);    // reshape, transpose, broadcast_to, concat, slice, pad, reverse, iota, full
void register_indexing(Registry&);  // gather, scatter_add, take_along_axis, put_along_axis_add, one_hot
void register_matmul(Registry&);
void register_matmul_bf16_packed(Registry&);
void register_conv2d(Registry&);
void register_winograd(Registry&);  // winograd_weights, conv2d_winograd, conv2d_filter_grad_winograd
void register_pool2d(Registry&);
void register_batch_norm(Registry&);
void register_softmax(Registry&);  // softmax, log_softmax, softmax_cross_entropy(_grad)
void register_lstm(Registry&);
void register_lstm_packed(Registry&);  // pack_lstm, pack_lstm_table, lstm_packed, lstm_gathered
void register_random(Registry&);
void register_optimizer(Registry&);  // sgd_update, momentum_update, adam_update, rmsprop_update

}  // namespace dagrt
