#include "grist/record/metrics.h"

#include <algorithm>
#include <numbers>
#include <numeric>

namespace grist::record {

std::vector<LayerRecord> layer_records(const nn::StepStatistics& statistics,
                                       std::int64_t experts_per_token) {
  std::vector<LayerRecord> records;
  for (const nn::LayerStatistics& s : statistics.layers) {
    LayerRecord r;
    const auto total = std::accumulate(s.counts.begin(), s.counts.end(), std::int64_t{0});
    const double mean = static_cast<double>(total) / static_cast<double>(s.counts.size());
    const auto tokens = static_cast<double>(std::max<std::int64_t>(s.tokens, 1));
    r.max_vio =
        mean > 0
            ? static_cast<double>(*std::max_element(s.counts.begin(), s.counts.end())) / mean - 1.0
            : 0.0;
    r.means = nn::token_means(s);
    r.dropped_fraction =
        static_cast<double>(s.dropped) / (tokens * static_cast<double>(experts_per_token));
    r.dead_experts = std::count(s.counts.begin(), s.counts.end(), 0);
    r.load = s.counts;
    records.push_back(std::move(r));
  }
  return records;
}

double max_vio(const StepRecord& r) {
  double worst = 0;
  for (const LayerRecord& l : r.layers) worst = std::max(worst, l.max_vio);
  return worst;
}

double dropped_fraction(const StepRecord& r) {
  double sum = 0;
  for (const LayerRecord& l : r.layers) sum += l.dropped_fraction;
  return r.layers.empty() ? 0.0 : sum / static_cast<double>(r.layers.size());
}

Json to_json(const StepRecord& r) {
  Json j = Json::object();
  j.set("step", r.step);
  j.set("tokens", r.tokens);
  j.set("samples", r.samples);
  j.set("loss", r.loss);
  for (const nn::LossTerm& t : r.terms) j.set(std::string(t.name), t.value);
  j.set("grad_norm", r.grad_norm);
  j.set("lr", r.lr);
  j.set("skipped", r.skipped);
  j.set("max_vio", max_vio(r));
  j.set("dropped_fraction", dropped_fraction(r));
  j.set("tokens_per_second", r.tokens_per_second);
  j.set("flops_per_second", r.flops_per_second);
  j.set("peak_fraction", r.peak_fraction);
  j.set("seconds", r.seconds);
  Json layers = Json::array();
  for (const LayerRecord& l : r.layers) {
    Json o = Json::object();
    o.set("max_vio", l.max_vio);
    for (const nn::TokenMean& m : l.means) o.set(std::string(m.name), m.value);
    o.set("dropped_fraction", l.dropped_fraction);
    o.set("dead_experts", l.dead_experts);
    Json load = Json::array();
    for (const std::int64_t c : l.load) load.push_back(c);
    o.set("load", std::move(load));
    layers.push_back(std::move(o));
  }
  j.set("layers", std::move(layers));
  return j;
}

Json to_json(const ValidationRecord& r) {
  Json j = Json::object();
  j.set("step", r.step);
  j.set("tokens", r.tokens);
  j.set("val_loss", r.loss);
  j.set("val_tokens", r.target_tokens);
  if (r.bits_per_byte) j.set("val_bits_per_byte", *r.bits_per_byte);
  Json sets = Json::object();
  for (const ValidationRecord::Set& s : r.sets) {
    Json o = Json::object();
    o.set("loss", s.loss);
    o.set("tokens", s.tokens);
    if (s.bytes > 0) o.set("bytes", s.bytes);
    sets.set(s.name, std::move(o));
  }
  j.set("val", std::move(sets));
  j.set("seconds", r.seconds);
  return j;
}

Json without_times(Json record) {
  std::erase_if(record.as_object(), [](const auto& field) {
    constexpr std::string_view kTimes[] = {"seconds", "tokens_per_second", "flops_per_second",
                                           "peak_fraction"};
    return std::find(std::begin(kTimes), std::end(kTimes), field.first) != std::end(kTimes);
  });
  return record;
}

namespace {

double mean_loss(const ValidationSum& s) {
  return s.tokens > 0 ? s.loss_sum / static_cast<double>(s.tokens) : 0.0;
}

// Every token is charged at the mean loss, also the first of a document, which is no target.
std::optional<double> bits_per_byte(const ValidationSum& s) {
  if (s.bytes == 0) return {};
  return mean_loss(s) * static_cast<double>(s.all_tokens) / std::numbers::ln2 /
         static_cast<double>(s.bytes);
}

ValidationSum sum_of(const std::vector<ValidationSum>& sets) {
  ValidationSum sum;
  bool bytes_known = true;
  for (const ValidationSum& s : sets) {
    sum.loss_sum += s.loss_sum;
    sum.tokens += s.tokens;
    sum.bytes += s.bytes;
    sum.all_tokens += s.all_tokens;
    bytes_known = bytes_known && s.bytes > 0;
  }
  if (!bytes_known) sum.bytes = 0;
  return sum;
}

}  // namespace

ValidationRecord validation_record(const std::vector<ValidationSum>& sums) {
  const ValidationSum all = sum_of(sums);
  ValidationRecord r;
  r.loss = mean_loss(all);
  r.target_tokens = all.tokens;
  r.bits_per_byte = bits_per_byte(all);
  for (const ValidationSum& s : sums)
    r.sets.push_back({s.name, mean_loss(s), s.tokens, s.bytes, bits_per_byte(s)});
  return r;
}

}  // namespace grist::record
