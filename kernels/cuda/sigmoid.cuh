#pragma once
// The logistic function of SwiGLU, as exact as activations of type T need it.
#include <cuda_bf16.h>

#include "device.cuh"

namespace grist::cuda {

// 1 / (1 + e^-x). Relative error a few 2^-24; for bf16 a few 2^-22 (|x| < 16), which leaves the
// kernel bound by memory.
template <class T> __device__ inline float sigmoid(float x);
template <> __device__ inline float sigmoid<float>(float x) {
  return 1.0F / (1.0F + expf(-x));
}
template <> __device__ inline float sigmoid<bf16>(float x) {
  return __fdividef(1.0F, 1.0F + __expf(-x));
}

// silu(x) = x sigmoid(x) and its slope.
struct Silu {
  float value, slope;
};
template <class T> __device__ inline Silu silu(float x) {
  const float s = sigmoid<T>(x), value = x * s;
  return {value, value * (1.0F - s) + s};
}

}  // namespace grist::cuda
