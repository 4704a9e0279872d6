#include "grist/ops/embedding.h"

#include <cmath>

#include "cuda/elementwise.h"

namespace grist::test {
namespace {

using Floats = std::vector<float>;
using Ids = std::vector<std::int32_t>;

Ids some_ids(std::int64_t n, std::int64_t V) {
  const Random random(11, "embedding.ids");
  Ids ids;
  for (std::int64_t i = 0; i < n; ++i)
    ids.push_back(static_cast<std::int32_t>(
        random.below(static_cast<std::uint64_t>(i), static_cast<std::uint64_t>(V))));
  return ids;
}

TEST(CudaEmbedding, ForwardCopiesRows) {
  for_each_schedule([] {
    for (const DType dtype : kActivationTypes) {
      const CudaContext ctx;
      for (const std::int64_t D : {1, 3, 64, 200}) {
        const Floats table = activations(9 * D, "embedding.table", dtype);
        const Ids ids = some_ids(131, 9);
        Floats want;
        for (const std::int32_t id : ids)
          want.insert(want.end(), table.begin() + id * D, table.begin() + (id + 1) * D);
        const OnDevice y(*ctx, dtype, {131, D});
        ops::embedding_forward(
            *ctx,
            {.y = y, .table = OnDevice(*ctx, table, {9, D}), .ids = OnDevice(*ctx, ids, {131})});
        EXPECT_EQ(y.floats(), want);
      }
    }
  });
}

// Few ids for many tokens, many for few; one tile of the sort, several, not all full.
TEST(CudaEmbedding, BackwardAddsInAscendingTokenOrder) {
  for_each_schedule([] {
    struct Case {
      std::int64_t N, V, D;
    };
    for (const Case c : {Case{1, 7, 8},
                         {500, 7, 65},
                         {512, 1, 8},
                         {513, 5000, 8},
                         {2500, 40, 16},
                         {1600, 90000, 1},
                         {40, 3, 600}}) {
      for (const DType dtype : kActivationTypes) {
        const CudaContext ctx;
        const Floats dy = activations(c.N * c.D, "embedding.dy", dtype);
        const Ids ids = some_ids(c.N, c.V);
        Floats want = normals((c.V + 1) * c.D, "embedding.dtable");
        const OnDevice dtable(*ctx, want, {c.V + 1, c.D});
        for (std::int64_t n = 0; n < c.N; ++n)  // the contract: this order, in fp32, to the bit
          for (std::int64_t d = 0; d < c.D; ++d)
            want[static_cast<std::size_t>(ids[static_cast<std::size_t>(n)] * c.D + d)] +=
                dy[static_cast<std::size_t>(n * c.D + d)];
        ops::embedding_backward(*ctx, {.dtable = dtable,
                                       .dy = OnDevice(*ctx, dy, {c.N, c.D}, dtype),
                                       .ids = OnDevice(*ctx, ids, {c.N})});
        EXPECT_EQ(dtable.floats(), want) << c.N << " tokens, " << c.V << " ids, width " << c.D;
      }
    }
  });
}

TEST(CudaEmbedding, IdsOutsideTheTableGiveNanAndNoGradient) {
  const CudaContext ctx;
  const OnDevice table(*ctx, Floats(12, 1.0F), {3, 4}), y(*ctx, DType::f32, {4, 4});
  const OnDevice ids(*ctx, Ids{0, -1, 3, 2}, {4});
  ops::embedding_forward(*ctx, {.y = y, .table = table, .ids = ids});
  const Floats got = y.floats();
  for (std::size_t i = 0; i < 16; ++i) EXPECT_EQ(std::isnan(got[i]), i / 4 == 1 || i / 4 == 2) << i;
  ops::embedding_backward(*ctx, {.dtable = table, .dy = y, .ids = ids});
  EXPECT_EQ(table.floats(), (Floats{2, 2, 2, 2, 1, 1, 1, 1, 2, 2, 2, 2}));
}

}  // namespace
}  // namespace grist::test
