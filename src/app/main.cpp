// The grist binary: parse, run, and turn whatever is thrown into one line and an exit code.
#include <cerrno>
#include <cstdio>
#include <exception>
#include <new>
#include <type_traits>

#include "backends.h"
#include "command_line.h"
#include "grist/comm/launch.h"
#include "grist/core/check.h"
#include "grist/core/context.h"
#include "grist/core/log.h"
#include "grist/core/stop.h"

namespace grist::app {
namespace {

template <class A>
constexpr bool kOnManyRanks =
    std::is_same_v<A, TrainArguments> || std::is_same_v<A, VerifyParallelArguments> ||
    std::is_same_v<A, VerifyResumeArguments> || std::is_same_v<A, EvalArguments> ||
    std::is_same_v<A, Exit>;

// Several processes of a command that knows no ranks would all write the same files.
template <class A> ExitCode run_here(const A& arguments) {
  const int processes = kOnManyRanks<A> ? 1 : comm::started_processes();
  if (processes > 1)
    fail(ExitCode::usage,
         "the launcher has started {} processes, but this command is for one: start it without "
         "mpirun or srun",
         processes);
  return run(arguments);
}

}  // namespace
}  // namespace grist::app

int main(int argc, char** argv) {
  using grist::ExitCode;
  ExitCode code = ExitCode::internal;
  try {
    grist::flush_denormals();
    grist::install_stop_handlers();
    grist::app::offer_backends();
    code = std::visit([](const auto& arguments) { return grist::app::run_here(arguments); },
                      grist::app::parse_command_line(argc, argv));
  } catch (const grist::Error& e) {
    grist::log::error("{}", e.what());
    code = e.code();
  } catch (const std::bad_alloc&) {
    grist::log::error("out of memory");
    code = ExitCode::out_of_memory;
  } catch (const std::exception& e) {
    grist::log::error("internal error: {}", e.what());
  }
  errno = 0;
  const bool unwritten = std::fflush(stdout) != 0 || std::ferror(stdout) != 0;
  if (code == ExitCode::ok && unwritten && errno != EPIPE) {
    grist::log::error("standard output: write failed");
    code = ExitCode::io;
  }
  return static_cast<int>(code);
}
