#pragma once
// Names ranks that compute slower than the others, from the seconds that each rank itself computed
// in each step (waiting not counted). It only tells: a slow rank is never ended.
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace grist::watch {

class StragglerWatch {
 public:
  static constexpr int kWindow = 20;         // steps judged together
  static constexpr double kFactor = 1.25;    // slower than this is named ...
  static constexpr double kRecovered = 1.1;  // ... and again only after having been below this

  // hosts[r] is the machine of rank r; phases name the columns of observe().
  StragglerWatch(std::vector<std::string> hosts, std::vector<std::string> phases);

  // seconds (ranks, phases), row-major: one step's own compute time. After each window of steps
  // returns a line for every rank newly found slow, else nothing: a rank is slow when the median
  // over the window of its time / the median time of the other ranks in the same step exceeds
  // kFactor.
  std::vector<std::string> observe(std::span<const double> seconds);

 private:
  double ratio(std::size_t rank) const;  // median over the window
  std::string slowest_phase(std::size_t rank) const;

  std::vector<std::string> hosts_, phases_;
  std::vector<bool> named_;
  std::vector<std::vector<double>> steps_;  // of the current window
};

}  // namespace grist::watch
