// grist train: loads the configuration and runs it.
#include "command_line.h"
#include "grist/train/training.h"

namespace grist::app {

ExitCode run(const TrainArguments& a) {
  return train::run_training([&] { return load_config(a.config, a.sets); }, {.dry_run = a.dry_run});
}

}  // namespace grist::app
