#pragma once
// Checks of operands, shared by every operation's entry point: shapes and dtypes are validated
// once, here; kernels trust them.
#include "grist/core/check.h"
#include "grist/core/context.h"
#include "grist/core/tensor.h"
#include "kernels/backends.h"

namespace grist::ops {

struct WeightView;

// Throws Error{internal}: "rms_norm_forward: y is (3, 4) f32, want (3, 5) f32". A null pointer is
// refused unless there is nothing in it.
void require(const char* op, const char* operand, const ConstTensorView& v, DType dtype,
             const Shape& shape);
// As require, but an empty view (null data) passes.
void require_if_given(const char* op, const char* operand, const ConstTensorView& v, DType dtype,
                      const Shape& shape);
void require_rank(const char* op, const char* operand, const ConstTensorView& v, int rank);
// The dtype of activations in this call, which `v` tells: f32, or bf16 where the device has it.
DType require_activation(const char* op, const char* operand, const Context& ctx,
                         const ConstTensorView& v);
void require_weight(const char* op, const WeightView& w, Device device, DType dtype,
                    const Shape& shape);
void require_scratch(const char* op, const Context& ctx);

}  // namespace grist::ops

// Runs the operation on the context's device.
#define GRIST_DISPATCH(name, ctx, a) ::grist::ops::backend((ctx).device).name((ctx), (a))
