#pragma once
// A task's files as prompts: few-shot examples in front, drawn as lm-evaluation-harness draws them.
#include <filesystem>
#include <string>
#include <vector>

#include "tasks.h"

namespace grist::eval {

struct Prompt {
  Item item{};          // contexts with all that stands in front
  std::string where{};  // FILE:LINE
};

// What gets numbers of its own: a task, or one subject of MMLU.
struct PromptSet {
  std::string name{}, alias{};
  const Task* task = nullptr;
  std::int64_t num_fewshot = 0;
  std::int64_t num_rows = 0;  // before the limit
  std::vector<Prompt> prompts{};
};

struct PromptOptions {
  std::filesystem::path data{};
  std::int64_t num_fewshot = 0;
  std::int64_t limit = 0;  // questions of a set; 0: all
  bool cloze = false;      // the task's `cloze` form
};

// Throws Error{not_found} for files, Error{bad_data} for rows, Error{usage} when the pool has too
// few examples.
std::vector<PromptSet> make_prompts(const Task& task, const PromptOptions& options);

}  // namespace grist::eval
