#include "blend.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "grist/core/check.h"

namespace grist {

namespace {

constexpr std::int64_t kCycle = std::int64_t{1} << 20;
constexpr std::size_t kMaxSources = 1024;  // building the cycle takes kCycle * sources steps

// Shares of a cycle of kCycle samples, at least 1 each: rounded down, the rest to the largest
// remainders (the lower index first); then divided by their common factor.
std::vector<std::int64_t> shares_of(std::span<const double> weights) {
  double total = 0;
  for (const double w : weights) total += w;
  std::vector<std::int64_t> share;
  std::vector<std::pair<double, std::size_t>> remainder;
  for (std::size_t d = 0; d < weights.size(); ++d) {
    const double exact = weights[d] / total * static_cast<double>(kCycle);
    const double floored = std::floor(exact);
    share.push_back(std::max<std::int64_t>(1, static_cast<std::int64_t>(floored)));
    remainder.emplace_back(floored - exact, d);
  }
  std::sort(remainder.begin(), remainder.end());
  std::int64_t left = kCycle - std::accumulate(share.begin(), share.end(), std::int64_t{0});
  for (std::size_t k = 0; left > 0; k = (k + 1) % remainder.size(), --left)
    ++share[remainder[k].second];
  while (left < 0) {  // many tiny sources were lifted to 1
    --*std::max_element(share.begin(), share.end());
    ++left;
  }
  std::int64_t common = 0;
  for (const std::int64_t s : share) common = std::gcd(common, s);
  for (std::int64_t& s : share) s /= common;
  return share;
}

}  // namespace

Blend::Blend(std::span<const double> weights) {
  if (weights.empty() || weights.size() > kMaxSources)
    fail(ExitCode::config, "data.train has {} sources; 1 to {} can be mixed", weights.size(),
         kMaxSources);
  for (std::size_t d = 0; d < weights.size(); ++d) {
    if (!(weights[d] > 0) || !(weights[d] <= 1e100))
      fail(ExitCode::config, "data.train[{}].weight = {}: must be above 0 and at most 1e100", d,
           weights[d]);
  }
  share_ = shares_of(weights);
  const std::int64_t cycle = std::accumulate(share_.begin(), share_.end(), std::int64_t{0});
  source_.reserve(static_cast<std::size_t>(cycle));
  ordinal_.reserve(static_cast<std::size_t>(cycle));
  std::vector<std::int64_t> lag(share_.size());  // w_d * (i + 1) - P * taken_d
  std::vector<std::uint32_t> taken(share_.size());
  for (std::int64_t i = 0; i < cycle; ++i) {
    for (std::size_t d = 0; d < lag.size(); ++d) lag[d] += share_[d];
    const auto best =
        static_cast<std::size_t>(std::max_element(lag.begin(), lag.end()) - lag.begin());
    lag[best] -= cycle;
    source_.push_back(static_cast<std::uint16_t>(best));
    ordinal_.push_back(taken[best]++);
  }
}

Blend::Place Blend::operator()(std::int64_t i) const {
  const auto at = static_cast<std::size_t>(i % cycle());
  const std::int64_t d = source_[at];
  return {d, i / cycle() * share_[static_cast<std::size_t>(d)] + ordinal_[at]};
}

std::int64_t Blend::taken(std::int64_t source, std::int64_t samples) const {
  const auto d = static_cast<std::size_t>(source);
  std::int64_t count = samples / cycle() * share_[d];
  // The next place of this source in the cycle tells how many came before it.
  for (std::int64_t at = samples % cycle(); at < cycle(); ++at) {
    if (source_[static_cast<std::size_t>(at)] == source)
      return count + ordinal_[static_cast<std::size_t>(at)];
  }
  return count + share_[d];
}

}  // namespace grist
