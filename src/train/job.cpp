#include "job.h"

#include "grist/comm/collectives.h"
#include "grist/config/compare.h"
#include "grist/core/check.h"
#include "grist/core/log.h"
#include "grist/parallel/layout.h"

namespace grist::train {

namespace {

void refuse(const std::vector<std::string>& problems) {
  std::string lines;
  for (const std::string& problem : problems) lines += (lines.empty() ? "" : "\n") + problem;
  if (!lines.empty()) throw Error(ExitCode::config, lines);
}

// Ranks with other numbers than rank 0's would train something else, or wait for ever.
void refuse_difference(const Config& leaders, const Config& own) {
  const std::vector<ConfigDifference> all = config_differences(leaders, own);
  if (all.empty()) return;
  const auto shown = [](const std::string& value) { return value.empty() ? "not set" : value; };
  fail(ExitCode::config,
       "{} is {} here and {} on rank 0; start all ranks with the same configuration",
       all.front().key, shown(all.front().after), shown(all.front().before));
}

}  // namespace

void refuse_impossible_batches(const Config& config, std::int64_t ranks,
                               std::int64_t consumed_samples) {
  refuse(parallel::ramp_problems(config, ranks, consumed_samples));
}

Job::Job() : launch_(comm::connect()) {
  log::set_rank(launch_.world->rank());
}

Job::~Job() = default;

int Job::threads(std::int64_t configured) const {
  return configured > 0 ? static_cast<int>(configured) : launch_.cores;
}

LoadedConfig Job::load(const std::function<LoadedConfig()>& load_here) {
  LoadedConfig loaded;
  comm::agree(world(), [&] {
    loaded = load_here();
    refuse(parallel::layout_problems(loaded.config, world().size()));
  });
  if (world().size() == 1) return loaded;
  const std::string leaders = comm::broadcast(world(), to_yaml(loaded), 0);
  comm::agree(world(), [&] {
    refuse_difference(saved_config(leaders, "rank 0's configuration"), loaded.config);
  });
  return loaded;
}

void Job::watch(double seconds) {
  watch::Monitor::Options options;
  options.watchdog_seconds = seconds;
  options.end = [](ExitCode code) { comm::abort(code); };
  if (world().size() > 1) monitor_ = std::make_unique<watch::Monitor>(world(), options);
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
