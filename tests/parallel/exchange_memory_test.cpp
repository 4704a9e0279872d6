// Room for rows that come: how much at start, how it grows, and what is said when it cannot.
#include "src/parallel/exchange_memory.h"

#include <gtest/gtest.h>

#include "grist/core/error.h"

namespace grist::parallel {
namespace {

ExchangeSizes sizes(nn::Keep keep) {
  ExchangeSizes s;
  s.sources = 4;
  s.first_expert = 6;
  s.experts = 3;
  s.hidden = 10;
  s.intermediate = 5;
  s.layers = 2;
  s.first_layer = 2;
  s.balanced_rows = 100;
  s.most_rows = 400;
  s.room = 200;
  s.keep = keep;
  return s;
}

TEST(ExchangeMemory, GrowsWhereMoreRowsComeAndOnlyThere) {
  MemoryLedger ledger;
  ExchangeMemory memory(sizes(nn::Keep::everything), Device::cpu, &ledger);
  const std::size_t at_start = ledger.total_bytes();

  memory.make_room(0, 200);
  EXPECT_EQ(memory.growths(), 0);
  EXPECT_EQ(ledger.total_bytes(), at_start);

  memory.make_room(1, 240);
  EXPECT_EQ(memory.growths(), 1);
  EXPECT_EQ(memory.arrays(0).x.shape, Shape({200, 10}));
  EXPECT_EQ(memory.arrays(1).x.shape, Shape({270, 10}));
  EXPECT_EQ(memory.arrays(1).a.shape, Shape({270, 5}));
  EXPECT_GT(ledger.total_bytes(), at_start);

  memory.make_room(1, 270);
  EXPECT_EQ(memory.growths(), 1);
  memory.make_room(1, 390);
  EXPECT_EQ(memory.arrays(1).z.shape, Shape({400, 10}));  // no more than can come
}

TEST(ExchangeMemory, KeepsLargeArraysForTheBackwardPassOnlyWhenAsked) {
  const auto kept = [](nn::Keep keep) {
    MemoryLedger ledger;
    const ExchangeMemory memory(sizes(keep), Device::cpu, &ledger);
    std::size_t bytes = 0;
    for (const MemoryLedger::Entry& e : ledger.entries())
      if (e.label.find("kept") != std::string::npos) bytes += e.bytes;
    return bytes / (2 * 200);  // a row and layer
  };
  EXPECT_NEAR(static_cast<double>(kept(nn::Keep::everything)), 12 + 4 * (10 + 10), 1);
  EXPECT_NEAR(static_cast<double>(kept(nn::Keep::layer_inputs)), 12, 1);
  EXPECT_EQ(kept(nn::Keep::nothing), 0U);
}

TEST(ExchangeMemory, NamesTheCureWhenThereIsNoMemory) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers end the process instead of refusing";
#endif
  ExchangeSizes s = sizes(nn::Keep::everything);
  s.most_rows = std::int64_t{1} << 45;
  ExchangeMemory memory(s, Device::cpu, nullptr);
  try {
    memory.make_room(1, s.most_rows);
    FAIL() << "room for 2^45 rows";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::out_of_memory);
    const std::string line = e.what();
    for (const char* part : {"model.moe.capacity_factor", "layer 3", "experts 6 to 8", "100"})
      EXPECT_NE(line.find(part), std::string::npos) << line;
    EXPECT_EQ(line.find('\n'), std::string::npos);
  }
}

}  // namespace
}  // namespace grist::parallel
