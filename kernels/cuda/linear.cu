// Linear layer: by cuBLAS where it can be opened, else as the product of one group.
//
//   y = x W^T;  dx = dy W;  dw = dy^T x
//
// Shapes    x, dx (N, I); y, dy (N, O); W, dw (O, I).  f32 or bf16, y also f32 of bf16 rows
//           (router); dw f32.
// Launch    cuBLAS, or sm90/, or a block an output tile (grouped_matmul.cuh).
// Numerics  fp32 sums. Our own kernels: in ascending order of the summed index, so bits depend on
//           neither N nor the library; cuBLAS's may (docs/numerics.md).
// Traffic   an operand is read once a row or column of tiles that meets it; the output written
//           once.
// See       kernels/cpu/linear.cpp, tests tests/cuda/linear_test.cpp, tests/cuda/cublas_test.cpp.
#include "cublas.h"
#include "grist/core/memory.h"
#include "grist/ops/linear.h"
#include "grouped_matmul.cuh"
#include "kernels/backends.h"
#include "sm90/grouped_matmul.h"

namespace grist::cuda {

namespace {

// f(x, y) for the element types of x and of y = x W^T, where W has that of y: equal, or the
// router's, which makes fp32 logits of bf16 rows.
template <class F> void for_dtypes(DType x, DType y, F&& f) {
  for_dtype(y, [&](auto type_of_y) {
    if constexpr (std::is_same_v<decltype(type_of_y), bf16>) {
      f(bf16{}, bf16{});
    } else {
      for_dtype(x, [&](auto type_of_x) { f(type_of_x, type_of_y); });
    }
  });
}

}  // namespace

void linear_forward(const Context& ctx, const ops::LinearForward& a) {
  if (cublas::linear_forward(ctx, a)) return;
  if (sm90::linear_forward(ctx, a)) return;
  const ScratchScope scope(ctx.scratch);
  const std::int64_t N = a.x.shape[0], I = a.x.shape[1], O = a.y.shape[1];
  for_dtypes(a.x.dtype, a.y.dtype, [&](auto type_of_x, auto type_of_y) {
    using X = decltype(type_of_x);
    using Y = decltype(type_of_y);
    const Matmul<X, Y> p{.a = {elements<X>(a.x), I},
                         .b = {reinterpret_cast<const Y*>(a.w.data), I},
                         .rows = to_int(N),
                         .cols = to_int(O),
                         .depth = to_int(I)};
    multiply<Form::forward>(ctx, p, Store<Y>{elements<Y>(a.y), O});
  });
}

void linear_backward_input(const Context& ctx, const ops::LinearBackwardInput& a) {
  if (cublas::linear_backward_input(ctx, a)) return;
  if (sm90::linear_backward_input(ctx, a)) return;
  const ScratchScope scope(ctx.scratch);
  const std::int64_t N = a.dx.shape[0], I = a.dx.shape[1], O = a.dy.shape[1];
  for_dtypes(a.dx.dtype, a.dy.dtype, [&](auto type_of_x, auto type_of_y) {
    using X = decltype(type_of_x);
    using Y = decltype(type_of_y);
    const Matmul<Y, Y> p{.a = {elements<Y>(a.dy), O},
                         .b = {reinterpret_cast<const Y*>(a.w.data), I},
                         .rows = to_int(N),
                         .cols = to_int(I),
                         .depth = to_int(O)};
    multiply<Form::backward_input>(
        ctx, p, Store<X>{.c = elements<X>(a.dx), .stride = I, .accumulate = a.accumulate});
  });
}

void linear_backward_weight(const Context& ctx, const ops::LinearBackwardWeight& a) {
  if (cublas::linear_backward_weight(ctx, a)) return;
  if (sm90::linear_backward_weight(ctx, a)) return;
  const ScratchScope scope(ctx.scratch);
  const std::int64_t N = a.x.shape[0], O = a.dw.shape[0], I = a.dw.shape[1];
  for_dtypes(a.x.dtype, a.dy.dtype, [&](auto type_of_x, auto type_of_y) {
    using X = decltype(type_of_x);
    using Y = decltype(type_of_y);
    const Matmul<Y, X> p{.a = {elements<Y>(a.dy), O},
                         .b = {elements<X>(a.x), I},
                         .rows = to_int(O),
                         .cols = to_int(I),
                         .depth = to_int(N)};
    multiply<Form::weight_gradient>(
        ctx, p, Store<float>{.c = a.dw.as<float>(), .stride = I, .accumulate = a.accumulate});
  });
}

}  // namespace grist::cuda
