#pragma once
// Timing for benchmarks. Cases that are compared run in turn, round after round, so that a change
// of clock or a neighbour's load meets them all.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <string>
#include <vector>

#include "grist/core/memory.h"
#include "grist/core/random.h"
#include "grist/core/tensor.h"

namespace grist::bench {

struct Case {
  std::string name;
  double flops = 0;  // of one call
  std::function<void()> run;
  std::vector<double> seconds;  // one a round

  double median() const {
    std::vector<double> s = seconds;
    std::nth_element(s.begin(), s.begin() + static_cast<std::ptrdiff_t>(s.size() / 2), s.end());
    return s[s.size() / 2];
  }
  double best() const { return *std::min_element(seconds.begin(), seconds.end()); }
};

// One thread: its own processor time, which a neighbour's load hardly touches. Several: wall time.
enum class Clock { wall, processor };

inline double seconds_now(Clock clock) {
  timespec t{};
  clock_gettime(clock == Clock::wall ? CLOCK_MONOTONIC : CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// One untimed call each, then `rounds` timed rounds over all cases.
inline void run_interleaved(std::vector<Case>& cases, int rounds, Clock clock) {
  for (Case& c : cases) c.run();
  for (int round = 0; round < rounds; ++round) {
    for (Case& c : cases) {
      const double begin = seconds_now(clock);
      c.run();
      c.seconds.push_back(seconds_now(clock) - begin);
    }
  }
}

// A tensor of uniform numbers in [-1, 1): zeros would flatter the processor's clock.
inline TensorView random_tensor(std::vector<Buffer>& keep, const Shape& shape,
                                std::string_view name) {
  keep.emplace_back(static_cast<std::size_t>(shape.numel()) * sizeof(float), Device::cpu, name);
  const TensorView v = keep.back().view(DType::f32, shape);
  const Random random(1, name);
  auto* x = v.as<float>();
  std::uint64_t state = random.bits(0) | 1U;
  for (std::int64_t i = 0; i < shape.numel(); ++i) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    x[i] = static_cast<float>(static_cast<std::int32_t>(state >> 32)) * 0x1p-31F;
  }
  return v;
}

// OpenBLAS's threads stay awake after a call and would take a core from what is measured next. It
// reads the setting when it is loaded, so the program starts again with it.
inline void put_blas_threads_to_sleep(char** argv) {
  if (std::getenv("OPENBLAS_THREAD_TIMEOUT") != nullptr) return;
  setenv("OPENBLAS_THREAD_TIMEOUT", "4", 1);
  execv("/proc/self/exe", argv);
}

}  // namespace grist::bench
