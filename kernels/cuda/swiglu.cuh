#pragma once
// a = silu(gate) * up and its gradient, for one element.
#include "device.cuh"

namespace grist::cuda {

// 1 / (1 + e^-x), as exact as values stored as T need it: for bf16 by instructions that leave a
// memory-bound kernel bound by memory (relative error about 2^-21 where |x| < 16).
template <class T = float> __device__ inline float sigmoid(float x) {
  return 1.0F / (1.0F + expf(-x));
}
template <> __device__ inline float sigmoid<bf16>(float x) {
  return __fdividef(1.0F, 1.0F + __expf(-x));
}
__device__ inline float swiglu(float gate, float up) {
  return gate * sigmoid(gate) * up;
}
// d a / d gate, d a / d up, and a itself.
struct SwigluSlopes {
  float gate, up, a;
};
__device__ inline SwigluSlopes swiglu_slopes(float gate, float up) {
  const float s = sigmoid(gate), silu = gate * s;
  return {up * s * (1.0F + gate * (1.0F - s)), silu, silu * up};
}

}  // namespace grist::cuda
