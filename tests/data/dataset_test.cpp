// Sample order, packing, masks, validation sets, fingerprints.
#include "grist/data/dataset.h"

#include <algorithm>
#include <map>
#include <set>

#include "data/support.h"
#include "grist/core/hash.h"
#include "grist/core/random.h"

namespace grist {
namespace {

using test::Documents;
using test::TempDir;
using test::throws;

constexpr std::int32_t kVocab = 100000;

// Documents of odd lengths (some empty) in which every token of the file has its own id, from
// `first` on.
Documents numbered(std::int32_t first, std::int32_t documents, std::string_view name) {
  const Random random(11, name);
  Documents out;
  for (std::int32_t d = 0; d < documents; ++d) {
    out.emplace_back();
    const auto length = random.below(static_cast<std::uint64_t>(d), 23);
    for (std::uint64_t i = 0; i < length; ++i) out.back().push_back(first++);
  }
  return out;
}

std::int64_t count_tokens(const Documents& documents) {
  std::size_t n = 0;
  for (const auto& d : documents) n += d.size();
  return static_cast<std::int64_t>(n);
}

DataSourceConfig source(const std::string& path, double weight = 1) {
  DataSourceConfig s;
  s.path = path;
  s.weight = weight;
  return s;
}

DataConfig config(std::vector<DataSourceConfig> train, std::int64_t seq_length) {
  DataConfig c;
  c.train = std::move(train);
  c.seq_length = seq_length;
  return c;
}

Batch batch(const SampleStream& stream, std::int64_t first, std::int64_t count) {
  Batch b;
  stream.batch(first, count, b);
  return b;
}

// The next token in the document of each token; -1 after the last.
std::map<std::int32_t, std::int32_t> successors(const Documents& documents) {
  std::map<std::int32_t, std::int32_t> next;
  for (const auto& d : documents) {
    for (std::size_t i = 0; i < d.size(); ++i) next[d[i]] = i + 1 < d.size() ? d[i + 1] : -1;
  }
  return next;
}

TEST(SampleStream, AnEpochHoldsEveryTokenOnce) {
  const TempDir dir;
  const Documents documents = numbered(0, 300, "a");
  const std::int64_t total = count_tokens(documents);
  test::write_tokens(dir / "a", documents, kVocab);
  // {T, epochs}: samples that cover whole epochs.
  const std::vector<std::pair<std::int64_t, std::int64_t>> cases = {
      {1, 1}, {7, 7}, {64, 64}, {total, 3}, {3 * total, 6}};
  for (const auto& [T, epochs] : cases) {
    const SampleStream stream(config({source(dir / "a")}, T), 1, kVocab);
    const Batch b = batch(stream, 0, epochs * total / T);
    std::map<std::int32_t, std::int64_t> seen;
    for (const std::int32_t id : b.ids) ++seen[id];
    ASSERT_EQ(static_cast<std::int64_t>(seen.size()), total) << T;
    for (const auto& [id, times] : seen) EXPECT_EQ(times, epochs) << T << ' ' << id;
  }
}

TEST(SampleStream, AnEpochOfManyDocumentsIsDrawnOnThreads) {
  const TempDir dir;
  constexpr std::int32_t kDocuments = 120001;
  Documents documents;
  for (std::int32_t d = 0; d < kDocuments; ++d) documents.push_back({d, d});
  test::write_tokens(dir / "a", documents, kDocuments);
  const SampleStream stream(config({source(dir / "a")}, 2 * kDocuments), 1, kDocuments);

  const Batch b = batch(stream, 0, 1);

  std::vector<int> seen(kDocuments);
  for (const std::int32_t id : b.ids) ++seen[static_cast<std::size_t>(id)];
  EXPECT_EQ(std::count(seen.begin(), seen.end(), 2), kDocuments);
  EXPECT_FALSE(std::is_sorted(b.ids.begin(), b.ids.end()));
}

TEST(SampleStream, TargetsArePredictedWithinADocument) {
  const TempDir dir;
  const Documents documents = numbered(0, 300, "a");
  test::write_tokens(dir / "a", documents, kVocab);
  const auto next = successors(documents);
  const SampleStream stream(config({source(dir / "a")}, 16), 1, kVocab);

  const Batch b = batch(stream, 0, 400);

  std::int64_t targets = 0;
  for (std::size_t i = 0; i < b.ids.size(); ++i) {
    EXPECT_EQ(b.targets[i], next.at(b.ids[i])) << i;
    targets += b.targets[i] >= 0 ? 1 : 0;
  }
  EXPECT_EQ(b.num_targets, targets);
  EXPECT_LT(targets, 6400);
}

TEST(SampleStream, SegmentsAreDocuments) {
  const TempDir dir;
  const Documents documents = numbered(0, 300, "a");
  test::write_tokens(dir / "a", documents, kVocab);
  std::set<std::int32_t> heads;
  for (const auto& d : documents) {
    if (!d.empty()) heads.insert(d[0]);
  }
  const SampleStream stream(config({source(dir / "a")}, 16), 1, kVocab);

  const Batch b = batch(stream, 5, 100);

  ASSERT_EQ(b.cu_seqlens.front(), 0);
  ASSERT_EQ(b.cu_seqlens.back(), 1600);
  std::size_t segment = 0;
  std::int32_t longest = 0;
  for (std::int32_t i = 0; i < 1600; ++i) {
    const bool begins = i % 16 == 0 || heads.count(b.ids[static_cast<std::size_t>(i)]) > 0;
    if (begins) {
      ASSERT_EQ(b.cu_seqlens[segment], i);
      longest = std::max(longest, b.cu_seqlens[segment + 1] - i);
      ++segment;
    }
    EXPECT_EQ(b.positions[static_cast<std::size_t>(i)], i - b.cu_seqlens[segment - 1]);
  }
  EXPECT_EQ(segment + 1, b.cu_seqlens.size());
  EXPECT_EQ(b.max_seqlen, longest);
}

TEST(SampleStream, WithoutMasksASampleIsOneSegment) {
  const TempDir dir;
  test::write_tokens(dir / "a", numbered(0, 300, "a"), kVocab);
  DataConfig c = config({source(dir / "a")}, 16);
  c.mask_documents = false;
  const SampleStream open(c, 1, kVocab);
  c.mask_documents = true;
  const SampleStream masked(c, 1, kVocab);

  const Batch b = batch(open, 0, 50);

  EXPECT_EQ(b.ids, batch(masked, 0, 50).ids);
  EXPECT_EQ(b.num_targets, 800);
  EXPECT_EQ(b.max_seqlen, 16);
  ASSERT_EQ(b.cu_seqlens.size(), 51U);
  for (std::size_t i = 0; i < b.ids.size(); ++i) {
    EXPECT_EQ(b.positions[i], static_cast<std::int32_t>(i % 16));
    if (i % 16 != 15) {
      EXPECT_EQ(b.targets[i], b.ids[i + 1]);
    }
  }
}

TEST(SampleStream, AnyBatchingGivesTheSameSamples) {
  const TempDir dir;
  test::write_tokens(dir / "a", numbered(0, 200, "a"), kVocab);
  test::write_tokens(dir / "b", numbered(50000, 100, "b"), kVocab);
  const DataConfig c = config({source(dir / "a", 0.7), source(dir / "b", 0.3)}, 16);
  const Batch all = batch(SampleStream(c, 1, kVocab), 0, 600);
  for (const std::int64_t size : {1, 7, 50}) {
    const SampleStream fresh(c, 1, kVocab);
    for (std::int64_t first = 600 - size; first >= 0; first -= size) {  // backwards: no state
      const Batch b = batch(fresh, first, size);
      ASSERT_TRUE(std::equal(b.ids.begin(), b.ids.end(), all.ids.begin() + first * 16)) << first;
      ASSERT_TRUE(std::equal(b.targets.begin(), b.targets.end(), all.targets.begin() + first * 16));
    }
  }
}

TEST(SampleStream, OrderDependsOnSeedAndContentNotOnPlaceOrNeighbours) {
  const TempDir dir;
  test::write_tokens(dir / "a", numbered(0, 200, "a"), kVocab);
  test::write_tokens(dir / "moved", numbered(0, 200, "a"), kVocab);
  test::write_tokens(dir / "b", numbered(50000, 200, "b"), kVocab);
  const auto ids = [&](std::vector<DataSourceConfig> train, std::int64_t seed) {
    return batch(SampleStream(config(std::move(train), 16), seed, kVocab), 0, 100).ids;
  };
  const auto a = ids({source(dir / "a")}, 1);

  EXPECT_EQ(a, ids({source(dir / "moved")}, 1));
  EXPECT_NE(a, ids({source(dir / "a")}, 2));
  EXPECT_NE(a, ids({source(dir / "a")}, -1));
  const SampleStream both(config({source(dir / "b"), source(dir / "a")}, 16), 1, kVocab);
  for (std::int64_t i = 0; i < 100; ++i) {
    const SampleOrigin from = both.origin(i);
    if (from.source != 1) continue;
    const Batch b = batch(both, i, 1);
    EXPECT_TRUE(std::equal(b.ids.begin(), b.ids.end(), a.begin() + from.sample * 16)) << i;
  }
}

// A checkpoint is resumed by number: another order needs another "sample_order" in fingerprints().
TEST(SampleStream, TheOrderOfVersionOneIsPinned) {
  const TempDir dir;
  test::write_tokens(dir / "a", numbered(0, 200, "a"), kVocab);
  test::write_tokens(dir / "b", numbered(50000, 100, "b"), kVocab);
  const SampleStream stream(config({source(dir / "a", 0.7), source(dir / "b", 0.3)}, 16), 1,
                            kVocab);

  const Batch b = batch(stream, 0, 500);

  EXPECT_EQ(stream.fingerprints().at("sample_order").as_int(), 1);
  EXPECT_EQ(hash_hex(hash64(std::as_bytes(std::span(b.ids)))), "a5328ddf6ed932a1");
}

TEST(SampleStream, EpochsAndCopiesOfASourceDiffer) {
  const TempDir dir;
  const Documents documents = numbered(0, 200, "a");
  test::write_tokens(dir / "a", documents, kVocab);
  const std::int64_t total = count_tokens(documents);
  const SampleStream one(config({source(dir / "a")}, 16), 1, kVocab);
  const SampleStream two(config({source(dir / "a"), source(dir / "a")}, 16), 1, kVocab);

  EXPECT_NE(batch(one, 0, 20).ids, batch(one, (total + 15) / 16, 20).ids);
  EXPECT_NE(batch(two, 0, 1).ids, batch(two, 1, 1).ids);
  EXPECT_EQ(two.num_sources(), 2);
  EXPECT_EQ(two.num_tokens(1), total);
  EXPECT_DOUBLE_EQ(two.epochs(0, 2 * total), 16.0);
}

TEST(SampleStream, PiecesOfALongDocumentAreNotNeighbours) {
  const TempDir dir;
  Documents one(1);
  for (std::int32_t i = 0; i < 16000; ++i) one[0].push_back(i);
  test::write_tokens(dir / "a", one, kVocab);
  const SampleStream stream(config({source(dir / "a")}, 16), 1, kVocab);

  const Batch b = batch(stream, 0, 1000);

  int neighbours = 0;
  for (std::size_t i = 16; i < b.ids.size(); i += 16) neighbours += b.ids[i] == b.ids[i - 1] + 1;
  EXPECT_LT(neighbours, 20);
}

TEST(SampleStream, ReportsBadDataWhereItIs) {
  const TempDir dir;
  test::write_tokens(dir / "a", {{1, 2, 3}, {4, 70, 5}}, 100, {.tokenizer_hash = "t"});
  const SampleStream stream(config({source(dir / "a")}, 4), 1, 64);

  EXPECT_TRUE(throws(ExitCode::bad_data, "document 1, token 1", [&] { batch(stream, 0, 2); }));
  EXPECT_TRUE(throws(ExitCode::bad_data, "tokenizer", [&] { stream.check_tokenizer("u"); }));
  EXPECT_NO_THROW(stream.check_tokenizer("t"));
  EXPECT_TRUE(throws(ExitCode::not_found, "none.bin",
                     [&] { SampleStream(config({source(dir / "none")}, 4), 1, 64); }));
  EXPECT_TRUE(throws(ExitCode::config, "seq_length",
                     [&] { SampleStream(config({source(dir / "a")}, 0), 1, 64); }));
}

TEST(SampleStream, RefusesASourceWithoutTokens) {
  const TempDir dir;
  test::write_tokens(dir / "a", {{1}}, 100);
  std::string idx = read_text(dir / "a.idx").substr(0, 34) + std::string(8, '\0');
  idx[18] = 0;
  idx[26] = 1;
  dir.write("b.idx", idx);
  dir.write("b.bin", "");

  EXPECT_TRUE(throws(ExitCode::bad_data, "no tokens",
                     [&] { SampleStream(config({source(dir / "b")}, 4), 1, 64); }));
}

TEST(SampleStream, NeedsSomethingToPredict) {
  const TempDir dir;
  test::write_tokens(dir / "ones", {{1}, {2}, {}}, kVocab);
  test::write_tokens(dir / "two", {{1}, {2, 3}}, kVocab);
  DataConfig whole = config({source(dir / "ones")}, 4);
  whole.mask_documents = false;

  EXPECT_TRUE(throws(ExitCode::bad_data, "ones.bin: 2 tokens in 3 documents leave nothing", [&] {
    SampleStream(config({source(dir / "two"), source(dir / "ones")}, 4), 1, kVocab);
  }));
  EXPECT_NO_THROW(SampleStream(config({source(dir / "two")}, 4), 1, kVocab));
  EXPECT_NO_THROW(SampleStream(whole, 1, kVocab));
}

// ---- fingerprints ----------------------------------------------------------------------------

TEST(SampleStream, FingerprintsHoldTheOrder) {
  const TempDir dir;
  test::write_tokens(dir / "a", numbered(0, 200, "a"), kVocab);
  test::write_tokens(dir / "moved", numbered(0, 200, "a"), kVocab);
  test::write_tokens(dir / "b", numbered(50000, 200, "b"), kVocab);
  test::write_tokens(dir / "other", numbered(50000, 201, "b"), kVocab);
  const auto stream = [&](const char* a, const char* b, double weight, std::int64_t seed,
                          std::int64_t T) {
    return SampleStream(config({source(dir / a, weight), source(dir / b, 1)}, T), seed, kVocab);
  };
  const Json saved = Json::parse(stream("a", "b", 2, 1, 16).fingerprints().dump(), "checkpoint");

  EXPECT_NO_THROW(stream("a", "b", 2, 1, 16).check_fingerprints(saved));
  EXPECT_NO_THROW(stream("moved", "b", 2, 1, 16).check_fingerprints(saved));
  EXPECT_TRUE(throws(ExitCode::bad_data, "data.train[1]",
                     [&] { stream("a", "other", 2, 1, 16).check_fingerprints(saved); }));
  EXPECT_TRUE(throws(ExitCode::config, "data.train[0].weight was 2",
                     [&] { stream("a", "b", 3, 1, 16).check_fingerprints(saved); }));
  EXPECT_TRUE(throws(ExitCode::config, "seed was 1, is 5",
                     [&] { stream("a", "b", 2, 5, 16).check_fingerprints(saved); }));
  EXPECT_TRUE(throws(ExitCode::config, "data.seq_length was 16, is 8",
                     [&] { stream("a", "b", 2, 1, 8).check_fingerprints(saved); }));
  EXPECT_TRUE(throws(ExitCode::config, "had 2 sources, has 1", [&] {
    SampleStream(config({source(dir / "a")}, 16), 1, kVocab).check_fingerprints(saved);
  }));
}

// ---- validation ------------------------------------------------------------------------------

TEST(ValidationSet, HoldsEveryTokenInOrderAndPadsTheLast) {
  const TempDir dir;
  const Documents documents = numbered(0, 50, "a");
  const std::int64_t total = count_tokens(documents);
  test::write_tokens(dir / "a", documents, kVocab, {.tokenizer_hash = "", .source_bytes = 777});
  for (const bool mask : {true, false}) {
    for (const std::int64_t T : {std::int64_t{1}, std::int64_t{13}, total - 1, total, 2 * total}) {
      const ValidationSet set(source(dir / "a"),
                              {.seq_length = T, .vocab_size = kVocab, .mask_documents = mask});
      Batch b;
      set.batch(0, set.num_samples() + 2, b);  // two rows of padding

      const auto next = successors(documents);
      std::int64_t targets = 0;
      for (std::int32_t i = 0; i + 1 < total; ++i) {
        ASSERT_EQ(b.ids[static_cast<std::size_t>(i)], i);
        ASSERT_EQ(b.targets[static_cast<std::size_t>(i)], mask ? next.at(i) : i + 1);
        targets += b.targets[static_cast<std::size_t>(i)] >= 0;
      }
      for (auto i = static_cast<std::size_t>(total - 1); i < b.targets.size(); ++i)
        ASSERT_EQ(b.targets[i], -1);
      EXPECT_EQ(targets, set.num_targets());
      EXPECT_EQ(b.num_targets, set.num_targets());
      EXPECT_EQ(b.cu_seqlens.back(), static_cast<std::int32_t>(b.ids.size()));
      EXPECT_EQ(set.source_bytes(), 777);
      EXPECT_EQ(set.name(), "a");
    }
  }
}

TEST(ValidationSet, BatchesOfAnySizeAgree) {
  const TempDir dir;
  test::write_tokens(dir / "a", numbered(0, 50, "a"), kVocab);
  const ValidationSet set(source(dir / "a"), {.seq_length = 10, .vocab_size = kVocab});
  Batch all;
  set.batch(0, set.num_samples(), all);
  Batch one;
  for (std::int64_t i = 0; i < set.num_samples(); ++i) {
    set.batch(i, 1, one);
    EXPECT_TRUE(std::equal(one.targets.begin(), one.targets.end(), all.targets.begin() + i * 10));
    EXPECT_TRUE(
        std::equal(one.positions.begin(), one.positions.end(), all.positions.begin() + i * 10));
  }
}

TEST(ValidationSet, NeedsSomethingToPredict) {
  const TempDir dir;
  test::write_tokens(dir / "a", {{1}, {2}}, kVocab);

  EXPECT_TRUE(throws(ExitCode::bad_data, "nothing to predict", [&] {
    ValidationSet(source(dir / "a"), {.seq_length = 10, .vocab_size = kVocab});
  }));
}

}  // namespace
}  // namespace grist
