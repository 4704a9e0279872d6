// Reading ahead changes nothing but the time.
#include "grist/data/batch_loader.h"

#include <thread>

#include "data/support.h"
#include "grist/core/check.h"

namespace grist {
namespace {

using test::TempDir;
using test::throws;

TEST(BatchLoader, GivesTheBatchesThatAreAskedFor) {
  const TempDir dir;
  test::Documents documents;
  for (std::int32_t d = 0; d < 50; ++d) documents.emplace_back(static_cast<std::size_t>(d), d);
  test::write_tokens(dir / "a", documents, 100);
  DataConfig config;
  config.train.emplace_back();
  config.train[0].path = dir / "a";
  config.seq_length = 8;
  const SampleStream stream(config, 1, 100);
  BatchLoader loader(stream, 3);
  Batch want;

  // In order, repeated, skipped, growing, without a next, and a next that is not asked for.
  const std::vector<std::pair<SampleRange, SampleRange>> calls = {
      {{0, 6}, {6, 6}}, {{6, 6}, {12, 6}},  {{6, 6}, {12, 6}},  {{12, 9}, {21, 9}},
      {{21, 9}, {}},    {{30, 9}, {39, 9}}, {{90, 3}, {93, 3}}, {{93, 3}, {96, 3}}};
  for (const auto& [now, next] : calls) {
    const std::vector<Batch>& got = loader.get(now, next);
    ASSERT_EQ(static_cast<std::int64_t>(got.size()), now.count / 3);
    for (std::size_t i = 0; i < got.size(); ++i) {
      stream.batch(now.first + static_cast<std::int64_t>(i) * 3, 3, want);
      EXPECT_EQ(got[i].ids, want.ids) << now.first;
      EXPECT_EQ(got[i].targets, want.targets) << now.first;
      EXPECT_EQ(got[i].cu_seqlens, want.cu_seqlens) << now.first;
    }
  }
}

TEST(BatchLoader, AnErrorComesWithItsBatch) {
  BatchLoader loader([](const SampleRange& range, std::vector<Batch>& batches) {
    if (range.first == 2) fail(ExitCode::bad_data, "batch 2 is bad");
    batches.resize(1);
    batches[0].num_targets = range.first;
  });

  EXPECT_EQ(loader.get({1, 1}, {2, 1})[0].num_targets, 1);
  EXPECT_TRUE(throws(ExitCode::bad_data, "batch 2", [&] { loader.get({2, 1}, {3, 1}); }));
  EXPECT_EQ(loader.get({3, 1}, {2, 1})[0].num_targets, 3);
  EXPECT_EQ(loader.get({4, 1}, {})[0].num_targets, 4);  // an error nobody asked for is dropped
}

TEST(BatchLoader, ManyThreadsMayReadOneStream) {
  const TempDir dir;
  test::Documents documents;
  for (std::int32_t d = 0; d < 500; ++d)
    documents.emplace_back(static_cast<std::size_t>(d % 37), d);
  test::write_tokens(dir / "a", documents, 1000);
  DataConfig config;
  config.train.emplace_back();
  config.train[0].path = dir / "a";
  config.seq_length = 16;
  const SampleStream stream(config, 1, 1000);
  const SampleStream alone(config, 1, 1000);
  Batch want;
  alone.batch(0, 4000, want);  // several epochs
  std::vector<Batch> got(4);
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < got.size(); ++t)
    threads.emplace_back(
        [&, t] { stream.batch(static_cast<std::int64_t>(t) * 1000, 1000, got[t]); });
  for (std::thread& t : threads) t.join();

  for (std::size_t t = 0; t < got.size(); ++t)
    EXPECT_TRUE(std::equal(got[t].ids.begin(), got[t].ids.end(), want.ids.begin() + t * 16000))
        << t;
}

}  // namespace
}  // namespace grist
