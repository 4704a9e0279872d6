#pragma once
// Benchmarks of a trained model, as lm-evaluation-harness 0.4.13 defines them: the same prompts,
// log-likelihoods and metrics. docs/evaluation.md says what is followed and what is added.
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "grist/comm/communicator.h"
#include "grist/core/json.h"
#include "grist/eval/trained_model.h"

namespace grist::eval {

struct EvaluateOptions {
  std::string tasks = "all";            // names with commas between
  std::filesystem::path data{};         // folder of the JSONL files
  std::int64_t num_fewshot = 0;         // examples in front of each question
  std::int64_t limit = 0;               // questions of a task, the first ones; 0: all
  bool cloze = false;                   // answers in words where the harness asks for letters
  bool bos = false;                     // the tokenizer's bos_token in front of every text
  std::int64_t batch_tokens = 2048;     // computed at a time
  comm::Communicator* world = nullptr;  // ranks that share the work; null: this one alone
};

struct ScoredChoice {
  std::string text{};         // without the separator
  double log_likelihood = 0;  // nats, of the separator too
};

struct Sample {
  std::int64_t doc_id = 0;              // row of the file, or of the subject, from 0
  std::vector<std::string> contexts{};  // one, or one a choice
  std::vector<ScoredChoice> choices{};
  std::int64_t gold = 0;
  double acc = 0;
  std::optional<double> acc_norm{}, bits_per_byte{};
};

// A mean over samples and its standard error: sample deviation / sqrt(count); none of one sample.
struct Metric {
  std::string name{};
  double value = 0;
  std::optional<double> standard_error{};
  std::int64_t count = 0;
};

struct TaskResult {
  std::string name{}, alias{};
  double version = 0;
  std::int64_t num_fewshot = 0, num_rows = 0;
  std::vector<Sample> samples{};
  std::vector<Metric> metrics{};
};

// The mean over subtasks, each weighted by its number of questions.
struct GroupResult {
  std::string name{}, alias{};
  std::vector<std::string> subtasks{};
  std::vector<Metric> metrics{};
};

struct Evaluation {
  std::vector<TaskResult> tasks{};
  std::vector<GroupResult> groups{};
  // Means over the eleven benchmarks, when all were asked: of acc, and of acc_norm where a task has
  // it. TruthfulQA counts once, as mc2.
  std::vector<Metric> averages{};
  std::int64_t tokens = 0, computed_tokens = 0, truncated = 0;  // requests', the model's; requests
  double seconds = 0;
};

// Throws Error{usage}, Error{not_found}, Error{bad_data}; Error{numeric} when a log-likelihood is
// not finite; Error{preempted} by a signal. With several ranks all call it and get the same, to the
// bit what one gets.
Evaluation evaluate(const TrainedModel& trained, const EvaluateOptions& options);

// ---- reports -----------------------------------------------------------------------------------

std::string results_table(const Evaluation& e);
// As lm-evaluation-harness writes results: `results`, `groups`, `versions`, `n-shot`,
// `n-samples`...
Json results_json(const Evaluation& e, const TrainedModel& trained, const EvaluateOptions& options);
// One line a question: {"task", "doc_id", "gold", "contexts", "choices", "log_likelihoods", "acc",
// ...}.
std::string samples_jsonl(const Evaluation& e);

// Two files of samples of the same questions: for every task and metric the difference of the means
// and its paired standard error. Throws Error{not_found}, Error{bad_data}.
std::string compare_samples(const std::filesystem::path& a, const std::filesystem::path& b);

}  // namespace grist::eval
