#pragma once
// The CPU instruction sets and the functions compiled once for each. Every function gives the same
// bits on every instruction set: sums are single fused multiply-add chains or 16 fixed lanes, exp
// is one polynomial in explicit fused operations. Only plain declarations here: this file is
// included by sources compiled for instruction sets that the machine may lack, so an inline
// function in it could leak one of their instructions into the rest of the program.
#include <cstdint>

namespace grist::cpu {

enum class Isa : std::uint8_t { portable, avx2, avx512 };

inline constexpr std::int64_t kPanelColumns = 32;  // columns of a packed panel of B
inline constexpr std::int64_t kDepthBlock = 256;   // part of the summed dim multiplied at a time
inline constexpr std::int64_t kRowStride = kDepthBlock + 16;  // floats between rows of a copied A

// Memory that the next block will read, requested a line at a time while this one is computed. Only
// a hint.
struct NextRows {
  const float* data = nullptr;
  std::int64_t stride = 0;
  const std::int32_t* index = nullptr;  // row i is at data + (index ? index[i] : i) * stride
  std::int64_t count = 0;
  std::int64_t pieces = 1;  // KiB of each row
};
struct NextBlock {
  NextRows a, b;
  const float* panel = nullptr;  // the first of a packed B
};

// C (+)= A B for blocks that are already laid out: rows x cols outputs, depth products each
// (multiply_rows: at most kDepthBlock). accumulate: the chains start from C instead of 0.
struct TileBlock {
  float* c;
  std::int64_t c_stride;
  const float* a;
  std::int64_t a_stride;  // multiply_columns only
  const float* b;
  std::int64_t b_stride;  // floats between panels of 32 columns
  std::int64_t rows, cols, depth;
  bool accumulate;
  NextBlock next = {};
};

// One row of SwiGLU's backward pass: with a = silu(gate) up and da = weight * h,
//   dgate = da up silu'(gate),  dup = da silu(gate),  weighted_a = weight * a.
struct SwigluGradientRow {
  float* dgate;       // may be gate or h
  float* dup;         // may be up
  float* weighted_a;  // null: not wanted
  const float* h;     // gradient of a before its weight
  const float* gate;
  const float* up;
  float weight;
  std::int64_t n;
};

struct IsaKernels {
  const char* name;
  // A row-major: A[m, k] = a[m * kRowStride + k]; B panels: B[k, n] = b[n / 32 * b_stride + k * 32
  // + n % 32].
  void (*multiply_rows)(const TileBlock&);
  // A depth-major: A[m, k] = a[k * a_stride + m]; B as above.
  void (*multiply_columns)(const TileBlock&);
  void (*exp_minus)(float* y, const float* x, float shift, std::int64_t n);
  float (*max_of)(const float* x, std::int64_t n);
  float (*sum_of)(const float* x, std::int64_t n);
  float (*dot)(const float* x, const float* y, std::int64_t n);
  void (*add_scaled)(float* y, const float* x, float s, std::int64_t n);
  void (*swiglu)(float* a, const float* gate, const float* up, std::int64_t n);
  float (*swiglu_gradient)(const SwigluGradientRow&);  // returns <h, a>
};

// Null when this build or this processor lacks the instruction set.
const IsaKernels* isa_kernels(Isa isa);
// The fastest one, found once by CPUID.
const IsaKernels& native_kernels();

}  // namespace grist::cpu
