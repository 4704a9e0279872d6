#pragma once
// Comparing a result with a float64 judge, and data for tests. One rule for tolerance: |got - want|
// <= absolute + relative * |want|.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "grist/core/context.h"
#include "grist/core/memory.h"
#include "grist/core/random.h"
#include "grist/core/tensor.h"

namespace grist::test {

struct Tolerance {
  double relative = 1e-5;
  double absolute = 1e-6;
};

// fp32 results of sums of `length` products of order-one numbers.
inline Tolerance tolerance(std::int64_t length) {
  const double growth = std::sqrt(static_cast<double>(length < 1 ? 1 : length));
  return {2e-6 * (1.0 + 0.2 * growth), 1e-6 * (1.0 + growth)};
}

// Fails with the first wrong index, both values and the worst ratio. NaN never passes; infinities
// must be equal.
template <class Got>
::testing::AssertionResult close(const Got* got, const double* want, std::int64_t n, Tolerance t) {
  std::int64_t first = -1;
  double worst = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    const auto g = static_cast<double>(got[i]);
    if (std::isinf(want[i]) && g == want[i]) continue;
    const double ratio = std::abs(g - want[i]) / (t.absolute + t.relative * std::abs(want[i]));
    if (!(ratio <= 1.0) && first < 0) first = i;
    if (!(ratio <= worst)) worst = ratio;
  }
  if (first < 0) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure()
         << "first wrong index " << first << ": got " << got[first] << ", want " << want[first]
         << "; worst error is " << worst << " times the tolerance";
}

inline ::testing::AssertionResult close(const std::vector<float>& got,
                                        const std::vector<double>& want, Tolerance t) {
  if (got.size() != want.size())
    return ::testing::AssertionFailure() << got.size() << " values, want " << want.size();
  return close(got.data(), want.data(), static_cast<std::int64_t>(got.size()), t);
}

// For results of operands in bf16: `size` holds the sums of the absolute values behind each result.
// Rounding to bf16 changes a value by up to 2^-8 of it; `times` is how often in a row that happens
// to the values summed and to the result.
inline ::testing::AssertionResult close_to_sums(const std::vector<float>& got,
                                                const std::vector<double>& want,
                                                const std::vector<double>& size, int times) {
  if (got.size() != want.size())
    return ::testing::AssertionFailure() << got.size() << " values, want " << want.size();
  for (std::size_t i = 0; i < want.size(); ++i) {
    const double bound = std::ldexp(size[i], -8) * times + 1e-6;
    if (!(std::abs(static_cast<double>(got[i]) - want[i]) <= bound))
      return ::testing::AssertionFailure() << "first wrong index " << i << ": got " << got[i]
                                           << ", want " << want[i] << ", within " << bound;
  }
  return ::testing::AssertionSuccess();
}

// Reproducible normal numbers: a function of the name and the index.
inline std::vector<float> normals(std::int64_t n, const std::string& name, float scale = 1.0F) {
  const Random random(7, name);
  std::vector<float> x(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = scale * random.normal(i);
  return x;
}

template <class T> TensorView view(std::vector<T>& v, const Shape& shape) {
  EXPECT_EQ(static_cast<std::int64_t>(v.size()), shape.numel());
  return {v.data(), dtype_of<T>(), shape};
}
template <class T> ConstTensorView view(const std::vector<T>& v, const Shape& shape) {
  EXPECT_EQ(static_cast<std::int64_t>(v.size()), shape.numel());
  return {v.data(), dtype_of<T>(), shape};
}

// A CPU context with its own threads and scratch.
class CpuContext {
 public:
  explicit CpuContext(int threads = 2) : pool_(threads) {
    context_.pool = &pool_;
    context_.scratch = &scratch_;
  }
  const Context& operator*() const { return context_; }

 private:
  ThreadPool pool_;
  Scratch scratch_;
  Context context_;
};

}  // namespace grist::test
