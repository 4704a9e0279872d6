// `grist verify resume`: a straight run beside one that stops without a save and goes on.
#include <cstring>

#include "grist/ckpt/checkpoint.h"
#include "grist/comm/collectives.h"
#include "grist/core/check.h"
#include "grist/core/file.h"
#include "grist/core/log.h"
#include "grist/record/metrics.h"
#include "grist/record/run_folder.h"
#include "grist/train/training.h"
#include "grist/train/verify.h"
#include "job.h"
#include "run.h"

namespace grist::train {

namespace {

namespace fs = std::filesystem;

std::vector<float> read_tensor(const CheckpointReader& step, const TensorRecord& t) {
  std::vector<float> values(static_cast<std::size_t>(t.shape.numel()));
  const TensorDestination to{.name = t.name,
                             .dtype = t.dtype,
                             .shape = t.shape,
                             .part = whole_part(t.shape),
                             .data = values.data()};
  step.read({&to, 1}, {.ignore_prefixes = {""}, .touched_blocks_only = true});
  return values;
}

// The first difference between two steps' tensors; empty: none. `activity` beats: others wait.
std::string compare_steps(const fs::path& a, const fs::path& b, comm::Activity& activity) {
  const CheckpointReader straight(a), resumed(b);
  for (const TensorRecord& t : straight.manifest().tensors) {
    activity.beat();
    GRIST_CHECK(t.dtype == DType::f32, "{} is {}", t.name, name_of(t.dtype));
    const TensorRecord* other = resumed.manifest().find_tensor(t.name);
    if (other == nullptr || other->shape != t.shape) return t.name + " is not in both";
    const std::vector<float> x = read_tensor(straight, t), y = read_tensor(resumed, *other);
    for (std::size_t i = 0; i < x.size(); ++i)
      if (std::memcmp(&x[i], &y[i], sizeof(float)) != 0)
        return fmt::format("{} element {}: {:.9g} straight, {:.9g} resumed", t.name, i, x[i], y[i]);
  }
  return "";
}

// The records without times, a string each.
std::vector<std::string> metrics_of(const fs::path& run) {
  std::vector<std::string> lines;
  for (const record::Record& r : record::read_metrics(record::RunFolder(run).metrics()))
    lines.push_back(
        std::visit([](const auto& of) { return record::without_times(to_json(of)).dump(); }, r));
  return lines;
}

std::string compare_metrics(const fs::path& a, const fs::path& b) {
  const std::vector<std::string> straight = metrics_of(a), resumed = metrics_of(b);
  for (std::size_t i = 0; i < std::min(straight.size(), resumed.size()); ++i)
    if (straight[i] != resumed[i])
      return fmt::format("metrics line {}:\n  straight {}\n  resumed  {}", i + 1, straight[i],
                         resumed[i]);
  if (straight.size() != resumed.size())
    return fmt::format("{} lines of metrics straight, {} resumed", straight.size(), resumed.size());
  return "";
}

class ResumeTrial {
 public:
  ResumeTrial(Job& job, LoadedConfig loaded, std::int64_t steps)
      : job_(job), loaded_(std::move(loaded)), steps_(steps) {
    folder_ = loaded_.config.run.dir + ".verify";
    Config& c = loaded_.config;
    c.checkpoint.save_interval = steps / 2;
    c.checkpoint.keep = 0;
    c.checkpoint.resume = ResumeMode::auto_;
    c.checkpoint.resume_step = 0;
    c.checkpoint.on_error = OnSaveError::stop;
    c.log.interval = 1;
    c.log.tensorboard = false;
    c.train.train_iters = std::max(c.train.train_iters, steps);
    c.train.train_tokens = 0;  // the steps decide
  }

  ExitCode run() {
    comm::agree(job_.world(), [&] {
      if (job_.leader() && fs::exists(folder_))
        fail(ExitCode::cannot_create, "{}: left by an earlier verification; remove it",
             folder_.string());
    });
    const std::int64_t middle = steps_ / 2;
    log::info("--- straight: {} steps", steps_);
    part("straight", {.stop_after = steps_});
    log::info("--- to step {}, with a checkpoint at {}, ended without a save", middle + 1, middle);
    part("resumed", {.stop_after = middle + 1, .save_at_end = false});
    log::info("--- the same command again, to step {}", steps_);
    part("resumed", {.stop_after = steps_});
    return verdict();
  }

 private:
  void part(const char* name, const TrainOptions& options) {
    LoadedConfig c = loaded_;
    c.config.run.dir = (folder_ / name).string();
    const ExitCode code = Run(std::move(c), options, job_).execute();
    if (code != ExitCode::ok)
      comm::agree(job_.world(), [&] { fail(code, "the verification was stopped"); });
  }

  ExitCode verdict() const {
    std::string difference;
    comm::agree(job_.world(), [&] {
      if (!job_.leader()) return;
      const fs::path a = folder_ / "straight", b = folder_ / "resumed";
      difference = compare_metrics(a, b);
      if (difference.empty())
        difference =
            compare_steps(list_steps(a / "checkpoints").front().folder,
                          list_steps(b / "checkpoints").front().folder, job_.world().activity());
      if (difference.empty()) fs::remove_all(folder_);
    });
    difference = comm::broadcast(job_.world(), difference, 0);
    if (difference.empty()) {
      log::info(
          "resumed and straight run are the same: every number of metrics.jsonl, every bit of "
          "the checkpoint of step {}",
          steps_);
      return ExitCode::ok;
    }
    log::info("THE RUNS DIFFER: {}\nboth are kept in {}", difference, folder_.string());
    return ExitCode::numeric;
  }

  Job& job_;
  LoadedConfig loaded_;
  std::int64_t steps_;
  fs::path folder_;
};

}  // namespace

ExitCode verify_resume(const std::function<LoadedConfig()>& load,
                       const VerifyResumeOptions& options) {
  Job job;
  return job.run([&] {
    LoadedConfig loaded = job.load(load);
    job.watch(loaded.config.parallel.watchdog_seconds);
    return ResumeTrial(job, std::move(loaded), options.steps).run();
  });
}

}  // namespace grist::train
