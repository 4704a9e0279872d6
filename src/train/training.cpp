#include "grist/train/training.h"

#include <exception>

#include "grist/comm/collectives.h"
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

ExitCode on_all_ranks(std::int64_t threads, const std::function<void(const Ranks&)>& body) {
  Job job;
  return job.run([&] {
    std::exception_ptr failure;
    try {
      body({job.world(), job.local_rank(), job.threads(threads)});
    } catch (const comm::Agreed&) {
      throw;
    } catch (...) {
      failure = std::current_exception();
    }
    // The ranks that have not failed come by here too, or at the next place where they agree.
    comm::agree(job.world(), [&] {
      if (failure) std::rethrow_exception(failure);
    });
    return ExitCode::ok;
  });
}

}  // namespace grist::train
