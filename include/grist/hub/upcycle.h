#pragma once
// A dense model as a fine-grained Mixture-of-Experts that computes the same at first: each FFN is
// cut into `granularity` shards, each shard copied `expansion_rate` times, and the router's rows
// are the same for all shards, so that a token goes to the same copies of every shard (virtual
// groups; He et al. 2024, arXiv 2410.07524). docs/upcycling.md.
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace grist::hub {

struct UpcycleOptions {
  std::filesystem::path checkpoint{};  // of a dense model: a step folder, checkpoints or run folder
  std::filesystem::path output{};      // the run folder; must not exist
  std::int64_t granularity = 8;        // shards of an FFN
  std::int64_t expansion_rate = 8;     // copies of each
  std::int64_t flops_multiplier = 1;   // copies of each that a token goes to
  std::vector<std::string> sets{};     // more of the new model's configuration: "key=value"
  bool prove = true;                   // needs the memory of both models
  int threads = 0;                     // of the proof; 0: one per core
};

struct Upcycled {
  std::filesystem::path folder;
  std::filesystem::path checkpoint;  // the step that was taken
  std::int64_t parameters = 0, active_parameters = 0, dense_parameters = 0;
  // The chosen weights of a token always sum to the same, so the new model computes what the dense
  // one does, but for rounding.
  bool exact = false;
  bool proved = false;
  double difference = 0, largest_logit = 0;  // over fixed tokens
  double dense_loss = 0, loss = 0;           // of the fixed tokens, nats each
};

// The newest good step; damaged ones are named and passed over. The folder appears whole or not at
// all; the FFN of one layer is held. Router rows are functions of (seed, layer, copy).
// Error{config} for a model that has experts or an FFN that cannot be cut so; Error{numeric} when
// the two should agree and do not; Error{not_found}, Error{bad_data}, Error{cannot_create},
// Error{io}; Error{preempted} when a stop signal came.
Upcycled upcycle(const UpcycleOptions& options);

}  // namespace grist::hub
