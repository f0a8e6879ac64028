// Products with weights kept as bfloat16, half the bytes of float32 panels, where a policy says bfloat16 anyway.
//   pack_matmul_bf16:    a float32 matrix b rounded to bfloat16, two rows interleaved, in the order in which the product reads it
//   matmul_bf16_packed:  y[..., n] = sum_k a[..., k] b[k, n], a being float32 whose values bfloat16 holds; sums in float32
#include "kernels/matmul_bf16_packed.h"

#include "ops/packed_matmul.h"

namespace dagrt {
namespace {

constexpr Panels panels{DType::bfloat16, matmul_bf16_panel_size, "pack_matmul_bf16"};

void run_pack(const RunContext& c) {
  auto k = pack_arguments<PackMatmulBf16Args>(c);
  k.panels = c.out[0].as<uint16_t>();
  pack_matmul_bf16(k, c.stream);
}

void run_packed(const RunContext& c) {
  auto g = packed_arguments<MatmulBf16PackedArgs>(c);
  g.panels = c.in[1].as<const uint16_t>();
  matmul_bf16_packed(g, c.stream);
}

}  // namespace

void register_matmul_bf16_packed(Registry& r) {
  Op pack = pack_op();
  pack.name = "pack_matmul_bf16";
  pack.equation = "matmul's b rounded to bfloat16, in the order in which its kernel reads it";
  pack.infer = [](const InferContext& c) { return infer_pack(c, panels); };
  pack.run = run_pack;
  r.add(std::move(pack));

  Op packed = packed_op();
  packed.name = "matmul_bf16_packed";
  packed.equation = "matmul of a, which bfloat16 holds, and a matrix packed by pack_matmul_bf16";
  packed.infer = [](const InferContext& c) { return infer_packed(c, panels); };
  packed.run = run_packed;
  packed.memory = [](const void*, const Types& in, const Types&) {
    return Memory{0, matmul_bf16_scratch(packed_rows(in), in[0].shape.back().value())};
  };
  r.add(std::move(packed));
}

}  // namespace dagrt
