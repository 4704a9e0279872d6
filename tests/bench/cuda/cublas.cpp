#include "cublas.h"

#include <cublas_v2.h>
#include <dlfcn.h>

#include "grist/core/error.h"

namespace grist::bench {

struct Cublas::Library {
  void* file = nullptr;
  cublasHandle_t handle = nullptr;
  decltype(&cublasDestroy_v2) destroy = nullptr;
  decltype(&cublasSetStream_v2) set_stream = nullptr;
  cublasStatus_t (*gemm)(cublasHandle_t, cublasOperation_t, cublasOperation_t, int, int, int,
                         const void*, const void*, cudaDataType, int, const void*, cudaDataType,
                         int, const void*, void*, cudaDataType, int, cublasComputeType_t,
                         cublasGemmAlgo_t) = nullptr;  // cublasGemmEx

  ~Library() {
    if (handle != nullptr) destroy(handle);
    if (file != nullptr) dlclose(file);
  }
  // Row-major c (rows, cols) = op(a) op(b) is column-major c^T = op(b)^T op(a)^T.
  struct Operand {
    const void* data;
    bool transposed;  // as stored, against what the product wants
    std::int64_t stride;
  };
  void multiply(void* c, cudaDataType_t type_of_c, const Operand& a, const Operand& b,
                std::int64_t rows, std::int64_t cols, std::int64_t depth, float beta) {
    const float alpha = 1.0F;
    const auto operation = [](const Operand& x) {
      return x.transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    };
    const auto i = [](std::int64_t n) { return static_cast<int>(n); };
    const cublasStatus_t status =
        gemm(handle, operation(b), operation(a), i(cols), i(rows), i(depth), &alpha, b.data,
             CUDA_R_16BF, i(b.stride), a.data, CUDA_R_16BF, i(a.stride), &beta, c, type_of_c,
             i(cols), CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
    if (status != CUBLAS_STATUS_SUCCESS)
      throw Error(ExitCode::device_unavailable,
                  "cublasGemmEx: status " + std::to_string(static_cast<int>(status)));
  }
};

std::unique_ptr<Cublas> Cublas::load(const Context& ctx, std::string& why) {
  auto library = std::make_unique<Library>();
  for (const char* name : {"libcublas.so.13", "libcublas.so.12", "libcublas.so"})
    if (library->file == nullptr) library->file = dlopen(name, RTLD_NOW | RTLD_LOCAL);
  if (library->file == nullptr) {
    why = "no libcublas.so (put its folder into LD_LIBRARY_PATH)";
    return nullptr;
  }
  const auto find = [&](auto& function, const char* name) {
    function =
        reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library->file, name));
    return function != nullptr;
  };
  decltype(&cublasCreate_v2) create = nullptr;
  if (!find(create, "cublasCreate_v2") || !find(library->destroy, "cublasDestroy_v2") ||
      !find(library->set_stream, "cublasSetStream_v2") || !find(library->gemm, "cublasGemmEx")) {
    why = "libcublas.so lacks a function";
    return nullptr;
  }
  if (create(&library->handle) != CUBLAS_STATUS_SUCCESS) {
    library->handle = nullptr;
    why = "cuBLAS finds no GPU that it can use";
    return nullptr;
  }
  std::unique_ptr<Cublas> cublas(new Cublas(std::move(library)));
  cublas->use(ctx.stream);
  return cublas;
}

Cublas::Cublas(std::unique_ptr<Library> library) : library_(std::move(library)) {}
Cublas::~Cublas() = default;

void Cublas::use(CUstream_st* stream) {
  library_->set_stream(library_->handle, reinterpret_cast<cudaStream_t>(stream));
}

void Cublas::forward(void* y, const void* x, const void* w, const Products& p) {
  library_->multiply(y, CUDA_R_16BF, {x, false, p.I}, {w, true, p.I}, p.N, p.O, p.I, 0.0F);
}
void Cublas::backward_input(void* dx, const void* dy, const void* w, const Products& p) {
  library_->multiply(dx, CUDA_R_16BF, {dy, false, p.O}, {w, false, p.I}, p.N, p.I, p.O, 0.0F);
}
void Cublas::backward_weight(float* dw, const void* dy, const void* x, const Products& p) {
  library_->multiply(dw, CUDA_R_32F, {dy, true, p.O}, {x, false, p.I}, p.O, p.I, p.N, 1.0F);
}

}  // namespace grist::bench
