// Benchmarks against lm-evaluation-harness 0.4.13: every prompt, log-likelihood and metric on
// invented questions (tests/golden/eval, made by scripts/make_eval_golden.py).
#include <gtest/gtest.h>

#include <cmath>

#include "eval/golden.h"
#include "grist/core/hash.h"
#include "grist/eval/evaluate.h"

namespace grist::eval {
namespace {

// Every prompt and choice of a question, as the script hashes them.
std::string digest(const Sample& s) {
  std::string all;
  for (std::size_t i = 0; i < s.choices.size(); ++i) {
    if (i > 0) all += '\0';
    all += s.contexts[s.contexts.size() > 1 ? i : 0];
    all += '\0';
    all += ' ' + s.choices[i].text;
  }
  return hash_hex(hash64(all));
}

// One test, for every one of them would evaluate again.
class Harness : public ::testing::TestWithParam<int> {
 protected:
  Harness()
      : result_(evaluate(trained_, {.data = test::golden_folder(), .num_fewshot = GetParam()})),
        expected_(test::golden_expected().at(std::to_string(GetParam()) + "_shot")) {}
  const Evaluation& result() const { return result_; }
  const Json& expected() const { return expected_; }
  void expect_prompts() const;
  void expect_log_likelihoods() const;
  void expect_all_metrics() const;
  void expect_report() const;

  const TrainedModel trained_ = test::golden_model();
  const Evaluation result_;
  const Json& expected_;
};

void Harness::expect_prompts() const {
  const Json& samples = expected().at("samples");
  EXPECT_EQ(result().tasks.size(), samples.as_object().size());

  for (const TaskResult& t : result().tasks) {
    const Json::Array& want = samples.at(t.name).as_array();
    ASSERT_EQ(t.samples.size(), want.size()) << t.name;
    for (std::size_t i = 0; i < want.size(); ++i)
      EXPECT_EQ(digest(t.samples[i]), want[i].as_array()[1].as_string())
          << t.name << " question " << i << ": " << t.samples[i].contexts[0];
  }
}

void Harness::expect_log_likelihoods() const {
  int compared = 0;
  for (const TaskResult& t : result().tasks) {
    const Json::Array& want = expected().at("samples").at(t.name).as_array();
    for (std::size_t i = 0; i < want.size(); ++i) {
      const Json::Array& values = want[i].as_array()[2].as_array();
      ASSERT_EQ(t.samples[i].choices.size(), values.size()) << t.name << " question " << i;
      for (std::size_t c = 0; c < values.size(); ++c, ++compared)
        EXPECT_NEAR(t.samples[i].choices[c].log_likelihood, values[c].as_double(), 1e-3)
            << t.name << " question " << i << " choice " << c;
    }
  }
  EXPECT_GT(compared, 1500);
}

void expect_metrics(const std::string& name, const std::vector<Metric>& metrics, const Json& want) {
  for (const Metric& m : metrics) {
    if (m.name == "bits_per_byte") continue;  // the harness has none
    // A mean of probabilities is as exact as they are; one of zeros and ones is exact.
    const double tolerance = name == "truthfulqa_mc2" ? 1e-5 : 1e-12;
    EXPECT_NEAR(m.value, want.at(m.name + ",none").as_double(), tolerance) << name << " " << m.name;
    ASSERT_TRUE(m.standard_error.has_value()) << name;
    EXPECT_NEAR(*m.standard_error, want.at(m.name + "_stderr,none").as_double(), tolerance)
        << name << " " << m.name;
  }
}

void Harness::expect_all_metrics() const {
  const Json& want = expected().at("results");
  std::size_t seen = 0;
  for (const TaskResult& t : result().tasks) {
    expect_metrics(t.name, t.metrics, want.at(t.name));
    EXPECT_EQ(t.alias, want.at(t.name).at("alias").as_string());
    EXPECT_EQ(t.num_fewshot, expected().at("n-shot").at(t.name).as_int()) << t.name;
    EXPECT_EQ(t.num_rows, expected().at("n-samples").at(t.name).at("original").as_int());
    const bool norm = want.at(t.name).find("acc_norm,none") != nullptr;
    EXPECT_EQ(t.samples[0].acc_norm.has_value(), norm) << t.name;
    ++seen;
  }
  for (const GroupResult& g : result().groups) {
    expect_metrics(g.name, g.metrics, want.at(g.name));
    EXPECT_EQ(g.metrics[0].count, want.at(g.name).at("sample_count").at("acc,none").as_int());
    ++seen;
  }
  EXPECT_EQ(seen, want.as_object().size());
}

void Harness::expect_report() const {
  const Json report = results_json(result(), trained_, {.num_fewshot = GetParam()});

  for (const char* key : {"results", "groups", "group_subtasks", "n-shot", "n-samples"}) {
    for (const auto& [name, value] : expected().at(key).as_object()) {
      const Json* ours = report.at(key).find(name);
      if (std::string_view(key) == "n-shot" && name.find("mmlu") == 0 && ours == nullptr) continue;
      ASSERT_NE(ours, nullptr) << key << " " << name;
      if (!value.is_object()) continue;
      for (const auto& [field, unused] : value.as_object())
        EXPECT_NE(ours->find(field), nullptr) << key << " " << name << " " << field;
    }
  }
}

TEST_P(Harness, EveryPromptScoreAndMetricIsTheSame) {
  expect_prompts();
  expect_log_likelihoods();
  expect_all_metrics();
  expect_report();
}

INSTANTIATE_TEST_SUITE_P(Shots, Harness, ::testing::Values(0, 3));

}  // namespace
}  // namespace grist::eval
