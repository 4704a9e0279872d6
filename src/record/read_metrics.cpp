// metrics.jsonl, read back.
#include <limits>

#include "grist/core/check.h"
#include "grist/core/file.h"
#include "grist/record/metrics.h"

namespace grist::record {

namespace {

// Numbers that are not finite are written as null. Absent: an older version wrote the line.
double number(const Json& j, std::string_view key) {
  const Json* v = j.find(key);
  if (v == nullptr) return 0;
  return v->is_null() ? std::numeric_limits<double>::quiet_NaN() : v->as_double();
}

std::int64_t whole(const Json& j, std::string_view key) {
  const Json* v = j.find(key);
  return v == nullptr ? 0 : v->as_int();
}

LayerRecord layer_from_json(const Json& j) {
  LayerRecord l;
  l.max_vio = number(j, "max_vio");
  for (const auto& entry : nn::kLayerSums)
    if (entry.kind == nn::SumKind::token_mean && j.find(entry.name) != nullptr)
      l.means.push_back({entry.name, number(j, entry.name)});
  l.dropped_fraction = number(j, "dropped_fraction");
  l.dead_experts = whole(j, "dead_experts");
  if (const Json* load = j.find("load"))
    for (const Json& n : load->as_array()) l.load.push_back(n.as_int());
  return l;
}

template <class Entries>
void add_terms(const Json& j, const Entries& entries, bool of_layers,
               std::vector<nn::LossTerm>& terms) {
  for (const auto& entry : entries)
    if (entry.kind == nn::SumKind::loss_term && j.find(entry.name) != nullptr)
      terms.push_back({entry.name, entry.console, number(j, entry.name), of_layers});
}

StepRecord step_from_json(const Json& j) {
  StepRecord r;
  r.step = j.at("step").as_int();
  r.tokens = whole(j, "tokens");
  r.samples = whole(j, "samples");
  j.at("loss");
  r.loss = number(j, "loss");
  add_terms(j, nn::kLayerSums, true, r.terms);
  add_terms(j, nn::kModelSums, false, r.terms);
  r.grad_norm = number(j, "grad_norm");
  r.lr = number(j, "lr");
  r.skipped = whole(j, "skipped");
  if (const Json* layers = j.find("layers"))
    for (const Json& l : layers->as_array()) r.layers.push_back(layer_from_json(l));
  r.seconds = number(j, "seconds");
  r.tokens_per_second = number(j, "tokens_per_second");
  r.flops_per_second = number(j, "flops_per_second");
  r.peak_fraction = number(j, "peak_fraction");
  return r;
}

ValidationRecord validation_from_json(const Json& j) {
  ValidationRecord r;
  r.step = j.at("step").as_int();
  r.tokens = whole(j, "tokens");
  r.loss = number(j, "val_loss");
  r.target_tokens = whole(j, "val_tokens");
  if (j.find("val_bits_per_byte") != nullptr) r.bits_per_byte = number(j, "val_bits_per_byte");
  if (const Json* sets = j.find("val"))
    for (const auto& [name, s] : sets->as_object())
      r.sets.push_back({name, number(s, "loss"), whole(s, "tokens"), whole(s, "bytes"), {}});
  r.seconds = number(j, "seconds");
  return r;
}

}  // namespace

Record record_from_json(const Json& line) {
  if (line.find("val_loss") != nullptr) return validation_from_json(line);
  return step_from_json(line);
}

std::vector<Record> read_metrics(const std::filesystem::path& path) {
  const std::string text = read_text(path);
  std::vector<Record> records;
  std::size_t at = 0;
  for (std::size_t end = text.find('\n'); end != std::string::npos; end = text.find('\n', at)) {
    const std::string where = fmt::format("{}: line {}", path.string(), records.size() + 1);
    const Json line = Json::parse(std::string_view(text).substr(at, end - at), where);
    try {
      records.push_back(record_from_json(line));
    } catch (const Error& e) {
      fail(ExitCode::bad_data, "{}: {}", where, e.what());
    }
    at = end + 1;
  }
  return records;
}

}  // namespace grist::record
