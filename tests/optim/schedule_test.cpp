#include "grist/optim/schedule.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>

#include "grist/core/error.h"

namespace grist {
namespace {

OptimConfig rates(LrDecayStyle style, std::int64_t warmup) {
  OptimConfig c;
  c.lr = 1.0;
  c.min_lr = 0.1;
  c.lr_decay_style = style;
  c.lr_warmup_iters = warmup;
  return c;
}

TEST(LearningRate, WarmsUpLinearlyFromZero) {
  for (const LrDecayStyle style : all_words<LrDecayStyle>()) {
    const OptimConfig c = rates(style, 4);
    for (std::int64_t step = 1; step <= 4; ++step)
      EXPECT_DOUBLE_EQ(learning_rate(c, step, 100), 0.25 * static_cast<double>(step))
          << word(style);
  }
}

TEST(LearningRate, CosineGoesFromPeakToMinimum) {
  const OptimConfig c = rates(LrDecayStyle::cosine, 10);
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
  EXPECT_DOUBLE_EQ(learning_rate(rates(LrDecayStyle::linear, 0), 25, 100), 0.1 + 0.9 * 0.75);
  EXPECT_DOUBLE_EQ(learning_rate(rates(LrDecayStyle::linear, 0), 100, 100), 0.1);
  EXPECT_DOUBLE_EQ(learning_rate(rates(LrDecayStyle::constant, 0), 1, 100), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate(rates(LrDecayStyle::constant, 0), 1000, 100), 1.0);
}

TEST(LearningRate, WsdHoldsThePeakThenDecaysLinearly) {
  OptimConfig c = rates(LrDecayStyle::wsd, 10);
  c.lr_wsd_decay_iters = 20;
  EXPECT_DOUBLE_EQ(learning_rate(c, 11, 100), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate(c, 80, 100), 1.0);
  EXPECT_DOUBLE_EQ(learning_rate(c, 85, 100), 0.1 + 0.9 * 0.75);
  EXPECT_DOUBLE_EQ(learning_rate(c, 100, 100), 0.1);
  EXPECT_DOUBLE_EQ(learning_rate(c, 101, 100), 0.1);
}

TEST(LearningRate, DecayMayEndBeforeOrAfterTheRun) {
  OptimConfig c = rates(LrDecayStyle::linear, 0);
  c.lr_decay_iters = 50;
  EXPECT_DOUBLE_EQ(learning_rate(c, 50, 100), 0.1);
  EXPECT_DOUBLE_EQ(learning_rate(c, 51, 100), 0.1);
  c.lr_decay_iters = 200;
  EXPECT_DOUBLE_EQ(learning_rate(c, 100, 100), 0.55);
}

TEST(LearningRate, IsFiniteAtEveryEdge) {
  for (const LrDecayStyle style : all_words<LrDecayStyle>()) {
    for (const std::int64_t warmup : {0, 1, 5, 10}) {
      for (const std::int64_t end : {1, 5, 10}) {
        OptimConfig c = rates(style, warmup);
        c.lr_wsd_decay_iters = end;
        for (std::int64_t step = 1; step <= 12; ++step) {
          const double lr = learning_rate(c, step, end);
          EXPECT_TRUE(0.0 < lr && lr <= 1.0)
              << word(style) << " " << warmup << " " << end << " " << step;
        }
      }
    }
  }
}

TEST(LearningRate, CountsStepsFromOne) {
  EXPECT_THROW(learning_rate(rates(LrDecayStyle::cosine, 0), 0, 10), Error);
}

}  // namespace
}  // namespace grist
