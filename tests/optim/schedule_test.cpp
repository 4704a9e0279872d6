#include "grist/optim/schedule.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numbers>

#include "grist/core/error.h"

namespace grist {
namespace {

OptimConfig rates(const std::string& style, std::int64_t warmup) {
  OptimConfig c;
  c.lr = 1.0;
  c.min_lr = 0.1;
  c.lr_decay_style = style;
  c.lr_warmup_iters = warmup;
  return c;
}

TEST(LearningRate, WarmsUpLinearlyFromZero) {
  for (const char* style : {"cosine", "wsd", "linear", "constant"}) {
    const OptimConfig c = rates(style, 4);
    for (std::int64_t step = 1; step <= 4; ++step)
      EXPECT_DOUBLE_EQ(learning_rate(c, step, 100), 0.25 * static_cast<double>(step)) << style;
  }
}

TEST(LearningRate, CosineGoesFromPeakToMinimum) {
  const OptimConfig c = rates("cosine", 10);
  EXPECT_DOUBLE_EQ(learning_rate(c, 10, 110), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate(c, 60, 110), 0.55);
  EXPECT_DOUBLE_EQ(learning_rate(c, 35, 110),
                   0.1 + 0.9 * 0.5 * (1 + std::cos(std::numbers::pi * 0.25)));
  EXPECT_DOUBLE_EQ(learning_rate(c, 110, 110), 0.1);
  EXPECT_DOUBLE_EQ(learning_rate(c, 500, 110), 0.1);
  double last = 2.0;
  for (std::int64_t step = 10; step <= 110; ++step) {
    const double lr = learning_rate(c, step, 110);
    EXPECT_LT(lr, last);
    last = lr;
  }
}

TEST(LearningRate, LinearAndConstant) {
  EXPECT_DOUBLE_EQ(learning_rate(rates("linear", 0), 25, 100), 0.1 + 0.9 * 0.75);
  EXPECT_DOUBLE_EQ(learning_rate(rates("linear", 0), 100, 100), 0.1);
  EXPECT_DOUBLE_EQ(learning_rate(rates("constant", 0), 1, 100), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate(rates("constant", 0), 1000, 100), 1.0);
}

TEST(LearningRate, WsdHoldsThePeakThenDecaysLinearly) {
  OptimConfig c = rates("wsd", 10);
  c.lr_wsd_decay_iters = 20;
  EXPECT_DOUBLE_EQ(learning_rate(c, 11, 100), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate(c, 80, 100), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate(c, 85, 100), 0.1 + 0.9 * 0.75);
  EXPECT_DOUBLE_EQ(learning_rate(c, 100, 100), 0.1);
  EXPECT_DOUBLE_EQ(learning_rate(c, 101, 100), 0.1);
}

TEST(LearningRate, DecayMayEndBeforeOrAfterTheRun) {
  OptimConfig c = rates("linear", 0);
  c.lr_decay_iters = 50;
  EXPECT_DOUBLE_EQ(learning_rate(c, 50, 100), 0.1);
  EXPECT_DOUBLE_EQ(learning_rate(c, 51, 100), 0.1);
  c.lr_decay_iters = 200;
  EXPECT_DOUBLE_EQ(learning_rate(c, 100, 100), 0.55);
}

TEST(LearningRate, IsFiniteAtEveryEdge) {
  for (const char* style : {"cosine", "wsd", "linear", "constant"}) {
    for (const std::int64_t warmup : {0, 1, 5, 10}) {
      for (const std::int64_t end : {1, 5, 10}) {
        OptimConfig c = rates(style, warmup);
        c.lr_wsd_decay_iters = end;
        for (std::int64_t step = 1; step <= 12; ++step) {
          const double lr = learning_rate(c, step, end);
          EXPECT_TRUE(0.0 < lr && lr <= 1.0) << style << " " << warmup << " " << end << " " << step;
        }
      }
    }
  }
}

TEST(LearningRate, RefusesUnknownStyles) {
  try {
    learning_rate(rates("exponential", 0), 1, 10);
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::config);
    EXPECT_NE(std::string(e.what()).find("exponential"), std::string::npos);
  }
  EXPECT_THROW(learning_rate(rates("cosine", 0), 0, 10), Error);
}

TrainConfig batches(std::vector<std::int64_t> ramp) {
  TrainConfig t;
  t.global_batch_size = 512;
  t.rampup_batch_size = std::move(ramp);
  return t;
}

TEST(BatchRamp, WithoutOneTheBatchIsFull) {
  EXPECT_EQ(global_batch_size_at(batches({}), 0), 512);
}

TEST(BatchRamp, RisesInEqualStages) {
  const TrainConfig t = batches({128, 128, 3000});  // three increments, a thousand samples each
  EXPECT_EQ(global_batch_size_at(t, 0), 128);
  EXPECT_EQ(global_batch_size_at(t, 999), 128);
  EXPECT_EQ(global_batch_size_at(t, 1000), 256);
  EXPECT_EQ(global_batch_size_at(t, 1999), 256);
  EXPECT_EQ(global_batch_size_at(t, 2000), 384);
  EXPECT_EQ(global_batch_size_at(t, 2999), 384);
  EXPECT_EQ(global_batch_size_at(t, 3000), 512);
  EXPECT_EQ(global_batch_size_at(t, std::numeric_limits<std::int64_t>::max()), 512);
}

TEST(BatchRamp, StagesOfUnevenLengthStayExact) {
  const TrainConfig t = batches({32, 96, 1000});  // five increments
  std::int64_t last = 32;
  for (std::int64_t consumed = 0; consumed <= 1000; ++consumed) {
    const std::int64_t size = global_batch_size_at(t, consumed);
    EXPECT_EQ(size, 32 + 96 * (consumed * 5 / 1000));
    EXPECT_GE(size, last);
    last = size;
  }
  EXPECT_EQ(last, 512);
  EXPECT_EQ(global_batch_size_at(batches({256, 256, 0}), 0), 512);
}

TEST(BatchRamp, RefusesRampsThatDoNotArrive) {
  for (const std::vector<std::int64_t>& ramp : {std::vector<std::int64_t>{128, 128},
                                                {128, 100, 1000},
                                                {0, 128, 1000},
                                                {1024, 128, 1000},
                                                {512, 128, 1000},
                                                {128, 0, 1000},
                                                {128, 128, -1}}) {
    try {
      global_batch_size_at(batches(ramp), 0);
      FAIL();
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ExitCode::config);
    }
  }
}

}  // namespace
}  // namespace grist
