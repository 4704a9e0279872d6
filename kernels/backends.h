#pragma once
// The operations that every backend defines, and where to find each. Adding an operation: its
// struct in include/grist/ops, its checks in src/ops, one line here, an implementation a backend, a
// test.
#include <cstddef>
#include <string>

#include "grist/core/context.h"
#include "grist/core/device_id.h"
#include "grist/core/tensor.h"

#define GRIST_OPS(X)                              \
  X(refresh_weight, RefreshWeight)                \
  X(linear_forward, LinearForward)                \
  X(linear_backward_input, LinearBackwardInput)   \
  X(linear_backward_weight, LinearBackwardWeight) \
  X(expert_up_forward, ExpertUpForward)           \
  X(expert_down_forward, ExpertDownForward)       \
  X(expert_down_backward, ExpertDownBackward)     \
  X(expert_up_backward, ExpertUpBackward)         \
  X(expert_weight_gradient, ExpertWeightGradient) \
  X(router_forward, RouterForward)                \
  X(router_statistics, RouterStatistics)          \
  X(router_backward, RouterBackward)              \
  X(dispatch_plan, DispatchPlan)                  \
  X(gather_sum, GatherSum)                        \
  X(gather_rows, GatherRows)                      \
  X(regroup_plan, RegroupPlan)                    \
  X(rms_norm_forward, RmsNormForward)             \
  X(rms_norm_backward, RmsNormBackward)           \
  X(rope_table, RopeTable)                        \
  X(rope, Rope)                                   \
  X(attention_forward, AttentionForward)          \
  X(attention_backward, AttentionBackward)        \
  X(swiglu_forward, SwigluForward)                \
  X(swiglu_backward, SwigluBackward)              \
  X(embedding_forward, EmbeddingForward)          \
  X(embedding_backward, EmbeddingBackward)        \
  X(linear_cross_entropy, LinearCrossEntropy)     \
  X(adamw, AdamW)                                 \
  X(squared_sums, SquaredSums)                    \
  X(tree_sum, TreeSum)                            \
  X(sum, Sum)                                     \
  X(normal_init, NormalInit)                      \
  X(fill, Fill)                                   \
  X(tree_add, TreeAdd)                            \
  X(add, Add)

#define GRIST_STRUCT(name, Args) struct Args;
#define GRIST_DECLARE(name, Args) void name(const Context& ctx, const ops::Args& a);
#define GRIST_MEMBER(name, Args) void (*name)(const Context& ctx, const ops::Args& a);

// The arguments' structs are named here and not seen, so that a change of one recompiles its own
// operation alone.
namespace grist::ops {
GRIST_OPS(GRIST_STRUCT)
}

namespace grist {

// A device's operations.
struct Backend {
  GRIST_OPS(GRIST_MEMBER)
  std::size_t (*weight_bytes)(DType dtype, const Shape& shape);
};

}  // namespace grist

namespace grist::cpu {
GRIST_OPS(GRIST_DECLARE)
std::size_t weight_bytes(DType dtype, const Shape& shape);
const Backend& backend();
}  // namespace grist::cpu

namespace grist::cuda {
GRIST_OPS(GRIST_DECLARE)
std::size_t weight_bytes(DType dtype, const Shape& shape);
// Registers Device::cuda: its runtime (core/device.h), and its operations (below). False where
// no usable GPU or driver is there; `why` then says so in one line.
// The GPU is number device_index modulo the GPUs there are.
bool enable(int device_index, std::string& why);
int device_count();
}  // namespace grist::cuda

namespace grist::ops {
// What runs operations on a device: the CPU's from the start, others when their device is made
// ready. Error{device_unavailable} where there is nothing; null takes it away.
const Backend& backend(Device device);
void register_backend(Device device, const Backend* backend);
}  // namespace grist::ops

#undef GRIST_STRUCT
#undef GRIST_DECLARE
#undef GRIST_MEMBER
