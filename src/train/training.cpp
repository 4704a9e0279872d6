#include "grist/train/training.h"

#include "job.h"
#include "run.h"

namespace grist::train {

ExitCode run_training(const std::function<LoadedConfig()>& load, const TrainOptions& options) {
  Job job;
  return job.run([&] {
    LoadedConfig config = job.load(load);
    job.watch(config.config.parallel.watchdog_seconds);
    return Run(std::move(config), options, job).execute();
  });
}

}  // namespace grist::train
