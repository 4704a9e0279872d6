// Opening the cuBLAS that is installed. Not part of the emulation, which has its own.
#include <dlfcn.h>

#include <array>
#include <cstdlib>
#include <vector>

#include "cublas.h"
#if __has_include(<cublas_v2.h>)
#include <cublas_v2.h>
static_assert(CUBLAS_STATUS_SUCCESS == 0 && CUBLAS_OP_N == grist::cuda::cublas::kPlain &&
              CUBLAS_OP_T == grist::cuda::cublas::kTransposed &&
              CUBLAS_COMPUTE_32F == grist::cuda::cublas::kCompute32F &&
              CUBLAS_GEMM_DEFAULT == grist::cuda::cublas::kDefaultAlgorithm &&
              CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION ==
                  grist::cuda::cublas::kNoReducedPrecisionSums);
#endif

namespace grist::cuda::cublas {

namespace {

// A folder's library, and before it the one that it needs, which a folder outside the linker's
// paths would not find.
void* open_in(const std::string& folder, const char* version) {
  const std::string prefix = folder.empty() ? "" : folder + "/";
  dlopen((prefix + "libcublasLt.so." + version).c_str(), RTLD_NOW | RTLD_GLOBAL);
  return dlopen((prefix + "libcublas.so." + version).c_str(), RTLD_NOW | RTLD_LOCAL);
}

// GRIST_CUBLAS: a folder, for example of Python's nvidia packages. Empty: the linker's own paths.
std::vector<std::string> folders() {
  if (const char* own = std::getenv("GRIST_CUBLAS")) return {own};
  std::vector<std::string> all = {""};
  if (const char* home = std::getenv("CUDA_HOME")) all.push_back(std::string(home) + "/lib64");
  all.emplace_back("/usr/local/cuda/lib64");
  return all;
}

template <class F> bool find(void* library, const char* name, F& function) {
  function = reinterpret_cast<F>(dlsym(library, name));
  return function != nullptr;
}

}  // namespace

const Library* open_library(std::string& why) {
  static Library library = {};
  library.workspace_bytes = std::size_t{32} << 20;  // NVIDIA's advice for Hopper, the largest
  why = "no libcublas.so.13 or .12 in";
  for (const std::string& folder : folders()) {
    for (const char* version : {"13", "12"}) {
      void* opened = open_in(folder, version);
      if (opened == nullptr) continue;
      if (find(opened, "cublasCreate_v2", library.create) &&
          find(opened, "cublasGetVersion_v2", library.get_version) &&
          find(opened, "cublasSetStream_v2", library.set_stream) &&
          find(opened, "cublasSetWorkspace_v2", library.set_workspace) &&
          find(opened, "cublasSetMathMode", library.set_math_mode) &&
          find(opened, "cublasGemmEx", library.gemm)) {
        return &library;
      }
    }
    why += " " + (folder.empty() ? "the linker's paths" : folder);
  }
  return nullptr;
}

}  // namespace grist::cuda::cublas
