#include "grist/ops/optimizer.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "cuda/fixture.h"
#include "ops/optimizer_reference.h"

namespace grist::test {
namespace {

using Doubles = std::vector<double>;
using Floats = std::vector<float>;

template <class T> bool same_bits(const std::vector<T>& x, const std::vector<T>& y) {
  return x.size() == y.size() && std::memcmp(x.data(), y.data(), x.size() * sizeof(T)) == 0;
}

ops::AdamW update(TensorView p, TensorView m, TensorView v, ConstTensorView grad,
                  ConstTensorView control, std::int64_t step) {
  return {.param = p,
          .m = m,
          .v = v,
          .grad = grad,
          .control = control,
          .lr = 3e-3F,
          .beta1 = 0.9F,
          .beta2 = 0.95F,
          .eps = 1e-8F,
          .weight_decay = 0.1F,
          .step = step};
}

TEST(CudaAdamW, HasTheCpusBitsAndFollowsTheFormula) {
  for_each_schedule([] {
    for (const std::int64_t n : {1, 15, 16, 1000, 20001}) {
      const CudaContext ctx;
      const CpuContext cpu;
      Floats p = normals(n, "adamw.p"), m(p.size()), v(p.size());
      AdamReference want{
          .p = Doubles(p.begin(), p.end()), .m = Doubles(p.size()), .v = Doubles(p.size())};
      const OnDevice on_p(*ctx, p, {n}), on_m(*ctx, m, {n}), on_v(*ctx, v, {n});
      const Floats control = {0.25F, 1.0F};
      for (int step = 1; step <= 3; ++step) {
        const Floats grad = normals(n, "adamw.g" + std::to_string(step), step == 2 ? 1e-6F : 2.0F);
        ops::adamw(*ctx, update(on_p, on_m, on_v, OnDevice(*ctx, grad, {n}),
                                OnDevice(*ctx, control, {2}), step));
        ops::adamw(*cpu, update(view(p, {n}), view(m, {n}), view(v, {n}), view(grad, {n}),
                                view(control, {2}), step));
        want.update(grad, 0.25, step);
      }
      EXPECT_TRUE(same_bits(on_p.floats(), p)) << n;
      EXPECT_TRUE(same_bits(on_m.floats(), m)) << n;
      EXPECT_TRUE(same_bits(on_v.floats(), v)) << n;
      EXPECT_TRUE(close(on_p.floats(), want.p, {1e-6, 2e-6})) << n;
    }
  });
}

TEST(CudaAdamW, SkippedUpdateLeavesEveryBit) {
  const CudaContext ctx;
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  Floats p = normals(1003, "adamw.p");
  p[3] = kNan;
  const OnDevice on_p(*ctx, p, {1003}), m(*ctx, p, {1003}), v(*ctx, p, {1003});
  ops::adamw(*ctx, update(on_p, m, v, OnDevice(*ctx, Floats(1003, kNan), {1003}),
                          OnDevice(*ctx, Floats{kNan, 0.0F}, {2}), 5));
  for (const OnDevice* x : {&on_p, &m, &v}) EXPECT_TRUE(same_bits(x->floats(), p));
}

// Parts at any address: those of ZeRO are not aligned.
TEST(CudaAdamW, BitsDoNotDependOnSlices) {
  const CudaContext ctx;
  const std::int64_t n = 7001;
  const Floats start = normals(n, "adamw.p"), half(start.size(), 0.5F);
  const OnDevice grad(*ctx, normals(n, "adamw.g"), {n}), control(*ctx, Floats{1, 1}, {2});
  std::vector<Floats> results;
  for (const std::int64_t cut : {std::int64_t{0}, std::int64_t{4}, std::int64_t{1235}}) {
    const OnDevice p(*ctx, start, {n}), m(*ctx, start, {n}), v(*ctx, half, {n});
    for (const auto& [b, e] : {std::pair{std::int64_t{0}, cut}, {cut, n}})
      ops::adamw(*ctx, update(rows(p.view(), b, e), rows(m.view(), b, e), rows(v.view(), b, e),
                              rows(grad.view(), b, e), control, 3));
    results.push_back(p.floats());
    EXPECT_TRUE(same_bits(results.back(), results.front())) << cut;
  }
}

TEST(CudaSums, OfSquaresHaveTheCpusBits) {
  for_each_schedule([] {
    for (const std::int64_t n : {std::int64_t{1}, std::int64_t{15}, std::int64_t{257},
                                 std::int64_t{1000}, ops::kNormChunk, ops::kNormChunk + 77}) {
      const CudaContext ctx;
      const CpuContext cpu;
      const Floats x = normals(n, "squared.x");
      const OnDevice on_x(*ctx, x, {n});
      const auto there = norm_chunks(on_x.view().as<float>(), n), here = norm_chunks(x.data(), n);
      const auto C = static_cast<std::int64_t>(here.size() / 2);
      const OnDevice got(*ctx, DType::f64, {C});
      Doubles want(static_cast<std::size_t>(C));
      ops::squared_sums(*ctx, {.partials = got, .chunks = OnDevice(*ctx, there, {C, 2})});
      ops::squared_sums(*cpu, {.partials = view(want, {C}), .chunks = view(here, {C, 2})});
      EXPECT_EQ(got.host<double>(), want) << n;
    }
  });
}

TEST(CudaSums, OfListedChunksHaveTheCpusBits) {
  for_each_schedule([] {
    const CudaContext ctx;
    const CpuContext cpu;
    const Floats x = normals(9000, "squared.x");
    const OnDevice on_x(*ctx, x, {9000});
    const std::vector<std::pair<std::int64_t, std::int64_t>> pieces = {
        {0, 4096}, {1, 0}, {3, 1}, {5, 17}, {4096, 300}, {4096, 4904}, {7, 256}};
    std::vector<std::int64_t> on_device, on_host;
    for (const auto& [begin, n] : pieces) {
      for (const std::int64_t v :
           {reinterpret_cast<std::int64_t>(on_x.view().as<float>() + begin), n})
        on_device.push_back(v);
      for (const std::int64_t v : {reinterpret_cast<std::int64_t>(x.data() + begin), n})
        on_host.push_back(v);
    }
    const auto C = static_cast<std::int64_t>(pieces.size());
    const OnDevice got(*ctx, DType::f64, {C});
    Doubles want(pieces.size());
    ops::squared_sums(*ctx, {.partials = got, .chunks = OnDevice(*ctx, on_device, {C, 2})});
    ops::squared_sums(
        *cpu, {.partials = view(want, {C}), .chunks = view(std::as_const(on_host), {C, 2})});
    EXPECT_EQ(got.host<double>(), want);
  });
}

TEST(CudaSums, TreeAndVectorHaveTheCpusBits) {
  for_each_schedule([] {
    for (const std::int64_t n : {0, 1, 2, 3, 5, 7, 64, 1000, 1023, 1024, 1025, 3000, 5001}) {
      const CudaContext ctx;
      const CpuContext cpu;
      const Floats x = normals(n, "tree.x", 1e3F);
      const Doubles wide(x.begin(), x.end());
      const OnDevice tree(*ctx, DType::f64, {1}), sum(*ctx, DType::f64, {1});
      Doubles want_tree(1), want_sum(1);
      ops::tree_sum(*ctx, {.sum = tree, .partials = OnDevice(*ctx, wide, {n})});
      ops::tree_sum(*cpu, {.sum = view(want_tree, {1}), .partials = view(wide, {n})});
      EXPECT_EQ(tree.host<double>(), want_tree) << n;
      ops::sum(*ctx, {.sum = sum, .x = OnDevice(*ctx, x, {n})});
      ops::sum(*cpu, {.sum = view(want_sum, {1}), .x = view(x, {n})});
      EXPECT_EQ(sum.host<double>(), want_sum) << n;
    }
  });
}

TEST(CudaTreeAdd, HasTheCpusBitsInPlaceToo) {
  for_each_schedule([] {
    for (const std::int64_t P : {1, 2, 3, 4, 5, 7, 8, 13, 33}) {
      for (const std::int64_t n : {1, 64, 301}) {
        const CudaContext ctx;
        const CpuContext cpu;
        const Floats parts = normals(P * n, "parts");
        Floats want(static_cast<std::size_t>(n));
        ops::tree_add(*cpu, {.sum = view(want, {n}), .parts = view(parts, {P, n})});
        const OnDevice on_parts(*ctx, parts, {P, n}), sum(*ctx, DType::f32, {n});
        ops::tree_add(*ctx, {.sum = sum, .parts = on_parts});
        EXPECT_EQ(sum.floats(), want) << P << " parts of " << n;
        const TensorView last = reshape(rows(on_parts.view(), P - 1, P), {n});
        ops::tree_add(*ctx, {.sum = last, .parts = on_parts});
        EXPECT_EQ(to_host<float>(*ctx, last), want) << P << " parts of " << n;
      }
    }
  });
}

TEST(CudaNormalInit, HasTheCpusBits) {
  for (const std::int64_t n : {0, 1, 70000}) {
    const CudaContext ctx;
    const CpuContext cpu;
    const OnDevice x(*ctx, DType::f32, {n});
    Floats want(static_cast<std::size_t>(n));
    ops::NormalInit init{.x = x,
                         .part = {.begin = 12345, .end = 12345 + n},
                         .shape = {12345 + n},
                         .std = 0.02F,
                         .seed = 42,
                         .name = "layers.0.w"};
    ops::normal_init(*ctx, init);
    init.x = view(want, {n});
    ops::normal_init(*cpu, init);
    EXPECT_EQ(x.floats(), want);
  }
}

TEST(CudaFillAndAdd, CoverEveryElement) {
  for_each_schedule([] {
    const CudaContext ctx;
    for (const std::int64_t n : {0, 1, 255, 256, 2049, 10'000}) {
      const OnDevice y(*ctx, DType::f32, {n});
      const Floats x = normals(n, "add.x");
      ops::fill(*ctx, {.x = y, .value = 1.5F});
      ops::add(*ctx, {.y = y, .x = OnDevice(*ctx, x, {n})});
      Floats want;
      for (const float v : x) want.push_back(1.5F + v);
      EXPECT_EQ(y.floats(), want);
    }
  });
}

}  // namespace
}  // namespace grist::test
