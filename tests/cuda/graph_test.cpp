// Recorded work of the device: core/graph.h and core/uploads.h.
#include "grist/core/graph.h"

#include "fixture.h"
#include "grist/core/error.h"
#include "grist/core/uploads.h"
#include "grist/ops/optimizer.h"

namespace grist {
namespace {

using test::CudaContext;
using test::OnDevice;
using Floats = std::vector<float>;

// With work that is done at once, and with work that is done late.
template <class F> void for_both_kinds_of_streams(F&& body) {
  for (const bool late : {false, true}) {
    SCOPED_TRACE(late ? "late" : "at once");
    test::use({.name = "streams", .seed = 5, .deferred = late});
    body();
  }
  test::use(test::schedules().front());
}

// y = 0, then y += x as often as said, with a cut between any two.
class Sums {
 public:
  explicit Sums(const Context& ctx) : ctx_(ctx) {}
  void run(GraphCache& graphs, int times) {
    graphs.run(
        {times},
        [&](const std::function<void()>& cut) {
          ops::fill(ctx_, {.x = y_, .value = 0.0F});
          for (int i = 0; i < times; ++i) {
            if (i > 0) cut();
            if (refuse) wait(ctx_);
            ops::add(ctx_, {.y = y_, .x = x_});
          }
        },
        [&](std::size_t cut) { cuts.push_back(cut); });
  }
  Floats y() const { return y_.host<float>(); }
  void set_x(float value) {
    const Floats values(4, value);
    copy_in(ctx_, x_, values.data());
  }
  std::vector<std::size_t> cuts;
  bool refuse = false;  // the work waits for the device

 private:
  const Context& ctx_;
  OnDevice x_{ctx_, Floats(4, 1.0F), {4}}, y_{ctx_, DType::f32, {4}};
};

TEST(GraphCache, RecordsTheSecondTimeAndReadsTheDeviceLater) {
  for_both_kinds_of_streams([] {
    const CudaContext ctx;
    GraphCache graphs(*ctx);
    Sums sums(*ctx);
    for (const float x : {1.0F, 2.0F, 3.0F, 4.0F}) {
      sums.set_x(x);
      sums.cuts.clear();
      sums.run(graphs, 3);
      EXPECT_EQ(sums.y(), Floats(4, 3 * x));
      EXPECT_EQ(sums.cuts, (std::vector<std::size_t>{0, 1}));
    }
    EXPECT_EQ(graphs.counts().direct, 1);
    EXPECT_EQ(graphs.counts().recorded, 1);
    EXPECT_EQ(graphs.counts().launched, 3);
    sums.run(graphs, 2);  // another key
    EXPECT_EQ(sums.y(), Floats(4, 8.0F));
    EXPECT_EQ(graphs.counts().direct, 2);
  });
}

TEST(GraphCache, KeepsTheLastUsedOnes) {
  const CudaContext ctx;
  GraphCache graphs(*ctx);
  Sums sums(*ctx);
  for (int round = 0; round < 2; ++round)
    for (int times = 1; times <= 16; ++times) sums.run(graphs, times);
  EXPECT_EQ(graphs.counts().recorded, 16);
  for (int times = 17; times <= 20; ++times) sums.run(graphs, times);  // takes the place of 1 to 4
  sums.run(graphs, 5);
  sums.run(graphs, 4);
  EXPECT_EQ(sums.y(), Floats(4, 4.0F));
  EXPECT_EQ(graphs.counts().recorded, 16);
  EXPECT_EQ(graphs.counts().launched, 17);
  EXPECT_EQ(graphs.counts().direct, 16 + 5);
}

TEST(GraphCache, GoesOnWithoutWhereWorkCannotBeRecorded) {
  const CudaContext ctx;
  GraphCache graphs(*ctx);
  Sums sums(*ctx);
  sums.refuse = true;
  ::testing::internal::CaptureStderr();
  for (int i = 0; i < 3; ++i) {
    sums.run(graphs, 2);
    EXPECT_EQ(sums.y(), Floats(4, 2.0F));
  }
  const std::string said = ::testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find("CUDA graphs: "), std::string::npos) << said;
  EXPECT_EQ(said.find("CUDA graphs: "), said.rfind("CUDA graphs: ")) << said;
  EXPECT_EQ(graphs.counts().direct, 3);
  EXPECT_EQ(graphs.counts().launched, 0);
}

// Nobody says what CUDA's null stream is ordered with.
TEST(CudaContexts, NeedAStreamThatSomebodyMade) {
  CUstream_st* const none = nullptr;

  EXPECT_THROW(Context(Device::cuda, none), Error);
  static_assert(!std::is_constructible_v<Context, Device, std::nullptr_t>);
}

// The host writes the next rounds while the device has not read the last ones.
TEST(Uploads, KeepEveryRound) {
  for_both_kinds_of_streams([] {
    const CudaContext ctx;
    constexpr std::int64_t kRounds = 6, n = 100;
    Uploads uploads(Device::cuda, n * sizeof(float) + Uploads::kAlign, nullptr);
    const OnDevice now(*ctx, DType::f32, {n}), all(*ctx, DType::f32, {kRounds * n});
    for (std::int64_t r = 0; r < kRounds; ++r) {
      Floats values(n, static_cast<float>(r));
      uploads.begin();
      uploads.add(*ctx, now, values.data());
      uploads.end(*ctx);
      values.assign(n, -1.0F);
      copy(*ctx, rows(all.view(), r * n, (r + 1) * n), now);
    }
    const Floats got = all.host<float>();
    for (std::int64_t i = 0; i < kRounds * n; ++i)
      ASSERT_EQ(got[static_cast<std::size_t>(i)], static_cast<float>(i / n));
    EXPECT_THROW(uploads.add(*ctx, all, got.data()), Error);
  });
}

}  // namespace
}  // namespace grist
