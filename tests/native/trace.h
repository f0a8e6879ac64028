// Building a function as Python's tracer does, for tests of passes.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "ops/op.h"

namespace dagrt::testing {

inline AttrValue list(std::initializer_list<Dim> values) {
  AttrList l;
  for (const Dim& d : values) l.push_back(d.known() ? AttrValue{d.value()} : AttrValue{d});
  return {l};
}

inline TensorType floats(Dims shape) { return {DType::float32, std::move(shape)}; }

/// A function under construction: what Python's tracer makes.
struct Trace {
  Module m;
  Function& f;
  Builder b;
  Trace() : f((m.functions.emplace_back(), m.functions.front())), b(m, f) { f.name = "main"; }
  Trace(Trace& outer, const char* name)  // a body of the same module; `m` stays empty
      : f((outer.m.functions.emplace_back(), outer.m.functions.back())), b(outer.m, f) {
    f.name = name;
  }

  ValueId input(const char* name, TensorType t) {
    ValueId v = f.add_value(std::move(t));
    f.inputs.push_back({name, v});
    return v;
  }
  int64_t variable(const char* name, TensorType t) {
    m.variables.push_back({name, std::move(t)});
    return int64_t(m.variables.size()) - 1;
  }
  ValueId read(int64_t v) { return b.emit("read", {}, {{"variable", {v}}}); }
  ValueId read_assigned(int64_t v, ValueId value) { return b.emit("read", {value}, {{"variable", {v}}}); }
  ValueId sum(ValueId x) {
    std::vector<int64_t> axes(b.type(x).shape.size());
    for (size_t i = 0; i < axes.size(); i++) axes[i] = int64_t(i);
    return b.sum(x, axes);
  }
  std::vector<ValueId> gradients(ValueId loss, std::vector<ValueId> wrt) {
    wrt.insert(wrt.begin(), loss);
    return b.emit_all("gradients", wrt);
  }
  void out(std::vector<ValueId> values) {
    f.outputs.insert(f.outputs.end(), values.begin(), values.end());
    f.output_names.resize(f.outputs.size());
  }
};

}  // namespace dagrt::testing
