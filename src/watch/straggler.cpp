#include "grist/watch/straggler.h"

#include <algorithm>
#include <numeric>

#include "grist/core/check.h"

namespace grist::watch {

namespace {

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  if (values.size() % 2 == 1) return *middle;
  return (*middle + *std::max_element(values.begin(), middle)) / 2;
}

}  // namespace

StragglerWatch::StragglerWatch(std::vector<std::string> hosts, std::vector<std::string> phases)
    : hosts_(std::move(hosts)), phases_(std::move(phases)), named_(hosts_.size()) {}

std::vector<std::string> StragglerWatch::observe(std::span<const double> seconds) {
  GRIST_CHECK(seconds.size() == hosts_.size() * phases_.size(), "{} times for {} ranks x {} phases",
              seconds.size(), hosts_.size(), phases_.size());
  if (hosts_.size() < 2) return {};
  steps_.emplace_back(seconds.begin(), seconds.end());
  if (steps_.size() < kWindow) return {};
  std::vector<std::string> lines;
  for (std::size_t r = 0; r < hosts_.size(); ++r) {
    const double slowness = ratio(r);
    if (slowness < kRecovered) named_[r] = false;
    if (slowness <= kFactor || named_[r]) continue;
    named_[r] = true;
    lines.push_back(fmt::format(
        "rank {} (host {}) is slow: {:.2f}x the median compute time of the others over the last "
        "{} steps, mostly in {}",
        r, hosts_[r], slowness, kWindow, slowest_phase(r)));
  }
  steps_.clear();
  return lines;
}

double StragglerWatch::ratio(std::size_t rank) const {
  std::vector<double> ratios;
  for (const std::vector<double>& step : steps_) {
    std::vector<double> others;
    double own = 0;
    for (std::size_t r = 0; r < hosts_.size(); ++r) {
      const auto row = step.begin() + static_cast<std::ptrdiff_t>(r * phases_.size());
      const double total =
          std::accumulate(row, row + static_cast<std::ptrdiff_t>(phases_.size()), 0.0);
      if (r == rank) {
        own = total;
      } else {
        others.push_back(total);
      }
    }
    const double usual = median(std::move(others));
    ratios.push_back(usual > 0 ? own / usual : 1);
  }
  return median(std::move(ratios));
}

// The phase whose time exceeds the others' median by most, summed over the window.
std::string StragglerWatch::slowest_phase(std::size_t rank) const {
  std::vector<double> excess(phases_.size());
  for (const std::vector<double>& step : steps_) {
    for (std::size_t p = 0; p < phases_.size(); ++p) {
      std::vector<double> others;
      for (std::size_t r = 0; r < hosts_.size(); ++r)
        if (r != rank) others.push_back(step[r * phases_.size() + p]);
      excess[p] += step[rank * phases_.size() + p] - median(std::move(others));
    }
  }
  const auto largest = std::max_element(excess.begin(), excess.end());
  return phases_[static_cast<std::size_t>(largest - excess.begin())];
}

}  // namespace grist::watch
