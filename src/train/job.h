#pragma once
// The ranks of one command: how they start, who speaks, and how all of them end when one fails.
#include <functional>
#include <memory>

#include "grist/comm/launch.h"
#include "grist/config/load.h"
#include "grist/core/error.h"
#include "grist/watch/monitor.h"

namespace grist::train {

// Error{config} when a batch of the steps still to come cannot be shared by so many ranks.
void refuse_impossible_batches(const Config& config, std::int64_t ranks,
                               std::int64_t consumed_samples);

class Job {
 public:
  Job();  // connects the ranks; from then on only rank 0 speaks
  ~Job();
  comm::Communicator& world() { return *launch_.world; }
  bool leader() const { return launch_.world->rank() == 0; }
  const std::string& host() const { return launch_.host; }
  int local_rank() const { return launch_.local_rank; }
  // CPU threads of this process when `configured` says so. 0: its share of the cores that it may
  // run on; without a launcher 0, which a ThreadPool takes for all of them.
  int threads(std::int64_t configured) const;

  // The configuration: one that so many ranks can train, and the same on all of them; anything else
  // is an error on all.
  LoadedConfig load(const std::function<LoadedConfig()>& load_here);

  // From here on a rank that dies or hangs ends the job within `seconds`. One rank: nothing.
  void watch(double seconds);

  // Runs `body` on every rank. An error that all ranks have agreed on (comm::agree) is said once,
  // and its code is the result; any other ends the whole job with its code and one line, within
  // seconds.
  ExitCode run(const std::function<ExitCode()>& body);

 private:
  [[noreturn]] void end_all(ExitCode code, const std::string& line);
  comm::Launch launch_;
  std::unique_ptr<watch::Monitor> monitor_;
};

}  // namespace grist::train
