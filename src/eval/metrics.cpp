#include "metrics.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "python_text.h"

namespace grist::eval {

namespace {

// The first of the largest, as numpy.argmax.
std::int64_t largest(const std::vector<double>& values) {
  return std::max_element(values.begin(), values.end()) - values.begin();
}

// The probability of the true choices among all.
double true_share(const std::vector<double>& log_likelihoods, const std::vector<bool>& is_true) {
  const double best = *std::max_element(log_likelihoods.begin(), log_likelihoods.end());
  double all = 0, right = 0;
  for (std::size_t i = 0; i < log_likelihoods.size(); ++i) {
    const double p = std::exp(log_likelihoods[i] - best);
    all += p;
    if (is_true[i]) right += p;
  }
  return right / all;
}

}  // namespace

void judge(Sample& sample, const Item& item, bool acc_norm) {
  std::vector<double> sums, by_length;
  for (std::size_t i = 0; i < sample.choices.size(); ++i) {
    const double sum = sample.choices[i].log_likelihood;
    sums.push_back(sum);
    by_length.push_back(sum / static_cast<double>(code_points(item.choices[i])));
  }
  if (!item.is_true.empty()) {
    sample.acc = true_share(sums, item.is_true);
    return;
  }
  sample.acc = largest(sums) == item.gold ? 1.0 : 0.0;
  if (acc_norm) sample.acc_norm = largest(by_length) == item.gold ? 1.0 : 0.0;
  const auto gold = static_cast<std::size_t>(item.gold);
  // The separator belongs to the context: it is in the sum, as it has to be, but no byte of the
  // answer.
  if (const std::size_t bytes = item.choices[gold].size(); bytes > 0)
    sample.bits_per_byte = -sums[gold] / std::numbers::ln2 / static_cast<double>(bytes);
}

std::optional<Metric> mean_of(const std::string& name, const std::vector<double>& values) {
  if (values.empty()) return {};
  const auto n = static_cast<double>(values.size());
  double sum = 0;
  for (const double v : values) sum += v;
  Metric m{name, sum / n, {}, std::ssize(values)};
  if (values.size() < 2) return m;
  double squares = 0;
  for (const double v : values) squares += (v - m.value) * (v - m.value);
  m.standard_error = std::sqrt(squares / (n - 1)) / std::sqrt(n);
  return m;
}

std::vector<Metric> metrics_of(const std::vector<Sample>& samples) {
  std::vector<double> acc, acc_norm, bits;
  for (const Sample& s : samples) {
    acc.push_back(s.acc);
    if (s.acc_norm) acc_norm.push_back(*s.acc_norm);
    if (s.bits_per_byte) bits.push_back(*s.bits_per_byte);
  }
  std::vector<Metric> out;
  for (const auto& m :
       {mean_of("acc", acc), mean_of("acc_norm", acc_norm), mean_of("bits_per_byte", bits)})
    if (m) out.push_back(*m);
  return out;
}

std::vector<Metric> pooled(const std::vector<const TaskResult*>& subtasks) {
  std::vector<Metric> out;
  for (const char* name : {"acc", "bits_per_byte"}) {
    double sum = 0, squares = 0;
    std::int64_t size = 0;
    bool known = true;
    for (const TaskResult* t : subtasks) {
      const Metric* m = find_metric(t->metrics, name);
      if (m == nullptr) continue;
      const auto n = static_cast<double>(m->count);
      sum += m->value * n;
      size += m->count;
      known = known && m->standard_error.has_value();
      if (known) squares += (n - 1) * *m->standard_error * *m->standard_error * n;
    }
    if (size == 0) continue;
    const auto total = static_cast<double>(size), sets = static_cast<double>(subtasks.size());
    Metric m{name, sum / total, {}, size};
    if (known) m.standard_error = std::sqrt(squares / (total - sets) / total);
    out.push_back(m);
  }
  return out;
}

const Metric* find_metric(const std::vector<Metric>& metrics, std::string_view name) {
  const auto at =
      std::find_if(metrics.begin(), metrics.end(), [&](const Metric& m) { return m.name == name; });
  return at == metrics.end() ? nullptr : &*at;
}

}  // namespace grist::eval
