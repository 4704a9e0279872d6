#pragma once
// What tests of operations on activations share: both dtypes, inputs that the dtype can hold, and
// tolerances that allow for the rounding of what is stored.
#include <string>
#include <vector>

#include "cuda/fixture.h"

namespace grist::test {

constexpr DType kActivationTypes[] = {DType::f32, DType::bf16};

inline std::string label(const Shape& shape, DType dtype) {
  return shape.str() + " " + name_of(dtype);
}

inline std::vector<float> activations(std::int64_t n, const std::string& name, DType dtype,
                                      float scale = 1.0F) {
  std::vector<float> x = normals(n, name, scale);
  return dtype == DType::bf16 ? rounded_to_bf16(std::move(x)) : x;
}

// Arithmetic is fp32 for both; bf16 results are rounded once more, by 2^-9 of themselves at most.
inline Tolerance stored_as(DType dtype, Tolerance t) {
  if (dtype == DType::bf16) t.relative += 0x1p-8;
  return t;
}

}  // namespace grist::test
