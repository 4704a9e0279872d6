#include "cublas.h"
#include "grist/core/memory.h"
#include "grist/ops/linear.h"

#include <mutex>

#include "grist/core/error.h"
#include "launch.h"

namespace grist::cuda {

namespace cublas {
namespace {

void check_status(int status, const char* what) {
  if (status != 0) {
    throw Error(ExitCode::device_unavailable,
                std::string("cuBLAS: ") + what + " failed with status " + std::to_string(status));
  }
}

// The library and its handle, made when first wanted. One product is put on its stream at a time.
struct State {
  std::mutex mutex;
  DenseMatmul choice = DenseMatmul::automatic;
  bool tried = false;
  std::string why;  // it is not there
  const Library* library = nullptr;
  void* handle = nullptr;
};
State& state() {
  static State s;
  return s;
}

void open(State& s) {
  if (s.tried) return;
  s.tried = true;
  const Library* library = open_library(s.why);
  if (library == nullptr) return;
  if (const int status = library->create(&s.handle); status != 0) {
    s.why = "cublasCreate failed with status " + std::to_string(status);
    return;
  }
  check_status(library->set_math_mode(s.handle, kNoReducedPrecisionSums), "its math mode");
  s.library = library;
}

// With the state's mutex held.
bool wanted(State& s) {
  if (s.choice == DenseMatmul::own) return false;
  open(s);
  if (s.library == nullptr && s.choice == DenseMatmul::cublas)
    throw Error(ExitCode::device_unavailable, "cuBLAS cannot be used: " + s.why);
  return s.library != nullptr;
}

struct Operand {
  const void* data;
  bool transposed;
  std::int64_t stride;  // row length of the row-major matrix behind it
};

// C (n, m) row-major = B A as cuBLAS sees it: the transposes of everything, column-major.
struct Product {
  std::int64_t m, n, k;
  Operand a, b;
  void* c;
  cudaDataType c_type;
  bool accumulate = false;
};

bool multiply(const Context& ctx, const Product& p) {
  State& s = state();
  const std::scoped_lock lock(s.mutex);
  if (!wanted(s)) return false;
  const ScratchScope scope(ctx.scratch);
  // From scratch, so that no two streams share it.
  const std::size_t bytes = s.library->workspace_bytes;
  std::byte* workspace = ctx.scratch->allocate(bytes);
  check_status(s.library->set_stream(s.handle, stream_of(ctx)), "its stream");
  check_status(s.library->set_workspace(s.handle, workspace, bytes), "its workspace");
  const float one = 1.0F, beta = p.accumulate ? 1.0F : 0.0F;
  const auto op = [](const Operand& x) { return x.transposed ? kTransposed : kPlain; };
  check_status(s.library->gemm(s.handle, op(p.a), op(p.b), static_cast<int>(p.m),
                               static_cast<int>(p.n), static_cast<int>(p.k), &one, p.a.data,
                               CUDA_R_16BF, static_cast<int>(p.a.stride), p.b.data, CUDA_R_16BF,
                               static_cast<int>(p.b.stride), &beta, p.c, p.c_type,
                               static_cast<int>(p.m), kCompute32F, kDefaultAlgorithm),
               "a product");
  return true;
}

bool are_bf16(std::initializer_list<DType> types) {
  for (const DType t : types) {
    if (t != DType::bf16) return false;
  }
  return true;
}

}  // namespace

bool linear_forward(const Context& ctx, const ops::LinearForward& a) {
  if (!are_bf16({a.x.dtype, a.w.dtype})) return false;  // y may be f32: logits
  const std::int64_t N = a.x.shape[0], I = a.x.shape[1], O = a.y.shape[1];
  return multiply(ctx, {.m = O,
                        .n = N,
                        .k = I,
                        .a = {a.w.data, true, I},
                        .b = {a.x.data, false, I},
                        .c = a.y.data,
                        .c_type = a.y.dtype == DType::f32 ? CUDA_R_32F : CUDA_R_16BF});
}

bool linear_backward_input(const Context& ctx, const ops::LinearBackwardInput& a) {
  if (!are_bf16({a.dx.dtype, a.dy.dtype, a.w.dtype})) return false;
  const std::int64_t N = a.dx.shape[0], I = a.dx.shape[1], O = a.dy.shape[1];
  return multiply(ctx, {.m = I,
                        .n = N,
                        .k = O,
                        .a = {a.w.data, false, I},
                        .b = {a.dy.data, false, O},
                        .c = a.dx.data,
                        .c_type = CUDA_R_16BF,
                        .accumulate = a.accumulate});
}

bool linear_backward_weight(const Context& ctx, const ops::LinearBackwardWeight& a) {
  const std::int64_t N = a.x.shape[0], O = a.dw.shape[0], I = a.dw.shape[1];
  if (!are_bf16({a.dy.dtype, a.x.dtype}) || N == 0) return false;
  return multiply(ctx, {.m = I,
                        .n = O,
                        .k = N,
                        .a = {a.x.data, false, I},
                        .b = {a.dy.data, true, O},
                        .c = a.dw.data,
                        .c_type = CUDA_R_32F,
                        .accumulate = a.accumulate});
}

}  // namespace cublas

void set_dense_matmul(DenseMatmul choice) {
  cublas::State& s = cublas::state();
  const std::scoped_lock lock(s.mutex);
  s.choice = choice;
  if (choice == DenseMatmul::cublas) cublas::wanted(s);
}

std::string dense_matmul_name() {
  cublas::State& s = cublas::state();
  const std::scoped_lock lock(s.mutex);
  if (!cublas::wanted(s)) return "own kernels";
  int version = 0;  // 130002: 13.0.2
  cublas::check_status(s.library->get_version(s.handle, &version), "its version");
  const int major = version / 10000, minor = version / 100 % 100;
  return "cuBLAS " + std::to_string(major) + "." + std::to_string(minor) + "." +
         std::to_string(version % 100);
}

}  // namespace grist::cuda
