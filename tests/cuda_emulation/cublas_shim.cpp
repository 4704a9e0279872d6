// cuBLAS of the emulation: the functions that kernels/cuda/cublas.h uses, by loops on the stream.
// Operands must lie within their allocations.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "device_memory.h"
#include "kernels/cuda/cublas.h"
#include "streams.h"

namespace grist::cuda::cublas {

namespace {

constexpr int kInvalidValue = 7;  // CUBLAS_STATUS_INVALID_VALUE

cudaStream_t current = nullptr;

struct Matrix {
  std::byte* data;
  cudaDataType type;
  int stride;  // between columns
  std::int64_t at(int row, int col) const { return row + std::int64_t{col} * stride; }
  float get(int row, int col) const {
    if (type == CUDA_R_32F) return reinterpret_cast<const float*>(data)[at(row, col)];
    const std::uint32_t bits = reinterpret_cast<const std::uint16_t*>(data)[at(row, col)];
    return from_bits(bits << 16);
  }
  void set(int row, int col, float x) const {
    if (type == CUDA_R_32F) {
      reinterpret_cast<float*>(data)[at(row, col)] = x;
      return;
    }
    std::uint32_t bits = 0;
    std::memcpy(&bits, &x, sizeof bits);
    if (x == x) bits += 0x7fffU + (bits >> 16 & 1U);  // to nearest, ties to even
    reinterpret_cast<std::uint16_t*>(data)[at(row, col)] = static_cast<std::uint16_t>(bits >> 16);
  }

 private:
  static float from_bits(std::uint32_t bits) {
    float x = 0;
    std::memcpy(&x, &bits, sizeof x);
    return x;
  }
};

Matrix matrix(const void* data, cudaDataType type, int stride) {
  return {static_cast<std::byte*>(const_cast<void*>(data)), type, stride};
}

// As stored: rows x cols.
bool within_its_allocation(const char* name, const Matrix& m, int rows, int cols) {
  const std::size_t element = m.type == CUDA_R_32F ? 4 : 2;
  const auto bytes = static_cast<std::size_t>(m.at(rows - 1, cols - 1) + 1) * element;
  const emu::Range range = emu::find_range(m.data);
  if (m.stride >= rows && range.place == emu::Place::device &&
      m.data + bytes <= range.begin + range.bytes)
    return true;
  std::fprintf(stderr, "cublasGemmEx: %s (%d x %d, stride %d) at %s\n", name, rows, cols, m.stride,
               emu::describe_address(m.data).c_str());
  return false;
}

int gemm(void* /*handle*/, int op_a, int op_b, int m, int n, int k, const void* alpha,
         const void* a_data, cudaDataType a_type, int lda, const void* b_data, cudaDataType b_type,
         int ldb, const void* beta, void* c_data, cudaDataType c_type, int ldc, int compute,
         int /*algorithm*/) {
  const Matrix a = matrix(a_data, a_type, lda), b = matrix(b_data, b_type, ldb),
               c = matrix(c_data, c_type, ldc);
  const bool ta = op_a == kTransposed, tb = op_b == kTransposed;
  if (m <= 0 || n <= 0 || k <= 0 || compute != kCompute32F ||
      !within_its_allocation("A", a, ta ? k : m, ta ? m : k) ||
      !within_its_allocation("B", b, tb ? n : k, tb ? k : n) ||
      !within_its_allocation("C", c, m, n))
    return kInvalidValue;
  const float scale = *static_cast<const float*>(alpha), keep = *static_cast<const float*>(beta);
  const cudaError_t status = emu::enqueue(current, [=] {
    for (int j = 0; j < n; ++j) {
      for (int i = 0; i < m; ++i) {
        float sum = 0;
        for (int l = 0; l < k; ++l)
          sum += (ta ? a.get(l, i) : a.get(i, l)) * (tb ? b.get(j, l) : b.get(l, j));
        c.set(i, j, scale * sum + (keep == 0 ? 0 : keep * c.get(i, j)));
      }
    }
    return cudaSuccess;
  });
  return status == cudaSuccess ? 0 : kInvalidValue;
}

const Library kShim = {
    .workspace_bytes = 256,
    .create = [](void** handle) { return *handle = &current, 0; },
    .get_version = [](void*, int* version) { return *version = 0, 0; },
    .set_stream = [](void*, cudaStream_t stream) { return current = stream, 0; },
    .set_workspace = [](void*, void*, std::size_t) { return 0; },
    .set_math_mode = [](void*, int) { return 0; },
    .gemm = gemm,
};

}  // namespace

const Library* open_library(std::string& /*why*/) {
  return &kShim;
}

}  // namespace grist::cuda::cublas
