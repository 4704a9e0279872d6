#pragma once
// The benchmarks, as lm-evaluation-harness 0.4.13 asks their questions: which files they need, and
// what a row of them becomes. docs/evaluation.md has the table for people.
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "grist/core/json.h"

namespace grist::eval {

// One question with its possible answers.
struct Item {
  std::vector<std::string> contexts{};  // one, or one a choice (then the choices are one text)
  std::vector<std::string> choices{};   // what is scored behind a context and a space
  std::int64_t gold = 0;                // the right choice
  std::vector<bool> is_true{};          // TruthfulQA mc2: of each choice; else empty
  std::string example{};                // the question answered, as others see it as few-shot
};

// How few-shot examples are chosen for a question.
enum class Draw : std::uint8_t {
  none,      // the prompt is fixed
  sample,    // random.sample of k rows of the pool
  one_more,  // of k + 1; the question itself is left out, else the last one
  first      // the first k rows of the pool
};

struct DataFile {  // <stem>.jsonl in the data folder, and where the hub has it
  std::string_view stem{};
  std::string_view dataset{}, config{}, split{};
};

struct Task {
  std::string_view name{};
  Item (*item)(const Json& row) = nullptr;  // throws Error{bad_data} without saying where
  DataFile questions{};
  DataFile pool{};  // of few-shot examples; may be the questions' file
  Draw draw = Draw::sample;
  bool acc_norm = false;                     // is reported too
  std::string_view subject_key{};            // MMLU: rows are cut into subtasks by this column
  double version = 1;                        // the harness's number of the prompt
  Item (*cloze)(const Json& row) = nullptr;  // answers in words where `item` asks for letters
};

std::span<const Task> all_tasks();  // in alphabetical order
// "all", or names with commas between; each once, in the table's order. Error{usage} names the
// tasks that there are.
std::vector<const Task*> find_tasks(std::string_view names);

// MMLU's four groups of subjects, by the harness's names; empty for a subject that it does not
// have.
std::string_view mmlu_group(std::string_view subject);

}  // namespace grist::eval
