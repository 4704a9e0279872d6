// Linear layer and the matmul beneath it against double loops; equal bits whatever the instruction
// set, the threads, the neighbouring rows or the batches.
#include "grist/ops/linear.h"

#include <gtest/gtest.h>

#include <cstring>
#include <numeric>

#include "grist/core/error.h"
#include "grist/core/memory.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/vector_math.h"
#include "ops/linear_reference.h"

namespace grist {
namespace {

using test::chain_tolerance;
using test::count;
using test::CpuContext;
using test::normals;
using test::product;
using test::view;
using Floats = std::vector<float>;

struct Size {
  std::int64_t N, I, O;
};

struct Packed {
  Buffer bytes;
  ops::WeightView view;
  Packed(const Context& ctx, const Floats& w, const Shape& shape)
      : bytes(ops::weight_bytes(Device::cpu, DType::f32, shape), Device::cpu, "packed") {
    view.data = bytes.data();
    view.shape = shape;
    ops::refresh_weight(ctx, {.out = view, .master = test::view(w, shape)});
  }
};

class Linear : public ::testing::TestWithParam<Size> {
 protected:
  std::int64_t N = GetParam().N, I = GetParam().I, O = GetParam().O;
  CpuContext ctx{2};
  Floats x = normals(N * I, "x"), dy = normals(N * O, "dy"), w = normals(O * I, "w");
  Packed packed{*ctx, w, {O, I}};
};

TEST_P(Linear, ForwardMatchesFormula) {
  Floats y(count(N * O), -7.0F);

  ops::linear_forward(*ctx, {.y = view(y, {N, O}), .x = view(x, {N, I}), .w = packed.view});

  const auto want = product(
      N, O, I, [&](auto n, auto i) { return x[count(n * I + i)]; },
      [&](auto i, auto o) { return w[count(o * I + i)]; });
  EXPECT_TRUE(test::close(y, want, chain_tolerance(I)));
}

TEST_P(Linear, InputGradientMatchesFormulaAndAccumulates) {
  const Floats start = normals(N * I, "start");
  Floats once(count(N * I), 9.0F), added = start;

  ops::linear_backward_input(*ctx,
                             {.dx = view(once, {N, I}), .dy = view(dy, {N, O}), .w = packed.view});
  ops::linear_backward_input(
      *ctx,
      {.dx = view(added, {N, I}), .dy = view(dy, {N, O}), .w = packed.view, .accumulate = true});

  auto want = product(
      N, I, O, [&](auto n, auto o) { return dy[count(n * O + o)]; },
      [&](auto o, auto i) { return w[count(o * I + i)]; });
  EXPECT_TRUE(test::close(once, want, chain_tolerance(O)));
  for (std::size_t j = 0; j < want.size(); ++j) want[j] += double{start[j]};
  EXPECT_TRUE(test::close(added, want, chain_tolerance(O)));
}

TEST_P(Linear, WeightGradientMatchesFormula) {
  Floats dw(count(O * I), 9.0F);

  ops::linear_backward_weight(
      *ctx,
      {.dw = view(dw, {O, I}), .dy = view(dy, {N, O}), .x = view(x, {N, I}), .accumulate = false});

  const auto want = product(
      O, I, N, [&](auto o, auto n) { return dy[count(n * O + o)]; },
      [&](auto n, auto i) { return x[count(n * I + i)]; });
  EXPECT_TRUE(test::close(dw, want, chain_tolerance(N)));
}

TEST_P(Linear, TwoBatchesGiveTheWeightGradientBitsOfOne) {
  Floats whole = normals(O * I, "dw"), parts = whole;
  const std::int64_t half = N / 3;
  const auto add = [&](Floats& dw, std::int64_t begin, std::int64_t end) {
    ops::linear_backward_weight(*ctx, {.dw = view(dw, {O, I}),
                                       .dy = rows(view(dy, {N, O}), begin, end),
                                       .x = rows(view(x, {N, I}), begin, end),
                                       .accumulate = true});
  };

  add(whole, 0, N);
  add(parts, 0, half);
  add(parts, half, N);

  EXPECT_EQ(whole, parts);
}

TEST_P(Linear, BitsDoNotDependOnThreadsOrOtherRows) {
  const CpuContext one(1), three(3);
  Floats y1(count(N * O)), y3(count(N * O)), alone(count(O));
  Floats dw1(count(O * I)), dw3(count(O * I));
  const auto forward = [&](const Context& c, Floats& y) {
    ops::linear_forward(c, {.y = view(y, {N, O}), .x = view(x, {N, I}), .w = packed.view});
  };
  const auto gradient = [&](const Context& c, Floats& dw) {
    ops::linear_backward_weight(c, {.dw = view(dw, {O, I}),
                                    .dy = view(dy, {N, O}),
                                    .x = view(x, {N, I}),
                                    .accumulate = false});
  };

  forward(*one, y1);
  forward(*three, y3);
  gradient(*one, dw1);
  gradient(*three, dw3);

  EXPECT_EQ(y1, y3);
  EXPECT_EQ(dw1, dw3);
  for (std::int64_t n = 0; n < N; n += 1 + N / 4) {
    ops::linear_forward(
        *ctx, {.y = view(alone, {1, O}), .x = rows(view(x, {N, I}), n, n + 1), .w = packed.view});
    EXPECT_EQ(0, std::memcmp(alone.data(), y1.data() + n * O, count(O) * sizeof(float)))
        << "row " << n;
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, Linear,
                         ::testing::Values(Size{1, 1, 1}, Size{3, 257, 5}, Size{5, 3, 257},
                                           Size{15, 17, 33}, Size{29, 300, 65}, Size{64, 96, 31},
                                           Size{173, 64, 130}, Size{300, 520, 48},
                                           Size{2, 1030, 600}, Size{8, 512, 1024}));

// The chain by hand: what every instruction set must reproduce to the bit.
TEST(LinearBits, EveryOutputIsOneFusedChainInAscendingOrder) {
  constexpr std::int64_t N = 17, I = 531, O = 37;
  CpuContext ctx;
  const Floats x = normals(N * I, "x"), w = normals(O * I, "w");
  const Packed packed(*ctx, w, {O, I});
  Floats y(count(N * O)), want(count(N * O));
  for (std::int64_t n = 0; n < N; ++n) {
    for (std::int64_t o = 0; o < O; ++o) {
      float sum = 0;
      for (std::int64_t i = 0; i < I; ++i)
        sum = std::fma(x[count(n * I + i)], w[count(o * I + i)], sum);
      want[count(n * O + o)] = sum;
    }
  }

  ops::linear_forward(*ctx, {.y = view(y, {N, O}), .x = view(x, {N, I}), .w = packed.view});

  EXPECT_EQ(y, want);
}

TEST(LinearBits, InstructionSetsAgree) {
  const cpu::IsaKernels& reference = *cpu::isa_kernels(cpu::Isa::portable);
  constexpr std::int64_t M = 45, N = 83, K = 281;
  const Floats a = normals(M * K, "a"), b = normals(K * N, "b"), start = normals(M * N, "c");
  const Floats at = normals(K * M, "at");
  Floats panels(count(cpu::panel_floats(K, N)));
  cpu::pack_panels(panels.data(), {b.data(), N}, K, N);
  Floats workspace(count(cpu::block_workspace_floats()));
  const auto multiply = [&](const cpu::IsaKernels& isa, bool accumulate) {
    Floats c = start;
    cpu::multiply_block(isa,
                        {.c = c.data(),
                         .c_stride = N,
                         .a = {a.data(), K},
                         .panels = panels.data(),
                         .rows = M,
                         .cols = N,
                         .depth = K,
                         .accumulate = accumulate},
                        workspace.data());
    return c;
  };
  const auto multiply_transposed = [&](const cpu::IsaKernels& isa, bool accumulate) {
    Floats c = start;
    cpu::multiply_transposed_block(isa,
                                   {.c = c.data(),
                                    .c_stride = N,
                                    .a = {at.data(), M},
                                    .b = {b.data(), N},
                                    .rows = M,
                                    .cols = N,
                                    .depth = K,
                                    .accumulate = accumulate},
                                   workspace.data());
    return c;
  };
  for (const cpu::Isa name : {cpu::Isa::avx2, cpu::Isa::avx512}) {
    const cpu::IsaKernels* isa = cpu::isa_kernels(name);
    if (isa == nullptr) continue;  // not on this processor
    for (const bool accumulate : {false, true}) {
      EXPECT_EQ(multiply(*isa, accumulate), multiply(reference, accumulate)) << isa->name;
      EXPECT_EQ(multiply_transposed(*isa, accumulate), multiply_transposed(reference, accumulate))
          << isa->name;
    }
  }
}

// More rows and columns than one pass of the workspace takes; one product each, so exact.
TEST(LinearBits, BlocksMayExceedTheWorkspace) {
  const cpu::IsaKernels& isa = cpu::native_kernels();
  constexpr std::int64_t M = 300, N = 66000;
  const Floats a = normals(M, "a"), b = normals(N, "b");
  Floats panels(count(cpu::panel_floats(1, N))), c(count(M * N)), ct(count(M * N));
  cpu::pack_panels(panels.data(), {b.data(), N}, 1, N);
  Floats workspace(count(cpu::block_workspace_floats()));

  cpu::multiply_block(isa,
                      {.c = c.data(),
                       .c_stride = N,
                       .a = {a.data(), 1},
                       .panels = panels.data(),
                       .rows = M,
                       .cols = N,
                       .depth = 1},
                      workspace.data());
  cpu::multiply_transposed_block(isa,
                                 {.c = ct.data(),
                                  .c_stride = N,
                                  .a = {a.data(), M},
                                  .b = {b.data(), N},
                                  .rows = M,
                                  .cols = N,
                                  .depth = 1},
                                 workspace.data());

  for (std::int64_t m = 0; m < M; m += 7) {
    for (std::int64_t n = 0; n < N; n += 3) {
      ASSERT_EQ(c[count(m * N + n)], a[count(m)] * b[count(n)]) << m << ", " << n;
      ASSERT_EQ(ct[count(m * N + n)], a[count(m)] * b[count(n)]) << m << ", " << n;
    }
  }
}

TEST(LinearEdges, ZeroRows) {
  constexpr std::int64_t I = 7, O = 5;
  CpuContext ctx;
  const Packed packed(*ctx, normals(O * I, "w"), {O, I});
  Floats none, kept(O * I, 3.0F), cleared(O * I, 3.0F);

  ops::linear_forward(*ctx, {.y = view(none, {0, O}), .x = view(none, {0, I}), .w = packed.view});
  ops::linear_backward_weight(*ctx, {.dw = view(kept, {O, I}),
                                     .dy = view(none, {0, O}),
                                     .x = view(none, {0, I}),
                                     .accumulate = true});
  ops::linear_backward_weight(*ctx, {.dw = view(cleared, {O, I}),
                                     .dy = view(none, {0, O}),
                                     .x = view(none, {0, I}),
                                     .accumulate = false});

  EXPECT_EQ(kept, Floats(O * I, 3.0F));
  EXPECT_EQ(cleared, Floats(O * I, 0.0F));
}

TEST(LinearErrors, WrongOperandsAreNamed) {
  constexpr std::int64_t N = 3, I = 4, O = 5;
  CpuContext ctx;
  const Packed packed(*ctx, normals(O * I, "w"), {O, I});
  Floats x(N * I), y(N * O);
  const auto message = [&](const ops::LinearForward& a, const Context& c) -> std::string {
    try {
      ops::linear_forward(c, a);
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ExitCode::internal);
      return e.what();
    }
    return "no error";
  };
  const ops::LinearForward good{.y = view(y, {N, O}), .x = view(x, {N, I}), .w = packed.view};

  ops::LinearForward bad = good;
  bad.x.shape = {N - 1, I};
  EXPECT_NE(message(bad, *ctx).find("linear_forward: y is (3, 5)"), std::string::npos);
  bad = good;
  bad.w.shape = {I, O};
  EXPECT_NE(message(bad, *ctx).find("weight is (4, 5), want (5, 4)"), std::string::npos);
  bad = good;
  bad.x.dtype = DType::bf16;
  EXPECT_NE(message(bad, *ctx).find("bf16"), std::string::npos);
  EXPECT_NE(message(good, Context()).find("scratch"), std::string::npos);
  EXPECT_EQ(message(good, *ctx), "no error");
  EXPECT_THROW(ops::weight_bytes(Device::cpu, DType::bf16, {O, I}), Error);
  EXPECT_THROW(ops::weight_bytes(Device::cpu, DType::f32, {O}), Error);
}

// ---- vector_math.h ----------------------------------------------------------------------------

TEST(VectorMath, ExpIsAccurateAndKeepsLimits) {
  Floats x, y;
  for (float v = -87.25F; v < 88.7F; v += 0.0317F) x.push_back(v);
  y.resize(x.size());

  cpu::exp_minus(y.data(), x.data(), 0.0F, static_cast<std::int64_t>(x.size()));

  for (std::size_t i = 0; i < x.size(); ++i) {
    const double want = std::exp(double{x[i]});
    EXPECT_NEAR(double{y[i]} / want, 1.0, 1.2e-7) << x[i];
  }
  const float inf = std::numeric_limits<float>::infinity();
  const Floats limits = {0.0F, -inf, inf, -90.0F, 89.0F, std::nanf("")};
  Floats got(limits.size());
  cpu::exp_minus(got.data(), limits.data(), 0.0F, static_cast<std::int64_t>(got.size()));
  EXPECT_EQ(Floats(got.begin(), got.end() - 1), (Floats{1.0F, 0.0F, inf, 0.0F, inf}));
  EXPECT_TRUE(std::isnan(got.back()));
}

TEST(VectorMath, InstructionSetsAgreeOnEveryLength) {
  const cpu::IsaKernels& r = *cpu::isa_kernels(cpu::Isa::portable);
  const Floats x = normals(99, "x", 3.0F), y = normals(99, "y"), h = normals(99, "h");
  for (const cpu::Isa name : {cpu::Isa::avx2, cpu::Isa::avx512}) {
    const cpu::IsaKernels* isa = cpu::isa_kernels(name);
    if (isa == nullptr) continue;  // not on this processor
    for (std::int64_t n = 0; n <= 99; n += n < 40 ? 1 : 13) {
      Floats a(99), b(99), a2(99), b2(99), a3(99), b3(99);
      EXPECT_EQ(isa->max_of(x.data(), n), r.max_of(x.data(), n));
      EXPECT_EQ(isa->sum_of(x.data(), n), r.sum_of(x.data(), n));
      EXPECT_EQ(isa->dot(x.data(), y.data(), n), r.dot(x.data(), y.data(), n));
      isa->exp_minus(a.data(), x.data(), 0.5F, n);
      r.exp_minus(b.data(), x.data(), 0.5F, n);
      EXPECT_EQ(a, b);
      isa->add_scaled(a.data(), y.data(), 0.7F, n);
      r.add_scaled(b.data(), y.data(), 0.7F, n);
      EXPECT_EQ(a, b);
      isa->swiglu(a.data(), x.data(), y.data(), n);
      r.swiglu(b.data(), x.data(), y.data(), n);
      EXPECT_EQ(a, b);
      const float da = isa->swiglu_gradient(
          {a.data(), a2.data(), a3.data(), h.data(), x.data(), y.data(), 0.3F, n});
      const float db = r.swiglu_gradient(
          {b.data(), b2.data(), b3.data(), h.data(), x.data(), y.data(), 0.3F, n});
      EXPECT_EQ(da, db);
      EXPECT_EQ(a, b);
      EXPECT_EQ(a2, b2);
      EXPECT_EQ(a3, b3);
    }
  }
}

}  // namespace
}  // namespace grist
