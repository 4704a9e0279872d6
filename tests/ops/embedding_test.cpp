#include "grist/ops/embedding.h"

#include "grist/core/error.h"
#include "support/compare.h"

namespace grist {
namespace {

using namespace test;
using Ids = std::vector<std::int32_t>;

std::size_t at(std::int64_t i) {
  return static_cast<std::size_t>(i);
}

Ids some_ids(std::int64_t n, std::int64_t V) {
  const Random random(11, "embedding.ids");
  Ids ids;
  for (std::int64_t i = 0; i < n; ++i)
    ids.push_back(static_cast<std::int32_t>(random.below(at(i), at(V))));
  return ids;
}

TEST(Embedding, ForwardCopiesRows) {
  const CpuContext ctx;
  for (const std::int64_t D : {1, 3, 64, 200}) {
    const std::vector<float> table = normals(9 * D, "embedding.table");
    const Ids ids = some_ids(131, 9);
    std::vector<float> y(at(131 * D));

    ops::embedding_forward(
        *ctx, {.y = view(y, {131, D}), .table = view(table, {9, D}), .ids = view(ids, {131})});

    for (std::int64_t n = 0; n < 131; ++n)
      for (std::int64_t d = 0; d < D; ++d)
        ASSERT_EQ(y[at(n * D + d)], table[at(ids[at(n)] * D + d)]) << n << ", " << d;
  }
}

TEST(Embedding, BackwardAddsInAscendingTokenOrder) {
  for (const int threads : {1, 3}) {
    const CpuContext ctx(threads);
    for (const std::int64_t D : {1, 63, 64, 65, 300}) {
      const std::vector<float> dy = normals(500 * D, "embedding.dy");
      const Ids ids = some_ids(500, 7);
      std::vector<float> got = normals(8 * D, "embedding.dtable");
      std::vector<float> want = got;
      for (std::int64_t n = 0; n < 500; ++n)  // the contract: this order, in fp32, to the bit
        for (std::int64_t d = 0; d < D; ++d) want[at(ids[at(n)] * D + d)] += dy[at(n * D + d)];

      ops::embedding_backward(
          *ctx, {.dtable = view(got, {8, D}), .dy = view(dy, {500, D}), .ids = view(ids, {500})});

      EXPECT_EQ(got, want) << "D " << D << ", " << threads << " threads";
    }
  }
}

TEST(Embedding, RefusesIdsOutsideTheTable) {
  const CpuContext ctx;
  std::vector<float> y(8);
  std::vector<float> table(12);
  for (const std::int32_t bad : {-1, 3}) {
    const Ids ids = {0, bad};
    EXPECT_THROW(
        ops::embedding_forward(
            *ctx, {.y = view(y, {2, 4}), .table = view(table, {3, 4}), .ids = view(ids, {2})}),
        Error);
    EXPECT_THROW(
        ops::embedding_backward(
            *ctx, {.dtable = view(table, {3, 4}), .dy = view(y, {2, 4}), .ids = view(ids, {2})}),
        Error);
  }
}

TEST(Embedding, ChecksShapesAndAcceptsNoTokens) {
  const CpuContext ctx;
  std::vector<float> empty;
  std::vector<float> y(8);
  const std::vector<float> table(12);
  const Ids none;
  const Ids two(2);
  ops::embedding_forward(
      *ctx, {.y = view(empty, {0, 4}), .table = view(table, {3, 4}), .ids = view(none, {0})});
  EXPECT_THROW(
      ops::embedding_forward(
          *ctx, {.y = view(y, {4, 2}), .table = view(table, {3, 4}), .ids = view(two, {2})}),
      Error);
}

}  // namespace
}  // namespace grist
