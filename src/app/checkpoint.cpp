// grist checkpoint: lists and verifies the steps of a checkpoint folder.
#include "command_line.h"
#include "grist/ckpt/report.h"
#include "grist/core/output.h"

namespace grist::app {

namespace {
ExitCode print(const CheckpointReport& report) {
  write_output(report.text);
  return report.ok ? ExitCode::ok : ExitCode::bad_data;
}
}  // namespace

ExitCode run(const CheckpointLsArguments& a) {
  return print(checkpoint_ls(a.path));
}
ExitCode run(const CheckpointVerifyArguments& a) {
  return print(checkpoint_verify(a.path));
}

}  // namespace grist::app
