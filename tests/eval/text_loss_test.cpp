// Whole texts against lm-evaluation-harness's loglikelihood_rolling (tests/golden/eval).
#include "grist/eval/text_loss.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "eval/golden.h"
#include "grist/core/error.h"
#include "support/temporary_folder.h"

namespace grist::eval {
namespace {

const std::filesystem::path kTexts = test::golden_folder() / "texts.jsonl";

TEST(TextLoss, EveryTextIsWithinAThousandthOfTheHarness) {
  const TrainedModel trained = test::golden_model();
  const Json::Array& want = test::golden_expected().at("rolling").as_array();
  const std::string file = read_text(kTexts);
  const test::TemporaryFolder folder;
  double sum = 0;
  std::size_t at = 0;
  for (const Json& value : want) {
    const std::size_t end = file.find('\n', at);
    const auto one = folder.write("one.jsonl", file.substr(at, end + 1 - at));
    at = end + 1;
    const TextLoss loss = text_losses(trained, {.sources = {one.string()}})[0];
    EXPECT_NEAR(-loss.nats, value.as_double(), 1e-3 * std::max(1.0, loss.nats / 1000));
    EXPECT_EQ(loss.documents, 1);
    sum -= value.as_double();
  }
  EXPECT_EQ(want.size(), 10U);

  const TextLoss all = text_losses(trained, {.sources = {kTexts.string()}})[0];
  EXPECT_NEAR(all.nats, sum, 0.01);
  EXPECT_DOUBLE_EQ(all.perplexity(), std::exp(all.nats / static_cast<double>(all.tokens)));
  EXPECT_DOUBLE_EQ(all.bits_per_byte(), all.nats / std::log(2.0) / static_cast<double>(all.bytes));
}

TEST(TextLoss, HasTheSameBitsForAnyBatchAndThreads) {
  const TrainedModel trained = test::golden_model(), one = test::golden_model(1);
  const double want = text_losses(trained, {.sources = {kTexts.string()}})[0].nats;
  for (const std::int64_t batch : {1, 100, 1000000})
    EXPECT_EQ(text_losses(one, {.sources = {kTexts.string()}, .batch_tokens = batch})[0].nats, want)
        << batch;
}

TEST(TextLoss, RefusesNothingToPredictAndNoNumbers) {
  const TrainedModel trained = test::golden_model();
  const test::TemporaryFolder folder;
  const auto empty = folder.write("empty.jsonl", "{\"text\": \"\"}\n");
  const auto code = [&](const TextLossOptions& options) {
    try {
      text_losses(trained, options);
    } catch (const Error& e) {
      return e.code();
    }
    return ExitCode::ok;
  };
  EXPECT_EQ(code({.sources = {empty.string()}}), ExitCode::bad_data);
  EXPECT_EQ(code({.sources = {kTexts.string()}, .text_key = "body"}), ExitCode::bad_data);
  trained.model->parameters().final_norm.master.as<float>()[0] =
      std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(code({.sources = {kTexts.string()}}), ExitCode::numeric);
}

}  // namespace
}  // namespace grist::eval
