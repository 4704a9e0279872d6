#include "grist/ops/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "grist/core/error.h"
#include "ops/attention_reference.h"
#include "support/compare.h"
#include "support/gradient.h"

namespace grist {
namespace {

using test::close;
using test::CpuContext;
using test::Doubles;
using test::Lengths;
using test::normals;
using test::starts;
using test::tolerance;
using test::view;
using test::widen;
using Case = test::AttentionCase;
using Judge = test::AttentionJudge;

// The operation under test, with every operand.
struct Trial {
  explicit Trial(const Case& c_in, float size = 1.0F)
      : c(c_in), cu_q(starts(c.q)), cu_k(starts(c.k)), Nq(cu_q.back()), Nk(cu_k.back()) {
    q = normals(Nq * c.H * c.Dh, "q", size);
    k = normals(Nk * c.Hkv * c.Dh, "k", size);
    v = normals(Nk * c.Hkv * c.Dh, "v");
    do_ = normals(Nq * c.H * c.Dh, "do");
    o = dq = std::vector<float>(q.size(), 99.0F);
    dk = dv = std::vector<float>(k.size(), 99.0F);
    lse.assign(static_cast<std::size_t>(Nq * c.H), 99.0F);
    scale = 1.0F / std::sqrt(static_cast<float>(c.Dh));
  }
  ops::AttentionForward forward_args() {
    const auto S = static_cast<std::int64_t>(cu_q.size());
    return {.o = view(o, {Nq, c.H, c.Dh}),
            .lse = view(lse, {Nq, c.H}),
            .q = view(std::as_const(q), {Nq, c.H, c.Dh}),
            .k = view(std::as_const(k), {Nk, c.Hkv, c.Dh}),
            .v = view(std::as_const(v), {Nk, c.Hkv, c.Dh}),
            .cu_seqlens_q = view(std::as_const(cu_q), {S}),
            .cu_seqlens_k = view(std::as_const(cu_k), {S}),
            .scale = scale};
  }
  ops::AttentionBackward backward_args() {
    const ops::AttentionForward f = forward_args();
    return {.dq = view(dq, f.q.shape),
            .dk = view(dk, f.k.shape),
            .dv = view(dv, f.k.shape),
            .do_ = view(std::as_const(do_), f.q.shape),
            .o = f.o,
            .lse = f.lse,
            .q = f.q,
            .k = f.k,
            .v = f.v,
            .cu_seqlens_q = f.cu_seqlens_q,
            .cu_seqlens_k = f.cu_seqlens_k,
            .scale = scale};
  }
  void run(const Context& ctx) {
    ops::attention_forward(ctx, forward_args());
    ops::attention_backward(ctx, backward_args());
  }
  Judge judge() const {
    Judge j(c, widen(q), widen(k), widen(v));
    j.scale = static_cast<double>(scale);
    return j;
  }

