#include "hang.h"

#include <fmt/core.h>

#include <algorithm>
#include <tuple>
#include <vector>

namespace grist::watch {

namespace {

using Ranks = std::vector<const RankSeen*>;

template <class Condition> Ranks select(std::span<const RankSeen> ranks, Condition condition) {
  Ranks found;
  for (const RankSeen& r : ranks)
    if (condition(r)) found.push_back(&r);
  return found;
}

std::string list(const Ranks& ranks) {
  std::vector<int> numbers;
  for (const RankSeen* r : ranks) numbers.push_back(r->rank);
  return rank_list(numbers);
}

std::string place(const RankSeen& r) {
  return fmt::format("at step {} in {}", r.step, r.phase);
}

// "; ranks 0, 1 wait in operation 7": who is kept waiting, beside `culprits`.
std::string victims(std::span<const RankSeen> ranks, const Ranks& culprits) {
  const Ranks waiting = select(ranks, [&](const RankSeen& r) {
    return r.waiting && !r.left &&
           std::find(culprits.begin(), culprits.end(), &r) == culprits.end();
  });
  if (waiting.empty()) return {};
  std::uint64_t furthest = 0;
  for (const RankSeen* r : waiting) furthest = std::max(furthest, r->operations);
  return fmt::format("; {} {} in operation {}", list(waiting),
                     waiting.size() == 1 ? "waits" : "wait", furthest);
}

std::string others(const Ranks& culprits) {
  if (culprits.size() < 2) return {};
  return (culprits.size() == 2 ? "; so does " : "; so do ") +
         list(Ranks(culprits.begin() + 1, culprits.end()));
}

std::string mismatch(std::span<const RankSeen> ranks) {
  const auto progress = [](const RankSeen& r) { return std::tuple(r.operations, r.waits); };
  const auto [least, most] = std::minmax_element(
      ranks.begin(), ranks.end(),
      [&](const RankSeen& a, const RankSeen& b) { return progress(a) < progress(b); });
  if (progress(*least) == progress(*most))
    return fmt::format(
        "all ranks wait in operation {} {} and no message moves: the network is stuck, or their "
        "calls do "
        "not match",
        most->operations, place(*most));
  const Ranks behind =
      select(ranks, [&](const RankSeen& r) { return progress(r) == progress(*least); });
  const std::string what =
      least->left ? fmt::format("has ended its run after {} operations", least->operations)
                  : fmt::format("waits in operation {} {}", least->operations, place(*least));
  return fmt::format("{} is missing: it {}{}{}: the ranks' collective calls do not match",
                     least->name, what, others(behind), victims(ranks, behind));
}

}  // namespace

std::string rank_list(std::span<const int> ranks) {
  constexpr std::size_t kListed = 8;
  std::string text = ranks.size() == 1 ? "rank " : "ranks ";
  for (std::size_t i = 0; i < std::min(ranks.size(), kListed); ++i)
    text += (i == 0 ? "" : ", ") + std::to_string(ranks[i]);
  if (ranks.size() > kListed) text += fmt::format(", ... ({} in all)", ranks.size());
  return text;
}

std::optional<std::string> find_hang(std::span<const RankSeen> ranks, double seconds) {
  const auto silent = [&](const RankSeen& r) { return r.silent >= seconds; };
  const bool all_silent = std::all_of(ranks.begin(), ranks.end(), silent) &&
                          std::any_of(ranks.begin(), ranks.end(), [](auto& r) { return !r.left; });
  // When all are silent, three missed heartbeats tell a stopped rank from those that wait for it.
  const double unheard = all_silent ? seconds / 2 : seconds;
  const Ranks stopped =
      select(ranks, [&](const RankSeen& r) { return !r.left && r.unheard >= unheard; });
  if (!stopped.empty()) {
    const RankSeen& r = *stopped[0];
    return fmt::format(
        "{} is stopped or its machine is lost: no heartbeat for {:.1f} s, last seen {} after {} "
        "operations{}{}",
        r.name, r.unheard, place(r), r.operations, others(stopped), victims(ranks, stopped));
  }
  const Ranks stuck = select(
      ranks, [&](const RankSeen& r) { return !r.left && !r.waiting && r.silent >= seconds; });
  if (!stuck.empty()) {
    const RankSeen& r = *stuck[0];
    return fmt::format("{} hangs: no sign of life for {:.1f} s {} after {} operations{}{}", r.name,
                       r.silent, place(r), r.operations, others(stuck), victims(ranks, stuck));
  }
  if (all_silent) return mismatch(ranks);
  return std::nullopt;
}

}  // namespace grist::watch
