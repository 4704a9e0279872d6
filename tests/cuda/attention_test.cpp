#include "grist/ops/attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "fixture.h"
#include "ops/attention_reference.h"
#include "support/gradient.h"

namespace grist {
namespace {

using test::close;
using test::close_to_sums;
using test::CudaContext;
using test::for_each_schedule;
using test::Lengths;
using test::normals;
using test::OnDevice;
using test::starts;
using test::tolerance;
using test::widen;
using Case = test::AttentionCase;
using Floats = std::vector<float>;

// Which kernels do it.
struct Kernel {
  DType dtype = DType::f32;
  int capability = 80;  // as on a device of this compute capability
};
constexpr Kernel kPortable{DType::bf16, 80}, kHopper{DType::bf16, 90};
constexpr Kernel kKernels[] = {{}, kPortable, kHopper};  // for heads of 64

struct Inputs {
  explicit Inputs(const Case& c_in, Kernel kernel_in = {}, float size = 1.0F)
      : c(c_in), kernel(kernel_in), dtype(kernel_in.dtype), cu_q(starts(c.q)), cu_k(starts(c.k)) {
    q = data("q", cu_q.back() * c.H, size);
    k = data("k", cu_k.back() * c.Hkv, size);
    v = data("v", cu_k.back() * c.Hkv);
    do_ = data("do", cu_q.back() * c.H);
    scale = 1.0F / std::sqrt(static_cast<float>(c.Dh));
  }
  Floats data(const char* name, std::int64_t heads, float size = 1.0F) const {
    const Floats x = normals(heads * c.Dh, name, size);
    return dtype == DType::bf16 ? test::rounded_to_bf16(x) : x;
  }
  test::AttentionJudge judge() const {
    test::AttentionJudge j(c, widen(q), widen(k), widen(v));
    j.scale = static_cast<double>(scale);
    j.backward(widen(do_));
    return j;
  }

