#pragma once
// Sixteen floats at a time, with the same bits on every instruction set: element-wise arithmetic is
// exact by IEEE 754, sums keep one accumulator a lane and end in one fixed tree, and the tail of a
// row uses the same lanes padded with zeros. Everything here is inlined into its caller, so that a
// caller marked GRIST_CLONES gets it in the instruction set of each clone.
#include <cstdint>
#include <cstring>

// One function compiled for AVX-512, AVX2 and the baseline, chosen when the program starts.
// Sanitizers instrument the chooser, which runs before they are ready, so they get the baseline.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define GRIST_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define GRIST_CLONES
#endif
#define GRIST_INLINE inline __attribute__((always_inline))

namespace grist::cpu {

constexpr std::int64_t kLanes = 16;
using Lanes = float __attribute__((vector_size(64)));

// Loads min(n, 16) floats, the rest 0. No alignment needed.
GRIST_INLINE void load(Lanes& v, const float* p, std::int64_t n = kLanes) {
  if (n >= kLanes) {
    std::memcpy(&v, p, sizeof v);
  } else {
    v = Lanes{};
    std::memcpy(&v, p, static_cast<std::size_t>(n) * sizeof(float));
  }
}

GRIST_INLINE void store(float* p, const Lanes& v, std::int64_t n = kLanes) {
  if (n >= kLanes) {
    std::memcpy(p, &v, sizeof v);
  } else {
    std::memcpy(p, &v, static_cast<std::size_t>(n) * sizeof(float));
  }
}

// Lane i + 8 is added to lane i, then 4, 2, 1.
GRIST_INLINE float sum_lanes(const Lanes& v) {
  float t[kLanes];
  std::memcpy(t, &v, sizeof v);
  for (int width = 8; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) t[i] += t[i + width];
  return t[0];
}

// x *= s.
void scale_row(float* x, float s, std::int64_t n);

}  // namespace grist::cpu
