// Records, their lines, and reading them back.
#include "grist/record/metrics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <limits>

#include "grist/core/error.h"
#include "grist/core/file.h"
#include "grist/record/console.h"
#include "grist/record/pace.h"
#include "metrics_log.h"
#include "support/temporary_folder.h"

namespace grist::record {
namespace {

StepRecord record() {
  nn::StepStatistics s;
  s.layers.resize(2);
  s.layers[0] = {.counts = {30, 10, 0, 40},
                 .tokens = 40,
                 .dropped = 8,
                 .aux_loss = 0.01,
                 .z_loss = 0.002,
                 .entropy_sum = 40,
                 .top1_share_sum = 20};
  s.layers[1] = {.counts = {20, 20, 20, 20},
                 .tokens = 40,
                 .dropped = 0,
                 .aux_loss = 0.01,
                 .z_loss = 0.002,
                 .entropy_sum = 20,
                 .top1_share_sum = 10};
  StepRecord r;
  r.step = 20;
  r.tokens = 1'234'567;
  r.loss = 3.25;
  r.terms = nn::loss_terms({}, s);
  r.grad_norm = 0.5;
  r.lr = 3e-4;
  r.layers = layer_records(s, 2);
  r.tokens_per_second = 12'345;
  r.flops_per_second = 85.5e9;
  r.peak_fraction = 0.51;
  r.eta_seconds = 125;
  return r;
}

TEST(Metrics, LayersReportTheirBalance) {
  const StepRecord r = record();
  EXPECT_DOUBLE_EQ(r.layers[0].max_vio, 1.0);  // 40 over a mean of 20
  EXPECT_EQ(r.layers[0].dead_experts, 1);
  EXPECT_DOUBLE_EQ(r.layers[0].dropped_fraction, 0.1);
  ASSERT_EQ(r.layers[0].means.size(), 2U);
  EXPECT_EQ(r.layers[0].means[0].name, "entropy");
  EXPECT_DOUBLE_EQ(r.layers[0].means[0].value, 1.0);
  EXPECT_EQ(r.layers[0].means[1].name, "top1_share");
  EXPECT_DOUBLE_EQ(r.layers[0].means[1].value, 0.5);
  EXPECT_DOUBLE_EQ(r.layers[1].max_vio, 0.0);
  EXPECT_DOUBLE_EQ(max_vio(r), 1.0);
  EXPECT_DOUBLE_EQ(dropped_fraction(r), 0.05);
}

TEST(Metrics, TheRecordHasTheNamesThatScriptsRelyOn) {
  const Json j = to_json(record());
  for (const char* key : {"step", "tokens", "loss", "aux_loss", "z_loss", "grad_norm", "lr",
                          "tokens_per_second", "max_vio", "dropped_fraction"}) {
    EXPECT_NE(j.find(key), nullptr) << key;
  }
  EXPECT_EQ(Json::parse(j.dump(), "line"), j);
}

TEST(Metrics, TheConsoleLineSaysEverythingOnce) {
  EXPECT_EQ(console_line(record(), 100),
            "step 20/100 | tokens 1.23M | loss 3.2500 | aux 0.0200 | z 0.0040 | grad norm 0.500 | "
            "lr 3.00e-04 | 12.3k tok/s | 85.5 GFLOP/s (51 % of "
            "peak) | MaxVio 1.00 | dropped 5.00 % | ETA 2m05s");
}

std::vector<ValidationSum> two_sets() {
  return {{.name = "a", .loss_sum = 300, .tokens = 100, .all_tokens = 110, .bytes = 400},
          {.name = "b", .loss_sum = 100, .tokens = 100, .all_tokens = 100, .bytes = 0}};
}

TEST(Metrics, ValidationIsWeightedByTokensAndSpeaksOfBytesWhenKnown) {
  std::vector<ValidationSum> sums = two_sets();
  const Json j = to_json(validation_record(sums));
  EXPECT_DOUBLE_EQ(j.at("val_loss").as_double(), 2.0);
  EXPECT_EQ(j.at("val_tokens").as_int(), 200);
  EXPECT_EQ(j.find("val_bits_per_byte"), nullptr);
  EXPECT_DOUBLE_EQ(j.at("val").at("a").at("loss").as_double(), 3.0);
  sums.pop_back();
  EXPECT_NEAR(to_json(validation_record(sums)).at("val_bits_per_byte").as_double(),
              3.0 * 110 / 0.6931471805599453 / 400, 1e-12);
}

TEST(ReadMetrics, GivesBackWhatWasWritten) {
  const test::TemporaryFolder folder;
  StepRecord odd = record();
  odd.grad_norm = std::numeric_limits<double>::quiet_NaN();
  odd.layers.clear();
  ValidationRecord validation = validation_record(two_sets());
  validation.step = 20;
  {
    MetricsLog log(folder.path() / "metrics.jsonl", 0);
    log.write(record());
    log.write(validation);
    log.write(odd);
  }
  const std::vector<Record> read = read_metrics(folder.path() / "metrics.jsonl");

  ASSERT_EQ(read.size(), 3U);
  EXPECT_EQ(to_json(std::get<StepRecord>(read[0])).dump(), to_json(record()).dump());
  EXPECT_EQ(to_json(std::get<ValidationRecord>(read[1])).dump(), to_json(validation).dump());
  EXPECT_EQ(to_json(std::get<StepRecord>(read[2])).dump(), to_json(odd).dump());
  EXPECT_TRUE(std::isnan(std::get<StepRecord>(read[2]).grad_norm));
  ASSERT_EQ(std::get<StepRecord>(read[0]).terms.size(), 2U);
  EXPECT_EQ(std::get<StepRecord>(read[0]).terms[1].name, "z_loss");
}

TEST(ReadMetrics, TakesLinesOfOtherVersionsAndLeavesOutATornOne) {
  const test::TemporaryFolder folder;
  const auto path = folder.path() / "metrics.jsonl";
  write_text_atomically(path, "{\"step\":7,\"loss\":2,\"mood\":\"good\"}\n{\"step\":8,\"lo");
  const std::vector<Record> read = read_metrics(path);
  ASSERT_EQ(read.size(), 1U);
  EXPECT_EQ(std::get<StepRecord>(read[0]).step, 7);
  EXPECT_EQ(std::get<StepRecord>(read[0]).loss, 2.0);
}

TEST(ReadMetrics, NamesTheLineThatIsNoRecord) {
  const test::TemporaryFolder folder;
  const auto path = folder.path() / "metrics.jsonl";
  write_text_atomically(path, "{\"step\":1,\"loss\":2}\n{\"loss\":3}\n");
  try {
    read_metrics(path);
    FAIL() << "it was read";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ExitCode::bad_data);
    EXPECT_NE(std::string(e.what()).find("metrics.jsonl: line 2"), std::string::npos) << e.what();
  }
}

StepRecord at(std::int64_t step, std::int64_t tokens) {
  StepRecord r;
  r.step = step;
  r.tokens = tokens;
  return r;
}

TEST(Pace, CountsTrainingTimeAlone) {
  Pace pace(100);
  pace.set_peak_flops(1e6);
  const Pace::Clock::time_point begin{};
  pace.start(10, 1000, begin);
  pace.leave_out(std::chrono::seconds(2));
  StepRecord r = at(12, 5000);
  pace.fill(r, 22, begin + std::chrono::seconds(4));
  EXPECT_DOUBLE_EQ(r.seconds, 2);
  EXPECT_DOUBLE_EQ(r.tokens_per_second, 2000);
  EXPECT_DOUBLE_EQ(r.flops_per_second, 2e5);
  EXPECT_DOUBLE_EQ(r.peak_fraction, 0.2);
  EXPECT_DOUBLE_EQ(r.eta_seconds, 10);
}

TEST(Pace, NoStepIsFasterThanThePeak) {
  Pace pace(100);
  pace.set_peak_flops(1e5);
  const Pace::Clock::time_point begin{};
  pace.start(0, 0, begin);
  StepRecord fast = at(1, 2000), slow = at(2, 3000);
  pace.fill(fast, 2, begin + std::chrono::seconds(1));
  pace.fill(slow, 2, begin + std::chrono::seconds(2));
  EXPECT_DOUBLE_EQ(fast.peak_fraction, 1);
  EXPECT_DOUBLE_EQ(slow.peak_fraction, 0.5);
  EXPECT_DOUBLE_EQ(pace.peak_flops(), 2e5);
}

}  // namespace
}  // namespace grist::record
