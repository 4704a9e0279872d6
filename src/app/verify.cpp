#include "grist/train/verify.h"

#include "command_line.h"

namespace grist::app {

ExitCode run(const VerifyParallelArguments& a) {
  return train::verify_parallel(
      [&] { return load_config(a.config, a.sets); },
      {.steps = a.steps, .reference_all_ranks = a.reference == "all-ranks"});
}

ExitCode run(const VerifyResumeArguments& a) {
  return train::verify_resume([&] { return load_config(a.config, a.sets); }, {.steps = a.steps});
}

}  // namespace grist::app
