#include "grist/ops/optimizer.h"

#include <cstring>
#include <limits>

#include "grist/core/error.h"
#include "ops/optimizer_reference.h"
#include "support/compare.h"

namespace grist {
namespace {

using namespace test;
using Floats = std::vector<float>;
using Doubles = std::vector<double>;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::int64_t count(const Floats& x) {
  return static_cast<std::int64_t>(x.size());
}
bool same_bits(const Floats& x, const Floats& y) {
  return x.size() == y.size() && std::memcmp(x.data(), y.data(), x.size() * sizeof(float)) == 0;
}

struct State {
  Floats p, m, v;
};

ops::AdamW update(State& s, const Floats& grad, const Floats& control, std::int64_t step) {
  const Shape n{count(s.p)};
  return {.param = view(s.p, n),
          .m = view(s.m, n),
          .v = view(s.v, n),
          .grad = view(grad, n),
          .control = view(control, {2}),
          .lr = 3e-3F,
          .beta1 = 0.9F,
          .beta2 = 0.95F,
          .eps = 1e-8F,
          .weight_decay = 0.1F,
          .step = step};
}

TEST(AdamW, FollowsTheFormulaForTenSteps) {
  const CpuContext ctx;
  for (const std::int64_t n : {1, 15, 16, 1000, 40000}) {
    State s{normals(n, "adamw.p"), Floats(static_cast<std::size_t>(n)),
            Floats(static_cast<std::size_t>(n))};
    AdamReference want{
        .p = Doubles(s.p.begin(), s.p.end()), .m = Doubles(s.p.size()), .v = Doubles(s.p.size())};
    for (int step = 1; step <= 10; ++step) {
      const Floats grad = normals(n, "adamw.g" + std::to_string(step), step == 4 ? 1e-6F : 2.0F);
      const Floats control = {0.25F, 1.0F};

      ops::adamw(*ctx, update(s, grad, control, step));

      want.update(grad, 0.25, step);
    }
    EXPECT_TRUE(close(s.p, want.p, {1e-6, 2e-6})) << n;
    EXPECT_TRUE(close(s.m, want.m, {2e-6, 1e-6})) << n;
    EXPECT_TRUE(close(s.v, want.v, {4e-6, 1e-8})) << n;
  }
}

TEST(AdamW, SkippedUpdateLeavesEveryBit) {
  const CpuContext ctx;
  State s{normals(1000, "adamw.p"), normals(1000, "adamw.m"), normals(1000, "adamw.v")};
  s.p[3] = kNan;
  const State before = s;

  ops::adamw(*ctx, update(s, Floats(1000, kNan), {kNan, 0.0F}, 5));

  EXPECT_TRUE(same_bits(s.p, before.p));
  EXPECT_TRUE(same_bits(s.m, before.m));
  EXPECT_TRUE(same_bits(s.v, before.v));
}

TEST(AdamW, BitsDoNotDependOnThreadsOrSlices) {
  const std::int64_t n = 70001;
  const Floats grad = normals(n, "adamw.g");
  const Floats control = {1.0F, 1.0F};
  const State start{normals(n, "adamw.p"), normals(n, "adamw.m"),
                    Floats(static_cast<std::size_t>(n), 0.5F)};
  State whole = start;
  State parts = start;
  const CpuContext one(1);
  const CpuContext many(4);

  ops::adamw(*one, update(whole, grad, control, 3));
  ops::AdamW a = update(parts, grad, control, 3);
  const ops::AdamW all = a;
  for (const auto& [begin, end] : {std::pair<std::int64_t, std::int64_t>{0, 12345}, {12345, n}}) {
    a.param = rows(all.param, begin, end);
    a.m = rows(all.m, begin, end);
    a.v = rows(all.v, begin, end);
    a.grad = rows(all.grad, begin, end);
    ops::adamw(*many, a);
  }

  EXPECT_TRUE(same_bits(whole.p, parts.p));
  EXPECT_TRUE(same_bits(whole.m, parts.m));
  EXPECT_TRUE(same_bits(whole.v, parts.v));
}

TEST(AdamW, RefusesWrongOperands) {
  const CpuContext ctx;
  State s{Floats(4), Floats(4), Floats(4)};
  const Floats control(2);
  EXPECT_THROW(ops::adamw(*ctx, update(s, Floats(4), control, 0)), Error);
  const Floats grad(4);
  ops::AdamW a = update(s, grad, control, 1);
  a.m.shape = {3};
  EXPECT_THROW(ops::adamw(*ctx, a), Error);
}

// Of x, cut as gradients are.
Doubles squared(const Context& ctx, const Floats& x) {
  const std::vector<std::int64_t> chunks = test::norm_chunks(x.data(), count(x));
  Doubles partials(chunks.size() / 2, -1.0);
  const auto n = static_cast<std::int64_t>(partials.size());
  ops::squared_sums(ctx, {.partials = view(partials, {n}), .chunks = view(chunks, {n, 2})});
  return partials;
}

TEST(SquaredSums, AreOnePerChunk) {
  const CpuContext ctx;
  const Floats x = normals(3 * ops::kNormChunk + 77, "squared.x");
  Doubles want(4);
  for (std::size_t i = 0; i < x.size(); ++i)
    want[i / ops::kNormChunk] += static_cast<double>(x[i]) * static_cast<double>(x[i]);

  const Doubles got = squared(*ctx, x);

  EXPECT_TRUE(close(got.data(), want.data(), 4, {1e-13, 0}));
  EXPECT_TRUE(squared(*ctx, {}).empty());
}

TEST(SquaredSums, DependOnTheChunkAlone) {
  const CpuContext one(1);
  const CpuContext many(4);
  const Floats x = normals(3 * ops::kNormChunk + 77, "squared.x");
  const Doubles whole = squared(*one, x);

  EXPECT_EQ(squared(*many, x), whole);
  const Floats tail(x.begin() + 2 * ops::kNormChunk, x.end());  // cut on a chunk edge, as ZeRO does
  EXPECT_EQ(squared(*many, tail), Doubles(whole.begin() + 2, whole.end()));
}

TEST(SquaredSums, AreThoseOfTheirChunksWhereverTheyLie) {
  const Floats x = normals(ops::kNormChunk + 77, "squared.x");
  const auto address = [&](std::size_t i) { return reinterpret_cast<std::int64_t>(&x[i]); };
  const std::vector<std::int64_t> chunks = {address(0), ops::kNormChunk, address(3), 0, address(5),
                                            1,          address(100),    999};
  Doubles want = squared(*CpuContext(), x);
  want.resize(1);
  for (const auto& [begin, n] : {std::pair{3, 0}, {5, 1}, {100, 999}}) {
    const Doubles one = squared(*CpuContext(), Floats(x.begin() + begin, x.begin() + begin + n));
    want.push_back(one.empty() ? 0.0 : one[0]);
  }
  for (const int threads : {1, 3}) {
    const CpuContext ctx(threads);
    Doubles got(4, -1.0);
    ops::squared_sums(*ctx, {.partials = view(got, {4}), .chunks = view(chunks, {4, 2})});
    EXPECT_EQ(got, want);
  }
  Doubles none;
  EXPECT_THROW(ops::squared_sums(*CpuContext(),
                                 {.partials = view(none, {0}), .chunks = view(chunks, {4, 2})}),
               Error);
}

double tree(const Doubles& x) {
  const CpuContext ctx;
  Doubles sum(1, -1.0);
  ops::tree_sum(
      *ctx, {.sum = view(sum, {1}), .partials = view(x, {static_cast<std::int64_t>(x.size())})});
  return sum[0];
}

TEST(TreeSum, AddsNeighboursFirst) {
  EXPECT_EQ(tree({}), 0.0);
  EXPECT_EQ(tree({5.0}), 5.0);
  const double big = 1e16;                                // big + 1 == big, so the order shows
  EXPECT_EQ(tree({big, -big, 1.0}), 1.0);                 // (0 1) 2
  EXPECT_EQ(tree({1.0, big, -big, 1.0}), 0.0);            // (0 1) (2 3)
  EXPECT_EQ(tree({big, 1.0, 1.0, 1.0, -big}), 2.0);       // ((0 1) (2 3)) 4
  EXPECT_EQ(tree({1.0, 1.0, big, 0.0, -big, 0.0}), 2.0);  // ((0 1) (2 3)) (4 5)
}

TEST(TreeSum, IsAccurate) {
  Doubles x;
  double want = 0;
  for (const float v : normals(1000, "tree.x")) {
    x.push_back(static_cast<double>(v));
    want += static_cast<double>(v);
  }
  EXPECT_NEAR(tree(x), want, 1e-11);
}

TEST(Sum, AddsAVectorInDouble) {
  for (const std::int64_t n :
       {std::int64_t{0}, std::int64_t{1}, std::int64_t{100}, 2 * ops::kNormChunk + 5}) {
    const Floats x = normals(n, "sum.x");
    double want = 0;
    for (const float v : x) want += static_cast<double>(v);
    Doubles got(2, -1.0);
    int i = 0;
    for (const int threads : {1, 3}) {
      const CpuContext ctx(threads);
      TensorView out{&got[static_cast<std::size_t>(i++)], DType::f64, {1}};
      ops::sum(*ctx, {.sum = out, .x = view(x, {n})});
    }
    EXPECT_NEAR(got[0], want, 1e-10);
    EXPECT_EQ(got[0], got[1]);
  }
}

Floats init(const TensorPart& part, const Shape& shape, const char* name = "layers.0.w") {
  const CpuContext ctx(2);
  Floats x(static_cast<std::size_t>(part.size()));
  ops::normal_init(*ctx, {.x = view(x, {part.size()}),
                          .part = part,
                          .shape = shape,
                          .std = 0.02F,
                          .seed = 42,
                          .name = name});
  return x;
}
Floats init(std::int64_t n, std::int64_t offset, const char* name = "layers.0.w") {
  return init({.begin = offset, .end = offset + n}, {offset + n}, name);
}

TEST(NormalInit, ASliceOfATensorIsASliceOfItsValues) {
  const Floats whole = init(40000, 0);
  const Floats slice = init(20001, 12345);
  EXPECT_TRUE(std::equal(slice.begin(), slice.end(), whole.begin() + 12345));
  EXPECT_NE(init(10, 0, "layers.1.w"), init(10, 0));
}

TEST(NormalInit, ACutAlongColumnsHasTheColumnsOfTheWhole) {
  const Shape shape = {301, 130};  // more elements than a task of the pool, with rows that straddle
  const Floats whole = init(whole_part(shape), shape);
  const TensorPart columns = block_part(shape, 0, 301, 40, 123);
  for (const TensorPart& part : {columns, block_part(shape, 7, 200, 129, 130),
                                 columns.sub(17, 20001), whole_part(shape).sub(131, 260)}) {
    const Floats got = init(part, shape);
    for (std::int64_t i = 0; i < part.size(); ++i)
      ASSERT_EQ(got[static_cast<std::size_t>(i)],
                whole[static_cast<std::size_t>(place_in_tensor(part, 130, i))])
          << i;
  }
}

TEST(NormalInit, RefusesAPartThatDoesNotFit) {
  const CpuContext ctx;
  Floats x(10);
  const auto fails = [&](const TensorPart& part, const Shape& shape) {
    EXPECT_THROW(
        ops::normal_init(*ctx, {.x = view(x, {10}), .part = part, .shape = shape, .name = "w"}),
        Error);
  };
  fails({.begin = 0, .end = 9}, {10});
  fails({.begin = 0, .end = 10}, {9});
  fails({.begin = 0, .end = 10, .first_column = 1, .columns = 5}, {2, 5});
}

TEST(NormalInit, HasTheMomentsOfANormal) {
  const Floats x = init(200000, 0);
  double mean = 0;
  double square = 0;
  double fourth = 0;
  for (const float v : x) {
    const double z = static_cast<double>(v) / 0.02;
    mean += z / 200000;
    square += z * z / 200000;
    fourth += z * z * z * z / 200000;
  }
  EXPECT_NEAR(mean, 0.0, 0.01);
  EXPECT_NEAR(square, 1.0, 0.015);
  EXPECT_NEAR(fourth, 3.0, 0.15);
}

TEST(FillAndAdd, CoverEveryElement) {
  const CpuContext ctx;
  for (const std::int64_t n : {0, 1, 17, 16 * 1024, 50001}) {
    Floats y(static_cast<std::size_t>(n), kNan);
    const Floats x = normals(n, "add.x");

    ops::fill(*ctx, {.x = view(y, {n}), .value = 1.5F});
    ops::add(*ctx, {.y = view(y, {n}), .x = view(x, {n})});

    Floats want;
    for (const float v : x) want.push_back(1.5F + v);
    EXPECT_EQ(y, want);
  }
}

}  // namespace
}  // namespace grist
