// Linear layer on the device against double loops: fp32, bf16 and the router's mixed products. fp32
// results are the chains that the CPU computes, bit by bit.
#include "grist/ops/linear.h"

#include <gtest/gtest.h>

#include <cstring>

#include "cuda/fixture.h"
#include "kernels/cuda/cublas.h"
#include "ops/linear_reference.h"

namespace grist {
namespace {

using cuda::DenseMatmul;
using test::chain_tolerance;
using test::count;
using test::normals;
using test::OnDevice;
using test::product;
using test::rounded_to_bf16;
using Floats = std::vector<float>;

struct Case {
  std::int64_t N, I, O;
  DType x, y;  // of x and dx; of y, dy and w
  DenseMatmul matmul = DenseMatmul::own;
  int capability = 80;
};

ops::WeightView weight(const OnDevice& w) {
  const TensorView v = w.view();
  return {.data = static_cast<std::byte*>(v.data),
          .device = Device::cuda,
          .dtype = v.dtype,
          .shape = v.shape};
}

// Sums of `length` products, stored as `dtype`: bf16 rounds by at most 2^-8 of the value.
test::Tolerance stored_tolerance(std::int64_t length, DType dtype) {
  auto t = chain_tolerance(length);
  if (dtype == DType::bf16) t.relative += 1.0 / 256;
  return t;
}

class CudaLinear : public ::testing::TestWithParam<Case> {
 protected:
  CudaLinear() { cuda::set_dense_matmul(GetParam().matmul); }
  ~CudaLinear() override { cuda::set_dense_matmul(DenseMatmul::automatic); }
  test::AsDevice device{GetParam().capability};
  std::int64_t N = GetParam().N, I = GetParam().I, O = GetParam().O;
  DType x_type = GetParam().x, y_type = GetParam().y;
  Floats x = rounded_to_bf16(normals(N * I, "x")), dy = rounded_to_bf16(normals(N * O, "dy")),
         w = rounded_to_bf16(normals(O * I, "w"));
};

TEST_P(CudaLinear, ForwardMatchesFormula) {
  const auto want = product(
      N, O, I, [&](auto n, auto i) { return x[count(n * I + i)]; },
      [&](auto i, auto o) { return w[count(o * I + i)]; });
  test::for_each_schedule([&] {
    const test::CudaContext ctx;
    const OnDevice x_(*ctx, x, {N, I}, x_type), w_(*ctx, w, {O, I}, y_type);
    const OnDevice y(*ctx, y_type, {N, O});

    ops::linear_forward(*ctx, {.y = y, .x = x_, .w = weight(w_)});

    EXPECT_TRUE(test::close(y.floats(), want, stored_tolerance(I, y_type)));
  });
}

TEST_P(CudaLinear, InputGradientMatchesFormulaAndAccumulates) {
  const Floats start = rounded_to_bf16(normals(N * I, "start"));
  auto want = product(
      N, I, O, [&](auto n, auto o) { return dy[count(n * O + o)]; },
      [&](auto o, auto i) { return w[count(o * I + i)]; });
  auto added_want = want;
  for (std::size_t j = 0; j < want.size(); ++j) added_want[j] += double{start[j]};
  test::for_each_schedule([&] {
    const test::CudaContext ctx;
    const OnDevice dy_(*ctx, dy, {N, O}, y_type), w_(*ctx, w, {O, I}, y_type);
    const OnDevice once(*ctx, x_type, {N, I}), added(*ctx, start, {N, I}, x_type);

    ops::linear_backward_input(*ctx, {.dx = once, .dy = dy_, .w = weight(w_)});
    ops::linear_backward_input(*ctx, {.dx = added, .dy = dy_, .w = weight(w_), .accumulate = true});

    EXPECT_TRUE(test::close(once.floats(), want, stored_tolerance(O, x_type)));
    EXPECT_TRUE(test::close(added.floats(), added_want, stored_tolerance(O, x_type)));
  });
}

TEST_P(CudaLinear, WeightGradientMatchesFormulaAndAccumulates) {
  const Floats start = normals(O * I, "start");
  const auto want = product(
      O, I, N, [&](auto o, auto n) { return dy[count(n * O + o)]; },
      [&](auto n, auto i) { return x[count(n * I + i)]; });
  auto added_want = want;
  for (std::size_t j = 0; j < want.size(); ++j) added_want[j] += double{start[j]};
  test::for_each_schedule([&] {
    const test::CudaContext ctx;
    const OnDevice dy_(*ctx, dy, {N, O}, y_type), x_(*ctx, x, {N, I}, x_type);
    const OnDevice once(*ctx, DType::f32, {O, I}), added(*ctx, start, {O, I});

    ops::linear_backward_weight(*ctx, {.dw = once, .dy = dy_, .x = x_, .accumulate = false});
    ops::linear_backward_weight(*ctx, {.dw = added, .dy = dy_, .x = x_, .accumulate = true});

    EXPECT_TRUE(test::close(once.floats(), want, chain_tolerance(N)));
    EXPECT_TRUE(test::close(added.floats(), added_want, chain_tolerance(N)));
  });
}

TEST_P(CudaLinear, RowsDoNotDependOnOtherRows) {
  if (GetParam().matmul == DenseMatmul::cublas) return;  // not promised
  const test::CudaContext ctx;
  const OnDevice x_(*ctx, x, {N, I}, x_type), w_(*ctx, w, {O, I}, y_type);
  const OnDevice y(*ctx, y_type, {N, O}), alone(*ctx, y_type, {1, O});
  ops::linear_forward(*ctx, {.y = y, .x = x_, .w = weight(w_)});
  const Floats all = y.floats();

  for (std::int64_t n = 0; n < N; n += 1 + N / 3) {
    const OnDevice row(*ctx, Floats(x.begin() + n * I, x.begin() + (n + 1) * I), {1, I}, x_type);
    ops::linear_forward(*ctx, {.y = alone, .x = row, .w = weight(w_)});
    const Floats got = alone.floats();
    EXPECT_EQ(0, std::memcmp(got.data(), all.data() + n * O, count(O) * sizeof(float))) << n;
  }
}

std::string name_of_case(const ::testing::TestParamInfo<Case>& tested) {
  const Case& c = tested.param;
  return std::string(name_of(c.x)) + "_" + name_of(c.y) + "_" + std::to_string(c.N) + "_" +
         std::to_string(c.I) + "_" + std::to_string(c.O);
}

constexpr DType f32 = DType::f32, bf16 = DType::bf16;
constexpr DenseMatmul kCublas = DenseMatmul::cublas;
INSTANTIATE_TEST_SUITE_P(Shapes, CudaLinear,
                         ::testing::Values(Case{1, 1, 1, f32, f32}, Case{3, 257, 5, f32, f32},
                                           Case{64, 96, 31, f32, f32}, Case{65, 16, 64, f32, f32},
                                           Case{63, 15, 130, f32, f32}, Case{1, 8, 4, bf16, f32},
                                           Case{70, 40, 16, bf16, f32}, Case{5, 3, 17, bf16, bf16},
                                           Case{20, 36, 12, bf16, bf16}, Case{1, 8, 8, bf16, bf16},
                                           Case{127, 40, 136, bf16, bf16},
                                           Case{128, 200, 128, bf16, bf16},
                                           Case{129, 192, 200, bf16, bf16},
                                           Case{300, 24, 16, bf16, bf16}),
                         name_of_case);
INSTANTIATE_TEST_SUITE_P(Cublas, CudaLinear,
                         ::testing::Values(Case{1, 1, 1, bf16, bf16, kCublas},
                                           Case{5, 3, 17, bf16, bf16, kCublas},
                                           Case{29, 64, 40, bf16, bf16, kCublas},
                                           Case{70, 40, 16, bf16, f32, kCublas}),
                         name_of_case);
constexpr DenseMatmul kOwn = DenseMatmul::own;
INSTANTIATE_TEST_SUITE_P(Hopper, CudaLinear,
                         ::testing::Values(Case{5, 3, 17, bf16, bf16, kOwn, 90},
                                           Case{1, 8, 8, bf16, bf16, kOwn, 90},
                                           Case{127, 40, 136, bf16, bf16, kOwn, 90},
                                           Case{129, 192, 264, bf16, bf16, kOwn, 90},
                                           Case{300, 24, 16, bf16, bf16, kOwn, 90}),
                         name_of_case);

// The chain of ops/linear.h by hand.
TEST(CudaLinearBits, EveryFp32OutputIsOneFusedChainInAscendingOrder) {
  constexpr std::int64_t N = 17, I = 131, O = 67;
  const test::CudaContext ctx;
  const Floats x = normals(N * I, "x"), w = normals(O * I, "w");
  Floats want(count(N * O));
  for (std::int64_t n = 0; n < N; ++n) {
    for (std::int64_t o = 0; o < O; ++o) {
      float sum = 0;
      for (std::int64_t i = 0; i < I; ++i)
        sum = std::fma(x[count(n * I + i)], w[count(o * I + i)], sum);
      want[count(n * O + o)] = sum;
    }
  }
  const OnDevice x_(*ctx, x, {N, I}), w_(*ctx, w, {O, I});
  const OnDevice y(*ctx, DType::f32, {N, O});

  ops::linear_forward(*ctx, {.y = y, .x = x_, .w = weight(w_)});

  EXPECT_EQ(y.floats(), want);
}

TEST(CudaLinearBits, TwoBatchesGiveTheFp32WeightGradientOfOne) {
  constexpr std::int64_t N = 70, I = 33, O = 20, kHalf = 23;
  const test::CudaContext ctx;
  const OnDevice dy(*ctx, normals(N * O, "dy"), {N, O}), x(*ctx, normals(N * I, "x"), {N, I});
  const OnDevice whole(*ctx, normals(O * I, "dw"), {O, I}), parts(*ctx, whole.floats(), {O, I});
  const auto add = [&](const OnDevice& dw, std::int64_t begin, std::int64_t end) {
    ops::linear_backward_weight(*ctx, {.dw = dw,
                                       .dy = rows(ConstTensorView(dy), begin, end),
                                       .x = rows(ConstTensorView(x), begin, end),
                                       .accumulate = true});
  };

  add(whole, 0, N);
  add(parts, 0, kHalf);
  add(parts, kHalf, N);

  EXPECT_EQ(parts.floats(), whole.floats());
}

TEST(CudaLinearEdges, ZeroRows) {
  constexpr std::int64_t I = 7, O = 5;
  const test::CudaContext ctx;
  const OnDevice dy(*ctx, DType::f32, {0, O}), x(*ctx, DType::f32, {0, I});
  const OnDevice kept(*ctx, Floats(O * I, 3.0F), {O, I}),
      cleared(*ctx, Floats(O * I, 3.0F), {O, I});

  ops::linear_backward_weight(*ctx, {.dw = kept, .dy = dy, .x = x, .accumulate = true});
  ops::linear_backward_weight(*ctx, {.dw = cleared, .dy = dy, .x = x, .accumulate = false});

  EXPECT_EQ(kept.floats(), Floats(O * I, 3.0F));
  EXPECT_EQ(cleared.floats(), Floats(O * I, 0.0F));
}

}  // namespace
}  // namespace grist
