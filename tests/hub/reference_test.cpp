// transformers' own logits against the independent forward pass and against the imported model.
#include "grist/hub/reference_forward.h"

#include <cmath>

#include "grist/nn/decoder.h"
#include "hub/support.h"

namespace grist::test {
namespace {

// transformers ran in float32; logits are up to 8.
constexpr double kTolerance = 5e-5;

struct Want {
  std::vector<std::int32_t> ids;
  std::vector<float> logits;
  explicit Want(const std::string& name) {
    const SafetensorsReader file(golden(name) / "logits.safetensors");
    const auto numel = [&](const char* tensor) {
      return static_cast<std::size_t>(file.at(tensor).shape.numel());
    };
    ids.resize(numel("input_ids"));
    logits.resize(numel("logits"));
    file.read(file.at("input_ids"), std::as_writable_bytes(std::span(ids)));
    file.read(file.at("logits"), std::as_writable_bytes(std::span(logits)));
  }
};

double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return INFINITY;
  double most = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    most = std::max(most, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  return most;
}

class HubGolden : public ::testing::TestWithParam<std::string> {};

TEST_P(HubGolden, ReferenceForwardGivesTransformersLogits) {
  const Want want(GetParam());
  const auto got = hub::reference_logits(hub::HubFiles(golden(GetParam())),
                                         config_of(golden(GetParam())), want.ids);
  EXPECT_LT(largest_difference(got.logits, want.logits), kTolerance);
}

TEST_P(HubGolden, ImportedModelGivesTransformersLogits) {
  const TemporaryFolder temp;
  const Want want(GetParam());

  const hub::Imported x =
      hub::import_model({.input = golden(GetParam()), .output = temp / "run", .threads = 1});

  ASSERT_TRUE(x.proof.has_value());
  EXPECT_TRUE(x.proof->holds());
  EXPECT_GT(x.proof->largest_logit, 1.0);
  const eval::TrainedModel trained = eval::load_trained_model(temp / "run", {.threads = 1});
  nn::Decoder decoder(*trained.model, static_cast<std::int64_t>(want.ids.size()));
  std::vector<float> logits;
  for (std::size_t i = 0; i < want.ids.size(); ++i) {
    const auto row = decoder.feed(trained.context(), std::span(want.ids).subspan(i, 1));
    logits.insert(logits.end(), row.begin(), row.end());
  }
  EXPECT_LT(largest_difference(logits, want.logits), kTolerance);
}

// A value of config.json that changes the model must show: else the proof would prove nothing.
TEST_P(HubGolden, ReferenceForwardReadsConfigJson) {
  const Want want(GetParam());
  const Json config = config_of(golden(GetParam()));
  const hub::HubFiles files(golden(GetParam()));
  for (const char* key : {"rope_theta", "rms_norm_eps", "norm_topk_prob", "num_experts_per_tok",
                          "routed_scaling_factor", "attention_multiplier"}) {
    Json changed = config;
    if (const Json* old = config.find(key); old == nullptr && std::string(key) != "rope_theta")
      continue;
    else if (std::string(key) == "rope_theta")
      changed.set(key, 1e4);
    else if (old->is_bool())
      changed.set(key, !old->as_bool());
    else if (old->is_int())
      changed.set(key, old->as_int() + 1);
    else
      changed.set(key, old->as_double() * 2 + 0.01);
    const auto got = hub::reference_logits(files, changed, want.ids);
    EXPECT_GT(largest_difference(got.logits, want.logits), 1e-3) << key;
  }
}

INSTANTIATE_TEST_SUITE_P(Transformers, HubGolden, ::testing::ValuesIn(kGoldens),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace grist::test
