#pragma once
// bf16 products of linear layers by cuBLAS, which is opened at run time where it is installed:
// nothing of it is needed to build. Same bits on every run of one version on one kind of GPU; but
// how cuBLAS sums may depend on all sizes of a product, so unlike our kernels a row's bits may
// change with the number of rows.
#include <cuda_runtime.h>

#include <cstddef>
#include <string>

#include "grist/core/context.h"
#include "grist/core/device.h"
#include "grist/ops/linear.h"

namespace grist::cuda {

using grist::DenseMatmul;
// automatic until this is called, and opened by the first product that wants it. Error
// {device_unavailable} with the reason where cuBLAS is demanded and cannot be opened.
void set_dense_matmul(DenseMatmul choice);
// "cuBLAS 13.0.2", or "own kernels".
std::string dense_matmul_name();

namespace cublas {

// Each does the product and returns true; or does nothing and returns false: our kernels are
// wanted, operands are not all bf16 (dw: f32, y: either), or nothing is to be summed.
bool linear_forward(const Context& ctx, const ops::LinearForward& a);
bool linear_backward_input(const Context& ctx, const ops::LinearBackwardInput& a);
bool linear_backward_weight(const Context& ctx, const ops::LinearBackwardWeight& a);

// What we use of the library, by its C interface. Status 0 is success.
struct Library {
  std::size_t workspace_bytes;
  int (*create)(void** handle);
  int (*get_version)(void* handle, int* version);
  int (*set_stream)(void* handle, cudaStream_t stream);
  int (*set_workspace)(void* handle, void* workspace, std::size_t bytes);
  int (*set_math_mode)(void* handle, int mode);
  // Column-major: C (m, n) = alpha op(A) op(B) + beta C.
  int (*gemm)(void* handle, int op_a, int op_b, int m, int n, int k, const void* alpha,
              const void* a, cudaDataType a_type, int lda, const void* b, cudaDataType b_type,
              int ldb, const void* beta, void* c, cudaDataType c_type, int ldc, int compute,
              int algorithm);
};
// Values of its enumerations.
constexpr int kPlain = 0;
constexpr int kTransposed = 1;
constexpr int kCompute32F = 68;
constexpr int kDefaultAlgorithm = -1;
constexpr int kNoReducedPrecisionSums = 16;
// Null where it is not installed; `why` then says where it was looked for. On the emulation: its
// own (tests/cuda_emulation/cublas_shim.cpp).
const Library* open_library(std::string& why);

}  // namespace cublas
}  // namespace grist::cuda
