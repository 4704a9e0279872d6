// grist checkpoint: lists and verifies the steps of a checkpoint folder.
#include <cstdio>

#include "command_line.h"
#include "grist/ckpt/report.h"

namespace grist::app {

namespace {
ExitCode print(const CheckpointReport& report) {
  std::fputs(report.text.c_str(), stdout);
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
