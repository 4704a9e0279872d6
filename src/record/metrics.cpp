#include "grist/record/metrics.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

#include "grist/core/check.h"
#include "grist/core/log.h"

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

std::vector<Scalar> scalars_of(const StepRecord& r) {
  std::vector<Scalar> scalars = {{"train/loss", r.loss}};
  for (const nn::LossTerm& t : r.terms)
    scalars.push_back({"train/" + std::string(t.name), t.value});
  scalars.insert(scalars.end(), {{"train/grad_norm", r.grad_norm},
                                 {"train/lr", r.lr},
                                 {"train/tokens_per_second", r.tokens_per_second},
                                 {"moe/max_vio", max_vio(r)},
                                 {"moe/dropped_fraction", dropped_fraction(r)}});
  return scalars;
}

namespace {

double mean_loss(const ValidationRecord::Set& s) {
  return s.tokens > 0 ? s.loss_sum / static_cast<double>(s.tokens) : 0.0;
}

// Every token is charged at the mean loss, also the first of a document, which is no target.
double bits_per_byte(const ValidationRecord::Set& s) {
  return mean_loss(s) * static_cast<double>(s.all_tokens) / std::numbers::ln2 /
         static_cast<double>(s.bytes);
}

ValidationRecord::Set all_sets(const ValidationRecord& r) {
  ValidationRecord::Set sum;
  bool bytes_known = true;
  for (const ValidationRecord::Set& s : r.sets) {
    sum.loss_sum += s.loss_sum;
    sum.tokens += s.tokens;
    sum.bytes += s.bytes;
    sum.all_tokens += s.all_tokens;
    bytes_known = bytes_known && s.bytes > 0;
  }
  if (!bytes_known) sum.bytes = 0;
  return sum;
}

std::string count(double n) {
  if (n >= 1e9) return fmt::format("{:.2f}B", n / 1e9);
  if (n >= 1e6) return fmt::format("{:.2f}M", n / 1e6);
  if (n >= 1e3) return fmt::format("{:.1f}k", n / 1e3);
  return fmt::format("{:.0f}", n);
}

// Fixed point where that is readable; a run that blows up prints exponents, not 30 digits.
std::string number(double v, int digits) {
  if (std::isnan(v)) return "nan";
  return std::abs(v) < 1e5 ? fmt::format("{:.{}f}", v, digits) : fmt::format("{:.3e}", v);
}

}  // namespace

Json to_json(const ValidationRecord& r) {
  Json j = Json::object();
  const ValidationRecord::Set all = all_sets(r);
  j.set("step", r.step);
  j.set("tokens", r.tokens);
  j.set("val_loss", mean_loss(all));
  j.set("val_tokens", all.tokens);
  if (all.bytes > 0) j.set("val_bits_per_byte", bits_per_byte(all));
  Json sets = Json::object();
  for (const ValidationRecord::Set& s : r.sets) {
    Json o = Json::object();
    o.set("loss", mean_loss(s));
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

std::string duration(double seconds) {
  const auto s = static_cast<std::int64_t>(std::max(0.0, std::round(seconds)));
  if (s >= 86400) return fmt::format("{}d{:02}h", s / 86400, s % 86400 / 3600);
  if (s >= 3600) return fmt::format("{}h{:02}m", s / 3600, s % 3600 / 60);
  if (s >= 60) return fmt::format("{}m{:02}s", s / 60, s % 60);
  return fmt::format("{}s", s);
}

std::string console_line(const StepRecord& r, std::int64_t train_iters) {
  std::string line = fmt::format("step {}/{} | tokens {} | loss {}", r.step, train_iters,
                                 count(static_cast<double>(r.tokens)), number(r.loss, 4));
  for (const nn::LossTerm& t : r.terms)
    if (!t.of_layers || !r.layers.empty())
      line += fmt::format(" | {} {}", t.console, number(t.value, 4));
  line += fmt::format(" | grad norm {} | lr {:.2e} | {} tok/s | {:.1f} GFLOP/s ({:.0f} % of peak)",
                      number(r.grad_norm, 3), r.lr, count(r.tokens_per_second),
                      r.flops_per_second / 1e9, 100 * r.peak_fraction);
  if (!r.layers.empty())
    line +=
        fmt::format(" | MaxVio {:.2f} | dropped {:.2f} %", max_vio(r), 100 * dropped_fraction(r));
  if (r.skipped > 0) line += fmt::format(" | skipped {}", r.skipped);
  return line + fmt::format(" | ETA {}", duration(r.eta_seconds));
}

std::string console_line(const ValidationRecord& r) {
  std::string line = fmt::format("validation at step {}:", r.step);
  for (const ValidationRecord::Set& s : r.sets) {
    line += fmt::format(" {} loss {}", s.name, number(mean_loss(s), 4));
    if (s.bytes > 0) line += fmt::format(" ({:.3f} bits per byte)", bits_per_byte(s));
  }
  return line + fmt::format(" | {} tokens in {}", count(static_cast<double>(all_sets(r).tokens)),
                            duration(r.seconds));
}

MetricsLog::MetricsLog(const std::filesystem::path& path, std::uint64_t keep_bytes)
    : file_(File::open_append(path)) {
  const std::uint64_t size = file_.size();
  if (size < keep_bytes) {
    log::warn("{}: {} bytes, the checkpoint expects {}: lines are missing; the run goes on",
              path.string(), size, keep_bytes);
  } else if (size > keep_bytes) {
    std::string tail(size - keep_bytes, '\0');
    file_.read_at(keep_bytes, std::as_writable_bytes(std::span(tail)));
    std::filesystem::path beside;
    for (int n = 1; beside.empty() || std::filesystem::exists(beside); ++n)
      beside = path.string() + ".tail-" + std::to_string(n);
    write_text_atomically(beside, tail);
    file_.truncate(keep_bytes);
    log::info("{}: lines behind the checkpoint moved to {}", path.string(),
              beside.filename().string());
  }
  bytes_ = std::min(size, keep_bytes);
}

void MetricsLog::append(const Json& record) {
  const std::string line = record.dump() + "\n";
  file_.append(line);
  bytes_ += line.size();
}

}  // namespace grist::record