  Case c;
  Lengths cu_q, cu_k;
  std::int64_t Nq, Nk;
  std::vector<float> q, k, v, do_, o, lse, dq, dk, dv;
  float scale;
};

class Attention : public ::testing::TestWithParam<Case> {};

TEST_P(Attention, MatchesNaiveSoftmax) {
  const Case c = GetParam();
  const CpuContext ctx;
  Trial run(c);

  run.run(*ctx);

  Judge judge = run.judge();
  judge.backward(widen(run.do_));
  const std::int64_t longest = c.k.empty() ? 1 : *std::max_element(c.k.begin(), c.k.end());
  EXPECT_TRUE(close(run.o, judge.o, {1e-5, 2e-6}));
  EXPECT_TRUE(close(run.lse, judge.lse, {2e-6, 2e-6}));
  EXPECT_TRUE(close(run.dq, judge.dq, tolerance(c.Dh)));
  EXPECT_TRUE(close(run.dk, judge.dk, tolerance(longest * c.H / c.Hkv)));
  EXPECT_TRUE(close(run.dv, judge.dv, tolerance(longest * c.H / c.Hkv)));
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, Attention,
    ::testing::Values(Case{{}, {}, 1, 1, 8},     // no documents
                      Case{{0}, {0}, 2, 1, 8},   // an empty one
                      Case{{1}, {1}, 1, 1, 1},   // one of everything
                      Case{{5}, {5}, 1, 1, 16},  // shorter than a block
                      Case{{28, 29, 27, 57}, {28, 29, 27, 57}, 2, 2, 32},
                      Case{{127, 128, 129}, {127, 128, 129}, 2, 2, 16},  // block edges
                      Case{{130, 1, 0, 77, 1}, {130, 1, 0, 77, 1}, 4, 2, 24},
                      Case{{33, 0, 200}, {33, 0, 200}, 4, 1, 40},  // GQA 4
                      Case{{300}, {300}, 1, 1, 64}, Case{{97}, {97}, 2, 1, 128},
                      Case{{20, 9}, {600, 9}, 2, 1, 272},  // heads deeper than 256
                      Case{{600}, {600}, 2, 1, 16},        // more keys than are packed at a time
                      Case{{1, 1, 1}, {70, 1, 200}, 4, 2, 32},  // decoding
                      Case{{7, 40}, {100, 40}, 2, 1, 48},       // a chunk after a cache
                      Case{{3, 0}, {0, 5}, 2, 2, 8},            // no keys; no queries
                      Case{{70, 9}, {10, 4}, 2, 1, 16}));       // first queries see none

TEST(AttentionGradient, EqualsFiniteDifferences) {
  const Case c{{4, 1, 3}, {4, 1, 5}, 2, 1, 3};
  const CpuContext ctx;
  Trial run(c);

  run.run(*ctx);

  Judge judge = run.judge();
  const Doubles do_ = widen(run.do_);
  const auto loss = [&] {
    judge.forward();
    return test::dot(judge.o, do_);
  };
  EXPECT_TRUE(close(run.dq, test::numeric_gradient(judge.q, loss), {1e-5, 1e-5}));
  EXPECT_TRUE(close(run.dk, test::numeric_gradient(judge.k, loss), {1e-5, 1e-5}));
  EXPECT_TRUE(close(run.dv, test::numeric_gradient(judge.v, loss), {1e-5, 1e-5}));
}

// With one document and head, two threads take the gradients apart and one does not.
TEST(AttentionBits, DoNotDependOnThreads) {
  const CpuContext one(1), two(2);
  for (const Case& c : {Case{{150, 3, 90}, {150, 3, 90}, 4, 2, 20}, Case{{600}, {600}, 1, 1, 24},
                        Case{{300}, {700}, 2, 1, 300}}) {
    Trial a(c), b(c);
    a.run(*one);
    b.run(*two);
    EXPECT_EQ(a.o, b.o);
    EXPECT_EQ(a.lse, b.lse);
    EXPECT_EQ(a.dq, b.dq);
    EXPECT_EQ(a.dk, b.dk);
    EXPECT_EQ(a.dv, b.dv);
  }
}

// A document gives the same bits alone as among others, and a query the same bits when it is
// decoded alone, against the keys before it.
TEST(AttentionBits, DoNotDependOnNeighbours) {
  const CpuContext ctx;
  const std::int64_t H = 2, Dh = 24, width = H * Dh;
  Trial all(Case{{70, 131}, {70, 131}, H, H, Dh});
  all.run(*ctx);
  const auto part = [&](const std::vector<float>& x, std::int64_t begin, std::int64_t end) {
    return std::vector<float>(x.begin() + begin * width, x.begin() + end * width);
  };

  Trial alone(Case{{131}, {131}, H, H, Dh});
  alone.q = part(all.q, 70, 201);
  alone.k = part(all.k, 70, 201);
  alone.v = part(all.v, 70, 201);
  alone.do_ = part(all.do_, 70, 201);
  alone.run(*ctx);
  EXPECT_EQ(alone.o, part(all.o, 70, 201));
  EXPECT_EQ(alone.dq, part(all.dq, 70, 201));
  EXPECT_EQ(alone.dk, part(all.dk, 70, 201));
  EXPECT_EQ(alone.dv, part(all.dv, 70, 201));

  for (const std::int32_t i : {0, 27, 28, 127, 128, 130}) {
    Trial decode(Case{{1}, {i + 1}, H, H, Dh});
    decode.q = part(all.q, 70 + i, 71 + i);
    decode.k = part(all.k, 70, 71 + i);
    decode.v = part(all.v, 70, 71 + i);
    ops::attention_forward(*ctx, decode.forward_args());
    EXPECT_EQ(decode.o, part(all.o, 70 + i, 71 + i)) << "query " << i;
  }
}

TEST(AttentionExtremes, LargeScoresStayFinite) {
  const Case c{{80}, {80}, 1, 1, 32};
  const CpuContext ctx;
  Trial run(c, 100.0F);  // scores of the order of 1e4
  run.run(*ctx);
  for (const auto* x : {&run.o, &run.lse, &run.dq, &run.dk, &run.dv})
    for (const float value : *x) ASSERT_TRUE(std::isfinite(value));
  // Query 0 sees key 0 alone.
  for (std::size_t d = 0; d < 32; ++d) EXPECT_FLOAT_EQ(run.o[d], run.v[d]);
}

TEST(AttentionExtremes, NanInOneDocumentStaysThere) {
  const Case c{{40, 40}, {40, 40}, 1, 1, 8};
  const CpuContext ctx;
  Trial run(c);
  run.q[0] = std::numeric_limits<float>::quiet_NaN();
  run.run(*ctx);
  EXPECT_TRUE(std::isnan(run.o[0]));
  for (std::size_t i = 8; i < run.o.size(); ++i) ASSERT_FALSE(std::isnan(run.o[i]));
  for (std::size_t i = 320; i < run.dk.size(); ++i) ASSERT_FALSE(std::isnan(run.dk[i]));
}

TEST(AttentionErrors, RejectsBrokenContracts) {
  const CpuContext ctx;
  Trial run(Case{{3, 2}, {3, 2}, 2, 1, 8});
  EXPECT_NO_THROW(run.run(*ctx));
  auto wrong = run.forward_args();
  wrong.o.shape = {5, 1, 16};
  EXPECT_THROW(ops::attention_forward(*ctx, wrong), Error);
  wrong = run.forward_args();
  wrong.k.dtype = DType::bf16;
  EXPECT_THROW(ops::attention_forward(*ctx, wrong), Error);
  Trial heads(Case{{2}, {2}, 3, 2, 8});
  EXPECT_THROW(heads.run(*ctx), Error);
  for (const Lengths& cu : {Lengths{0, 3, 4}, Lengths{1, 3, 5}, Lengths{0, 6, 5}}) {
    run.cu_q = cu;
    EXPECT_THROW(ops::attention_forward(*ctx, run.forward_args()), Error);
    EXPECT_THROW(ops::attention_backward(*ctx, run.backward_args()), Error);
  }
  run.cu_q = {0, 3, 5};
  Context bare;
  EXPECT_THROW(ops::attention_forward(bare, run.forward_args()), Error);
}

}  // namespace
}  // namespace grist