  Case c;
  Kernel kernel;
  DType dtype;
  Lengths cu_q, cu_k;
  Floats q, k, v, do_;
  float scale;
};

struct Results {
  Floats o, lse, dq, dk, dv;
};

// Forward, and backward from its results.
Results run(const Inputs& in) {
  const test::AsDevice device(in.kernel.capability);
  const CudaContext ctx;
  const Case& c = in.c;
  const Shape queries{in.cu_q.back(), c.H, c.Dh}, keys{in.cu_k.back(), c.Hkv, c.Dh};
  const auto input = [&](const Floats& x, const Shape& shape) {
    return OnDevice(*ctx, x, shape, in.dtype);
  };
  const OnDevice q = input(in.q, queries), k = input(in.k, keys), v = input(in.v, keys);
  const OnDevice do_ = input(in.do_, queries);
  const OnDevice cu_q(*ctx, in.cu_q, {static_cast<std::int64_t>(in.cu_q.size())});
  const OnDevice cu_k(*ctx, in.cu_k, {static_cast<std::int64_t>(in.cu_k.size())});
  const OnDevice o(*ctx, in.dtype, queries), lse(*ctx, DType::f32, {queries[0], c.H});
  const OnDevice dq(*ctx, in.dtype, queries), dk(*ctx, in.dtype, keys), dv(*ctx, in.dtype, keys);
  ops::attention_forward(*ctx, {.o = o,
                                .lse = lse,
                                .q = q,
                                .k = k,
                                .v = v,
                                .cu_seqlens_q = cu_q,
                                .cu_seqlens_k = cu_k,
                                .scale = in.scale});
  ops::attention_backward(*ctx, {.dq = dq,
                                 .dk = dk,
                                 .dv = dv,
                                 .do_ = do_,
                                 .o = o,
                                 .lse = lse,
                                 .q = q,
                                 .k = k,
                                 .v = v,
                                 .cu_seqlens_q = cu_q,
                                 .cu_seqlens_k = cu_k,
                                 .scale = in.scale});
  return {o.floats(), lse.floats(), dq.floats(), dk.floats(), dv.floats()};
}

// In bf16, probabilities or their gradients are rounded, and what is summed from them is.
void expect_right(const Inputs& in) {
  const test::AttentionJudge judge = in.judge();
  for_each_schedule([&] {
    const Results got = run(in);
    EXPECT_TRUE(close(got.lse, judge.lse, {2e-6, 4e-6}));
    if (in.dtype == DType::bf16) {
      EXPECT_TRUE(close_to_sums(got.o, judge.o, judge.o_size, 2));
      EXPECT_TRUE(close_to_sums(got.dq, judge.dq, judge.dq_size, 2));
      EXPECT_TRUE(close_to_sums(got.dk, judge.dk, judge.dk_size, 2));
      EXPECT_TRUE(close_to_sums(got.dv, judge.dv, judge.dv_size, 2));
      return;
    }
    std::int64_t longest = 1;
    for (const std::int32_t n : in.c.k) longest = std::max<std::int64_t>(longest, n);
    const std::int64_t sums = longest * in.c.H / in.c.Hkv;
    EXPECT_TRUE(close(got.o, judge.o, {1e-5, 2e-6}));
    EXPECT_TRUE(close(got.dq, judge.dq, tolerance(in.c.Dh)));
    EXPECT_TRUE(close(got.dk, judge.dk, tolerance(sums)));
    EXPECT_TRUE(close(got.dv, judge.dv, tolerance(sums)));
  });
}

class CudaAttention : public ::testing::TestWithParam<Case> {};

TEST_P(CudaAttention, MatchesNaiveSoftmaxInFp32) {
  expect_right(Inputs(GetParam()));
}
TEST_P(CudaAttention, MatchesNaiveSoftmaxInBf16) {
  expect_right(Inputs(GetParam(), kPortable));
}
class HopperAttention : public ::testing::TestWithParam<Case> {};
TEST_P(HopperAttention, MatchesNaiveSoftmax) {
  expect_right(Inputs(GetParam(), kHopper));
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, CudaAttention,
    ::testing::Values(Case{{}, {}, 1, 1, 16},    // no documents
                      Case{{0}, {0}, 2, 1, 32},  // an empty one
                      Case{{1}, {1}, 1, 1, 1},   // one of everything
                      Case{{1}, {1}, 1, 1, 16},
                      Case{{31, 32, 33}, {31, 32, 33}, 2, 2, 16},  // edges of small tiles
                      Case{{63, 64, 65}, {63, 64, 65}, 1, 1, 32},  // and of larger ones
                      Case{{127, 128, 129}, {127, 128, 129}, 1, 1, 16},
                      Case{{70, 1, 0, 37, 1}, {70, 1, 0, 37, 1}, 4, 2, 24},
                      Case{{33, 0, 100}, {33, 0, 100}, 4, 1, 64},  // GQA 4
                      Case{{97}, {97}, 2, 1, 96}, Case{{80}, {80}, 2, 1, 128},
                      Case{{40}, {40}, 1, 1, 192}, Case{{35}, {40}, 1, 1, 200},
                      Case{{20}, {40}, 1, 1, 256},
                      Case{{300}, {300}, 1, 1, 16},             // several rounds of every pipeline
                      Case{{1, 1, 1}, {70, 1, 200}, 4, 2, 32},  // decoding
                      Case{{7, 40}, {100, 40}, 2, 1, 64},       // a chunk after a cache
                      Case{{3, 0}, {0, 5}, 2, 2, 32},           // no keys; no queries
                      Case{{70, 9}, {10, 4}, 2, 1, 16}));       // first queries see none

INSTANTIATE_TEST_SUITE_P(
    Shapes, HopperAttention,
    ::testing::Values(Case{{}, {}, 1, 1, 64}, Case{{0}, {0}, 2, 1, 128}, Case{{1}, {1}, 1, 1, 64},
                      Case{{63, 64, 65}, {63, 64, 65}, 1, 1, 64},        // of a warpgroup
                      Case{{127, 128, 129}, {127, 128, 129}, 1, 1, 64},  // of a block
                      Case{{129}, {129}, 1, 1, 128},
                      Case{{70, 1, 0, 37, 1}, {70, 1, 0, 37, 1}, 4, 2, 64},
                      Case{{33, 0, 100}, {33, 0, 100}, 4, 1, 128},  // GQA 4
                      Case{{400}, {400}, 1, 1, 64},                 // the rings go round
                      Case{{1, 1, 1}, {70, 1, 200}, 4, 2, 128},     // decoding
                      Case{{7, 40}, {100, 140}, 2, 1, 64},          // a chunk after a cache
                      Case{{3, 0}, {0, 5}, 2, 2, 64},               // no keys; no queries
                      Case{{3}, {0}, 2, 2, 128},
                      Case{{200, 9}, {10, 4}, 2, 1, 64}));  // first queries see none

// A cu_seqlens of fixed length: few documents, then empty ones.
TEST(CudaAttentionDocuments, MayBeManyAndMostlyEmpty) {
  Lengths lengths(700, 0);
  lengths[0] = 5;
  lengths[255] = 40;
  lengths[256] = 33;
  expect_right(Inputs({lengths, lengths, 1, 1, 16}));
  expect_right(Inputs({lengths, lengths, 1, 1, 16}, kPortable));
  expect_right(Inputs({lengths, lengths, 1, 1, 64}, kHopper));
}

// A document gives the same bits alone as among others, and a query the same bits when it is
// decoded alone, against the keys before it.
TEST(CudaAttentionBits, DoNotDependOnNeighbours) {
  const std::int64_t H = 2, Dh = 64, width = H * Dh;
  const auto part = [&](const Floats& x, std::int64_t begin, std::int64_t end) {
    return Floats(x.begin() + begin * width, x.begin() + end * width);
  };
  for (const Kernel kernel : kKernels) {
    const Inputs all({{50, 131}, {50, 131}, H, H, Dh}, kernel);
    const Results whole = run(all);
    EXPECT_EQ(run(all).dk, whole.dk);

    Inputs alone({{131}, {131}, H, H, Dh}, kernel);
    alone.q = part(all.q, 50, 181);
    alone.k = part(all.k, 50, 181);
    alone.v = part(all.v, 50, 181);
    alone.do_ = part(all.do_, 50, 181);
    const Results single = run(alone);
    EXPECT_EQ(single.o, part(whole.o, 50, 181));
    EXPECT_EQ(single.dq, part(whole.dq, 50, 181));
    EXPECT_EQ(single.dk, part(whole.dk, 50, 181));
    EXPECT_EQ(single.dv, part(whole.dv, 50, 181));

    for (const std::int32_t i : {0, 31, 63, 64, 127, 130}) {
      Inputs decode({{1}, {i + 1}, H, H, Dh}, kernel);
      decode.q = part(all.q, 50 + i, 51 + i);
      decode.k = part(all.k, 50, 51 + i);
      decode.v = part(all.v, 50, 51 + i);
      EXPECT_EQ(run(decode).o, part(whole.o, 50 + i, 51 + i)) << "query " << i;
    }
  }
}

TEST(CudaAttentionExtremes, LargeScoresStayFinite) {
  constexpr std::size_t kHead = 64;
  for (const Kernel kernel : kKernels) {
    const Inputs in({{80}, {80}, 1, 1, kHead}, kernel, 100.0F);  // scores of the order of 1e4
    const Results got = run(in);
    for (const Floats* x : {&got.o, &got.lse, &got.dq, &got.dk, &got.dv})
      for (const float value : *x) ASSERT_TRUE(std::isfinite(value));
    // Query 0 sees key 0 alone.
    for (std::size_t d = 0; d < kHead; ++d) EXPECT_FLOAT_EQ(got.o[d], in.v[d]);
  }
}

TEST(CudaAttentionExtremes, NanInOneDocumentStaysThere) {
  constexpr std::size_t kFirst = std::size_t{40} * 64;  // elements of the first document
  const Case c{{40, 40}, {40, 40}, 1, 1, 64};
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  for (const Kernel kernel : kKernels) {
    Inputs in(c, kernel);
    in.q[0] = kNan;
    Results got = run(in);
    EXPECT_TRUE(std::isnan(got.o[0]));
    EXPECT_TRUE(std::isnan(got.dk[0]));
    for (std::size_t i = kFirst; i < got.o.size(); ++i) {
      ASSERT_FALSE(std::isnan(got.o[i]));
      ASSERT_FALSE(std::isnan(got.dk[i]));
    }
    in = Inputs(c, kernel);
    for (std::size_t i = kFirst; i < in.v.size(); ++i)
      in.q[i] = in.v[i] = in.k[i] = in.do_[i] = kNan;
    got = run(in);
    for (std::size_t i = 0; i < kFirst; ++i) {
      ASSERT_FALSE(std::isnan(got.o[i]));
      ASSERT_FALSE(std::isnan(got.dq[i]));
      ASSERT_FALSE(std::isnan(got.dk[i]));
      ASSERT_FALSE(std::isnan(got.dv[i]));
    }
  }
}

}  // namespace
}  // namespace grist
