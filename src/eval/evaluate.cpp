#include "grist/eval/evaluate.h"

#include <algorithm>
#include <chrono>

#include "grist/core/check.h"
#include "grist/core/log.h"
#include "likelihood.h"
#include "metrics.h"
#include "prompts.h"
#include "rows.h"

namespace grist::eval {

namespace {

void check_options(const EvaluateOptions& o) {
  if (o.num_fewshot < 0)
    fail(ExitCode::usage, "--num-fewshot {}: must be 0 or more", o.num_fewshot);
  if (o.limit < 0) fail(ExitCode::usage, "--limit {}: must be 0 (all) or more", o.limit);
  if (o.batch_tokens < 1 || o.batch_tokens > (1 << 24))
    fail(ExitCode::usage, "--batch-tokens {}: must be 1 to 2^24", o.batch_tokens);
}

void check_files(const std::vector<const Task*>& tasks, const EvaluateOptions& o) {
  std::vector<DataFile> files;
  for (const Task* t : tasks) {
    files.push_back(t->questions);
    if (o.num_fewshot > 0 && t->draw != Draw::none) files.push_back(t->pool);
  }
  want_files(o.data, files);
}

// Every choice of a task's questions, in order.
struct Questions {
  std::vector<const Prompt*> prompts{};  // of each request
  std::vector<std::string> continuations{};
  std::vector<Request> requests{};

  explicit Questions(const std::vector<PromptSet>& sets) {
    for (const PromptSet& set : sets) {
      for (const Prompt& p : set.prompts) {
        for (const std::string& choice : p.item.choices) {
          prompts.push_back(&p);
          continuations.push_back(' ' + choice);
        }
      }
    }
    for (std::size_t i = 0, choice = 0; i < prompts.size(); ++i) {
      choice = i > 0 && prompts[i] == prompts[i - 1] ? choice + 1 : 0;
      const std::vector<std::string>& contexts = prompts[i]->item.contexts;
      requests.push_back({contexts[contexts.size() > 1 ? choice : 0], continuations[i]});
    }
  }
};

// Takes as many scores as it has choices.
Sample sample_of(const Prompt& prompt, const double*& scores, bool acc_norm) {
  Sample s;
  s.contexts = prompt.item.contexts;
  s.gold = prompt.item.gold;
  for (const std::string& choice : prompt.item.choices) s.choices.push_back({choice, *scores++});
  judge(s, prompt.item, acc_norm);
  return s;
}

void run_task(const TrainedModel& trained, const Task& task, const std::vector<PromptSet>& sets,
              const EvaluateOptions& o, Evaluation& out) {
  const Questions questions(sets);
  const Likelihoods scores = score_requests(
      trained, questions.requests, {.batch_tokens = o.batch_tokens, .world = o.world, .bos = o.bos},
      std::string(task.name), [&](std::size_t i) { return questions.prompts[i]->where; });
  out.tokens += scores.tokens;
  out.computed_tokens += scores.computed;
  out.truncated += scores.truncated;
  const double* at = scores.values.data();
  for (const PromptSet& set : sets) {
    TaskResult r;
    r.name = set.name;
    r.alias = set.alias;
    r.version = task.version;
    r.num_fewshot = set.num_fewshot;
    r.num_rows = set.num_rows;
    for (const Prompt& p : set.prompts) {
      r.samples.push_back(sample_of(p, at, task.acc_norm));
      r.samples.back().doc_id = std::ssize(r.samples) - 1;
    }
    r.metrics = metrics_of(r.samples);
    out.tasks.push_back(std::move(r));
  }
}

GroupResult group_of(const std::string& name, const std::string& alias,
                     const std::vector<std::string>& children,
                     const std::vector<const TaskResult*>& subtasks) {
  return {name, alias, children, pooled(subtasks)};
}

// MMLU's subjects by group, and all of them; only groups that have one.
void add_groups(Evaluation& e, std::size_t first) {
  std::vector<std::string> present;
  std::vector<const TaskResult*> all;
  for (const char* group : {"mmlu_humanities", "mmlu_social_sciences", "mmlu_other", "mmlu_stem"}) {
    std::vector<const TaskResult*> subtasks;
    std::vector<std::string> names;
    for (std::size_t i = first; i < e.tasks.size(); ++i) {
      if (mmlu_group(e.tasks[i].alias) != group) continue;
      subtasks.push_back(&e.tasks[i]);
      names.push_back(e.tasks[i].name);
    }
    if (subtasks.empty()) continue;
    const std::string name = group;
    present.push_back(name);
    std::string alias = name.substr(sizeof("mmlu"));
    std::replace(alias.begin(), alias.end(), '_', ' ');
    e.groups.push_back(group_of(name, alias, names, subtasks));
    all.insert(all.end(), subtasks.begin(), subtasks.end());
  }
  e.groups.push_back(group_of("mmlu", "mmlu", present, all));
}

void add_averages(Evaluation& e, std::size_t tasks_asked) {
  if (tasks_asked != all_tasks().size()) return;
  std::vector<double> acc, normed;
  const auto add = [&](const std::vector<Metric>& metrics) {
    const Metric* norm = find_metric(metrics, "acc_norm");
    acc.push_back(find_metric(metrics, "acc")->value);
    normed.push_back(norm != nullptr ? norm->value : acc.back());
  };
  for (const TaskResult& t : e.tasks)
    if (!t.name.starts_with("mmlu_") && t.name != "truthfulqa_mc1") add(t.metrics);
  add(e.groups.back().metrics);
  for (const auto& [name, values] : {std::pair{"acc", acc}, std::pair{"acc_norm", normed}}) {
    Metric m = *mean_of(name, values);
    m.standard_error.reset();  // the spread of tasks is no error of measurement
    e.averages.push_back(m);
  }
}

}  // namespace

Evaluation evaluate(const TrainedModel& trained, const EvaluateOptions& options) {
  check_options(options);
  const std::vector<const Task*> tasks = find_tasks(options.tasks);
  check_files(tasks, options);
  const auto start = std::chrono::steady_clock::now();
  Evaluation out;
  for (const Task* task : tasks) {
    const std::vector<PromptSet> sets =
        make_prompts(*task, {options.data, options.num_fewshot, options.limit, options.cloze});
    const std::size_t first = out.tasks.size();
    run_task(trained, *task, sets, options, out);
    if (!task->subject_key.empty()) add_groups(out, first);
  }
  add_averages(out, tasks.size());
  out.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (out.truncated > 0)
    log::warn("{} requests are longer than the model's {} positions and lost their beginning",
              out.truncated, trained.config.model.max_position_embeddings);
  return out;
}

}  // namespace grist::eval
