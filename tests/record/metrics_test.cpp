// Records, console lines and the log file that is cut on resume.
#include "grist/record/metrics.h"

#include <gtest/gtest.h>

#include <filesystem>

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

TEST(Metrics, ValidationIsWeightedByTokensAndSpeaksOfBytesWhenKnown) {
  ValidationRecord v;
  v.step = 5;
  v.sets = {{.name = "a", .loss_sum = 300, .tokens = 100, .all_tokens = 110, .bytes = 400},
            {.name = "b", .loss_sum = 100, .tokens = 100, .bytes = 0}};
  const Json j = to_json(v);
  EXPECT_DOUBLE_EQ(j.at("val_loss").as_double(), 2.0);
  EXPECT_EQ(j.at("val_tokens").as_int(), 200);
  EXPECT_EQ(j.find("val_bits_per_byte"), nullptr);
  EXPECT_DOUBLE_EQ(j.at("val").at("a").at("loss").as_double(), 3.0);
  v.sets.pop_back();
  EXPECT_NEAR(to_json(v).at("val_bits_per_byte").as_double(), 3.0 * 110 / 0.6931471805599453 / 400,
              1e-12);
}

TEST(MetricsLog, CutsBehindTheCheckpointAndKeepsTheTailBeside) {
  const test::TemporaryFolder folder;
  const auto path = folder.path() / "metrics.jsonl";
  std::uint64_t kept = 0;
  {
    MetricsLog log(path, 0);
    log.append(Json::parse(R"({"step": 1})", "t"));
    kept = log.bytes();
    log.append(Json::parse(R"({"step": 2})", "t"));
  }
  {
    MetricsLog log(path, kept);
    EXPECT_EQ(log.bytes(), kept);
    log.append(Json::parse(R"({"step": 2, "again": true})", "t"));
  }
  EXPECT_EQ(read_text(path), "{\"step\": 1}\n{\"step\": 2, \"again\": true}\n");
  EXPECT_EQ(read_text(path.string() + ".tail-1"), "{\"step\": 2}\n");
}

}  // namespace
}  // namespace grist::record
