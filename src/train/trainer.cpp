#include "grist/train/trainer.h"

#include "run.h"

namespace grist::train {

ExitCode run_training(LoadedConfig config, const TrainOptions& options) {
  return Run(std::move(config), options).execute();
}

}  // namespace grist::train
