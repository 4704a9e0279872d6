// What an evaluation looks like: a table, lm-evaluation-harness's JSON, lines of samples.
#include <fmt/format.h>

#include <cmath>

#include "grist/eval/evaluate.h"
#include "metrics.h"

namespace grist::eval {

namespace {

std::string metric_line(const std::string& name, const std::string& shots, const Metric& m) {
  const std::string error = m.standard_error ? fmt::format("{:.4f}", *m.standard_error) : "n/a";
  return fmt::format("{:<40} {:>6} {:<14} {:>8.4f} {:>8} {:>7}\n", name, shots, m.name, m.value,
                     error, m.count);
}

void add_metrics(Json& to, const std::vector<Metric>& metrics) {
  for (const Metric& m : metrics) {
    to.set(m.name + ",none", m.value);
    to.set(m.name + "_stderr,none", m.standard_error ? Json(*m.standard_error) : Json("N/A"));
  }
}

Json group_json(const GroupResult& g) {
  Json out = Json::object();
  out.set("name", g.name);
  out.set("alias", g.alias);
  out.set("sample_len", g.metrics.empty() ? 0 : g.metrics[0].count);
  add_metrics(out, g.metrics);
  Json counts = Json::object();
  for (const Metric& m : g.metrics) counts.set(m.name + ",none", m.count);
  out.set("sample_count", std::move(counts));
  return out;
}

Json run_json(const TrainedModel& trained, const EvaluateOptions& o) {
  Json out = Json::object();
  out.set("model", "grist");
  out.set("model_args", "checkpoint=" + trained.checkpoint.string());
  out.set("batch_tokens", o.batch_tokens);
  out.set("limit", o.limit > 0 ? Json(o.limit) : Json());
  out.set("fewshot_seed", 1234);
  out.set("cloze", o.cloze);
  out.set("add_bos_token", o.bos);
  return out;
}

Json higher_is_better(const std::vector<Metric>& metrics) {
  Json out = Json::object();
  for (const Metric& m : metrics) out.set(m.name, m.name != "bits_per_byte");
  return out;
}

}  // namespace

std::string results_table(const Evaluation& e) {
  std::string out = fmt::format("{:<40} {:>6} {:<14} {:>8} {:>8} {:>7}\n", "task", "n-shot",
                                "metric", "value", "stderr", "items");
  for (const TaskResult& t : e.tasks)
    for (const Metric& m : t.metrics) out += metric_line(t.name, std::to_string(t.num_fewshot), m);
  for (const GroupResult& g : e.groups)
    for (const Metric& m : g.metrics) out += metric_line(g.name, "", m);
  for (const Metric& m : e.averages) out += metric_line("average of the eleven", "", m);
  return out;
}

Json results_json(const Evaluation& e, const TrainedModel& trained,
                  const EvaluateOptions& options) {
  Json results = Json::object(), groups = Json::object(), subtasks = Json::object(),
       versions = Json::object(), shots = Json::object(), better = Json::object(),
       counts = Json::object();
  for (const TaskResult& t : e.tasks) {
    Json r = Json::object();
    r.set("name", t.name);
    r.set("alias", t.alias);
    r.set("sample_len", std::ssize(t.samples));
    add_metrics(r, t.metrics);
    results.set(t.name, std::move(r));
    versions.set(t.name, t.version);
    shots.set(t.name, t.num_fewshot);
    better.set(t.name, higher_is_better(t.metrics));
    Json n = Json::object();
    n.set("original", t.num_rows);
    n.set("effective", std::ssize(t.samples));
    counts.set(t.name, std::move(n));
  }
  for (const GroupResult& g : e.groups) {
    results.set(g.name, group_json(g));
    groups.set(g.name, group_json(g));
    Json names = Json::array();
    for (const std::string& n : g.subtasks) names.push_back(n);
    subtasks.set(g.name, std::move(names));
    versions.set(g.name, 2);
    better.set(g.name, higher_is_better(g.metrics));
  }
  Json out = Json::object();
  out.set("results", std::move(results));
  if (!e.groups.empty()) out.set("groups", std::move(groups));
  out.set("group_subtasks", std::move(subtasks));
  out.set("versions", std::move(versions));
  out.set("n-shot", std::move(shots));
  out.set("higher_is_better", std::move(better));
  out.set("n-samples", std::move(counts));
  if (!e.averages.empty()) {
    Json average = Json::object();
    for (const Metric& m : e.averages) average.set(m.name, m.value);
    out.set("average", std::move(average));
  }
  out.set("config", run_json(trained, options));
  out.set("model_name", trained.checkpoint.string());
  out.set("max_length", trained.config.model.max_position_embeddings);
  out.set("step", trained.step);
  out.set("tokens", e.tokens);
  out.set("computed_tokens", e.computed_tokens);
  out.set("truncated_requests", e.truncated);
  out.set("total_evaluation_time_seconds", fmt::format("{:.3f}", e.seconds));
  return out;
}

std::string samples_jsonl(const Evaluation& e) {
  std::string out;
  for (const TaskResult& t : e.tasks) {
    for (const Sample& s : t.samples) {
      Json line = Json::object();
      line.set("task", t.name);
      line.set("doc_id", s.doc_id);
      line.set("gold", s.gold);
      Json contexts = Json::array(), choices = Json::array(), values = Json::array();
      for (const std::string& c : s.contexts) contexts.push_back(c);
      for (const ScoredChoice& c : s.choices) {
        choices.push_back(c.text);
        values.push_back(c.log_likelihood);
      }
      line.set("contexts", std::move(contexts));
      line.set("choices", std::move(choices));
      line.set("log_likelihoods", std::move(values));
      line.set("acc", s.acc);
      if (s.acc_norm) line.set("acc_norm", *s.acc_norm);
      if (s.bits_per_byte) line.set("bits_per_byte", *s.bits_per_byte);
      out += line.dump() + "\n";
    }
  }
  return out;
}

}  // namespace grist::eval
