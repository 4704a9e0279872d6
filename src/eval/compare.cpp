// Two models on the same questions: the difference of their means, and how sure it is.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "grist/core/check.h"
#include "grist/core/file.h"
#include "grist/eval/evaluate.h"
#include "metrics.h"

namespace grist::eval {

namespace {

using Key = std::pair<std::string, std::int64_t>;                 // task, doc_id
using Values = std::map<std::string, double, std::less<>>;        // metric -> value
using Samples = std::map<Key, std::pair<std::uint64_t, Values>>;  // with the place in the file

constexpr const char* kMetrics[] = {"acc", "acc_norm", "bits_per_byte"};

Samples read_samples(const std::filesystem::path& path) {
  const std::string whole = read_text(path, std::uint64_t{4} << 30);
  Samples out;
  std::uint64_t number = 0;
  for (std::size_t at = 0; at < whole.size();) {
    const std::size_t end = std::min(whole.find('\n', at), whole.size());
    const std::string where = path.string() + ":" + std::to_string(++number);
    const std::string_view line = std::string_view(whole).substr(at, end - at);
    at = end + 1;
    const Json json = Json::parse(line, where);
    try {
      Values values;
      for (const char* name : kMetrics)
        if (const Json* v = json.find(name)) values[name] = v->as_double();
      const Key key{json.at("task").as_string(), json.at("doc_id").as_int()};
      if (!out.emplace(key, std::pair{number, values}).second)
        fail(ExitCode::bad_data, "question {} of {} for the second time", key.second, key.first);
    } catch (const Error& e) {
      fail(e.code(), "{}: {}; want lines as grist eval --samples writes them", where, e.what());
    }
  }
  if (out.empty()) fail(ExitCode::bad_data, "{}: no samples", path.string());
  return out;
}

}  // namespace

std::string compare_samples(const std::filesystem::path& a, const std::filesystem::path& b) {
  const Samples first = read_samples(a), second = read_samples(b);
  std::map<std::pair<std::string, std::string>, std::pair<std::vector<double>, std::vector<double>>>
      pairs;  // task, metric -> values of both
  for (const auto& [key, sample] : first) {
    const auto other = second.find(key);
    if (other == second.end())
      fail(ExitCode::bad_data, "{}: question {} of {} is not there, but in {}", b.string(),
           key.second, key.first, a.string());
    for (const auto& [name, value] : sample.second) {
      const auto match = other->second.second.find(name);
      if (match == other->second.second.end()) continue;
      auto& [x, y] = pairs[{key.first, name}];
      x.push_back(value);
      y.push_back(match->second);
    }
  }
  if (first.size() != second.size())
    fail(ExitCode::bad_data, "{} has {} questions, {} has {}; compare the same tasks and limit",
         a.string(), first.size(), b.string(), second.size());
  std::string out = fmt::format("{:<40} {:<14} {:>8} {:>8} {:>9} {:>8} {:>7}\n", "task", "metric",
                                "A", "B", "B - A", "stderr", "items");
  for (const auto& [key, values] : pairs) {
    const auto& [x, y] = values;
    std::vector<double> differences;
    for (std::size_t i = 0; i < x.size(); ++i) differences.push_back(y[i] - x[i]);
    const Metric m = *mean_of(key.second, differences);
    const std::string error = m.standard_error ? fmt::format("{:.4f}", *m.standard_error) : "n/a";
    out += fmt::format("{:<40} {:<14} {:>8.4f} {:>8.4f} {:>+9.4f} {:>8} {:>7}\n", key.first,
                       key.second, mean_of("", x)->value, mean_of("", y)->value, m.value, error,
                       m.count);
  }
  return out;
}

}  // namespace grist::eval
