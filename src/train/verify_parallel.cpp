// `grist verify parallel`: the same steps on two layouts.
#include "grist/comm/collectives.h"
#include "grist/core/log.h"
#include "grist/parallel/layout.h"
#include "grist/train/verify.h"
#include "job.h"
#include "trial.h"
#include "vocabulary.h"

namespace grist::train {

namespace {

Config reference_config(const Config& config) {
  Config c = config;
  c.parallel.expert_model_parallel_size = 1;
  c.parallel.zero_stage = 0;
  return c;
}

TrialResult reference_trial(const Config& config, comm::Communicator& world,
                            const ReadSamples& samples, const VerifyParallelOptions& options) {
  if (options.reference_all_ranks) return run_trial(config, world, samples, options.steps);
  TrialResult result;
  comm::agree(world, [&] {
    if (world.rank() != 0) return;
    const auto alone = comm::alone(world);
    result = run_trial(config, *alone, samples, options.steps);
  });
  return result;
}

}  // namespace

ExitCode verify_parallel(const std::function<LoadedConfig()>& load,
                         const VerifyParallelOptions& options) {
  Job job;
  return job.run([&] {
    comm::Communicator& world = job.world();
    LoadedConfig loaded = job.load(load);
    std::optional<SampleStream> samples;
    comm::agree(world, [&] {
      resolve_vocabulary(loaded);
      loaded.config.threads = job.threads(loaded.config.threads);
      samples.emplace(loaded.config.data, loaded.config.seed, loaded.config.model.vocab_size);
    });
    job.watch(loaded.config.parallel.watchdog_seconds);
    const Config reference = reference_config(loaded.config);
    const parallel::Layout layout(world.size(), world.rank(),
                                  loaded.config.parallel.expert_model_parallel_size);
    log::info("{} steps: {} against {}", options.steps, layout.str(),
              options.reference_all_ranks ? "expert_parallel 1 on all ranks" : "one rank");
    const ReadSamples read = [&](std::int64_t first, std::int64_t count, Batch& out) {
      samples->batch(first, count, out);
    };
    const TrialResult expected = reference_trial(reference, world, read, options);
    TrialResult got = run_trial(loaded.config, world, read, options.steps);
    Agreement agreement{.ok = true, .text = ""};
    if (job.leader()) {
      const bool exact = loaded.config.parallel.deterministic == Deterministic::elastic;
      agreement = compare_trials(expected, got, exact);
      log::info("{}", agreement.text.substr(0, agreement.text.size() - 1));
    }
    const bool differs = comm::all_reduce_max(world, agreement.ok ? 0 : 1) != 0;
    return differs ? ExitCode::numeric : ExitCode::ok;
  });
}

}  // namespace grist::train
