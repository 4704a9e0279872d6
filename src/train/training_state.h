#pragma once
// Everything a run carries from step to step, and its form in a checkpoint: parameters and
// optimizer state under their global names, router state, counters. What is not here does not
// survive a restart.
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine.h"
#include "grist/ckpt/checkpoint.h"
#include "grist/ckpt/device_load.h"
#include "grist/core/json.h"

namespace grist::train {

struct Counters {
  std::int64_t step = 0;
  std::int64_t samples = 0;  // consumed
  std::int64_t tokens = 0;   // consumed
  std::int64_t updates = 0;  // applied; skipped ones do not count (on disk: adam_steps)
  std::int64_t skipped = 0;  // updates skipped because something was not finite
  std::int64_t skipped_in_a_row = 0;
  std::int64_t validated_step = -1;  // after which validation ran last; -1: never
  std::uint64_t metrics_bytes = 0;   // length of metrics.jsonl
};
Json to_json(const Counters& c);
Counters counters_from_json(const Json& j);

// axis -> size, for the manifest.
Json layout_json(const parallel::Layout& layout);

// What this rank writes; points into the engine, which must stay unchanged until it is copied or
// written. The slices of all ranks together tile every tensor.
std::vector<TensorSlice> checkpoint_slices(Engine& engine);

// What this rank loads: parameters whole, optimizer state as the optimizer holds it. Where the
// host does not write the engine's memory, the state arrives in the host's first.
class StateLoad {
 public:
  StateLoad(Engine& engine, bool with_optimizer_state);
  std::span<const TensorDestination> destinations() { return load_.destinations(); }
  // Once they are filled: the state is in the engine.
  void finish() { load_.finish(engine_.context()); }

 private:
  Engine& engine_;
  DeviceLoad load_;
};

}  // namespace grist::train
