#include "grist/core/memory.h"

#include <gtest/gtest.h>

#include <cstdint>

#include "grist/core/error.h"
#include "grist/core/host.h"

namespace grist {
namespace {

bool aligned(const void* p, std::uintptr_t to) {
  return reinterpret_cast<std::uintptr_t>(p) % to == 0;
}

TEST(Buffer, IsAlignedAndZero) {
  const Buffer small(100, Device::cpu, "small");
  const Buffer large(3 << 20, Device::cpu, "large");
  EXPECT_TRUE(aligned(small.data(), 64));
  EXPECT_TRUE(aligned(large.data(), 2 << 20));
  for (std::size_t i = 0; i < large.size(); i += 4001) ASSERT_EQ(large.data()[i], std::byte{0});
}

TEST(Buffer, ViewsCheckBoundsAndAlignment) {
  const Buffer b(64, Device::cpu, "b");
  EXPECT_EQ(b.view(DType::f32, {4, 4}).numel(), 16);
  EXPECT_EQ(b.view(DType::f32, {2}, 56).data, b.data() + 56);
  EXPECT_THROW(b.view(DType::f32, {17}), Error);
  EXPECT_THROW(b.view(DType::f32, {2}, 60), Error);
  EXPECT_THROW(b.view(DType::f64, {1}, 4), Error);
}

TEST(Buffer, RefusalNamesLabelAndSize) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers end the process instead of refusing";
#endif
  try {
    const Buffer b(std::size_t{1} << 60, Device::cpu, "activations");
    FAIL() << "an exbibyte was granted";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::out_of_memory);
    EXPECT_NE(std::string(e.what()).find("activations"), std::string::npos);
  }
}

TEST(MemoryLedger, APlanTouchesNothingAndNamesAllThatDoesNotFit) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers watch so much address space too closely";
#endif
  constexpr std::size_t kTera = std::size_t{1} << 40;
  MemoryLedger ledger;
  ledger.plan();
  const Buffer a(kTera, Device::cpu, "weights", &ledger);
  const Buffer b(2 * kTera, Device::cpu, "moments", &ledger);
  const Buffer c(kTera, Device::cpu, "copy", &ledger);
  EXPECT_EQ(a.data()[kTera / 2], std::byte{0});

  EXPECT_EQ(ledger.shortfall(5 * kTera, kTera), "");
  EXPECT_EQ(ledger.shortfall(2 * kTera, kTera / 2),
            "out of memory: 4.50 TiB are needed, 2.00 TiB are available; what does not fit: "
            "moments 2.00 TiB, copy 1.00 TiB");
}

TEST(Host, KnowsWhatIsAvailable) {
  EXPECT_GT(available_memory(), std::size_t{1} << 20);
  EXPECT_LT(available_memory(), std::size_t{1} << 50) << "no machine has a pebibyte";
}

TEST(MemoryLedger, AddsUpByLabelAndForgetsWhatIsFreed) {
  MemoryLedger ledger;
  {
    const Buffer a(100, Device::cpu, "weights", &ledger);
    const Buffer b(50, Device::cpu, "gradients", &ledger);
    Buffer c(7, Device::cpu, "weights", &ledger);
    const Buffer d = std::move(c);
    ASSERT_EQ(ledger.entries().size(), 2U);
    EXPECT_EQ(ledger.entries()[0].label, "weights");
    EXPECT_EQ(ledger.entries()[0].bytes, 107U);
    EXPECT_EQ(ledger.total_bytes(), 157U);
  }
  EXPECT_EQ(ledger.total_bytes(), 0U);
}

TEST(Arena, PlansThenAllocatesOnce) {
  MemoryLedger ledger;
  Arena arena("gradients", Device::cpu, &ledger);
  const std::size_t a = arena.reserve(DType::f32, {3});
  const std::size_t b = arena.reserve(DType::f64, {2, 2});
  arena.commit();
  EXPECT_THROW(arena.reserve_bytes(1), Error);
  EXPECT_EQ(ledger.total_bytes(), arena.size());
  auto* x = arena.view(a, DType::f32, {3}).as<float>();
  auto* y = arena.view(b, DType::f64, {2, 2}).as<double>();
  EXPECT_TRUE(aligned(x, 64) && aligned(y, 64));
  x[2] = 1.0F;
  EXPECT_EQ(y[0], 0.0);
}

TEST(Scratch, ReusesWhatAScopeReleased) {
  Scratch scratch;
  std::byte* first = nullptr;
  for (int step = 0; step < 5; ++step) {
    const ScratchScope outer(&scratch);
    std::byte* p = scratch.allocate(700000);
    if (step == 0) first = p;
    EXPECT_EQ(p, first);
    {
      const ScratchScope inner(&scratch);
      scratch.allocate<double>(200000);  // does not fit the first chunk
      scratch.allocate(1000);            // nor does this fit the second, which is exactly full
    }
    auto* small = scratch.allocate<float>(10);
    EXPECT_TRUE(aligned(small, 64));
    EXPECT_EQ(scratch.growths(), 3) << "step " << step;
  }
  EXPECT_GE(scratch.capacity(), 700000U + 1600000U);
}

TEST(Scratch, AllocationsDoNotOverlap) {
  Scratch scratch;
  const ScratchScope scope(&scratch);
  std::vector<std::pair<std::byte*, std::size_t>> pieces;
  for (std::size_t bytes : {1U, 64U, 65U, 500000U, 0U, 900000U, 3000000U, 64U}) {
    std::byte* p = scratch.allocate(bytes);
    for (const auto& [other, size] : pieces)
      EXPECT_TRUE(p + bytes <= other || other + size <= p) << bytes;
    pieces.emplace_back(p, bytes);
  }
}

TEST(Scratch, AScopeNeedsScratch) {
  EXPECT_THROW(ScratchScope scope(nullptr), Error);
}

TEST(HumanBytes, ReadsWell) {
  EXPECT_EQ(human_bytes(0), "0 B");
  EXPECT_EQ(human_bytes(1023), "1023 B");
  EXPECT_EQ(human_bytes(1536), "1.50 KiB");
  EXPECT_EQ(human_bytes(std::size_t{5} << 30), "5.00 GiB");
}

}  // namespace
}  // namespace grist
