#include "job.h"

#include <sched.h>

#include <algorithm>
#include <thread>

#include "grist/comm/collectives.h"
#include "grist/core/check.h"
#include "grist/core/log.h"
#include "grist/parallel/layout.h"

namespace grist::train {

Job::Job() : launch_(comm::connect()) {
  log::set_rank(launch_.world->rank());
}

Job::~Job() = default;

// Ranks of one machine share its cores, unless the launcher has given each its own already.
int Job::threads(std::int64_t configured) const {
  if (configured > 0 || launch_.local_size == 1) return static_cast<int>(configured);
  cpu_set_t mine;
  const int allowed = sched_getaffinity(0, sizeof mine, &mine) == 0 ? CPU_COUNT(&mine) : 1;
  const auto all = static_cast<int>(std::thread::hardware_concurrency());
  return std::max(1, allowed < all ? allowed : all / launch_.local_size);
}

LoadedConfig load_for(std::int64_t ranks, const std::function<LoadedConfig()>& load) {
  LoadedConfig loaded = load();
  std::string lines;
  for (const std::string& problem : parallel::layout_problems(loaded.config, ranks))
    lines += (lines.empty() ? "" : "\n") + problem;
  if (!lines.empty()) throw Error(ExitCode::config, lines);
  return loaded;
}

void Job::watch(double seconds) {
  comm::Monitor::Options options;
  options.watchdog_seconds = seconds;
  options.end = [](ExitCode code) { comm::abort(code); };
  if (world().size() > 1) monitor_ = std::make_unique<comm::Monitor>(world(), options);
}

ExitCode Job::run(const std::function<ExitCode()>& body) {
  if (world().size() == 1) return body();
  try {
    const ExitCode code = body();
    if (monitor_) monitor_->stop();
    return code;
  } catch (const comm::Agreed& e) {
    log::error("{}", e.what());  // before any rank ends, for the launcher then ends rank 0 as well
    if (monitor_) monitor_->stop();
    return e.code();
  } catch (const Error& e) {
    end_all(e.code(), e.what());
  } catch (const std::bad_alloc&) {
    end_all(ExitCode::out_of_memory, "out of memory");
  } catch (const std::exception& e) {
    end_all(ExitCode::internal, std::string("internal error: ") + e.what());
  }
}

void Job::end_all(ExitCode code, const std::string& line) {
  if (monitor_) monitor_->fail(code, line);
  log::from_rank(line);
  comm::abort(code);
}

}  // namespace grist::train
