#pragma once
// Errors and exit codes. Every failure is thrown once, at the boundary where a user can act on it,
// as an Error that carries one line (what, where, what to do) and the exit code that a script or a
// scheduler reads.
#include <stdexcept>
#include <string>

namespace grist {

// The process's exit status. Values follow sysexits.h where it has one; 75 and 76 mean "start the
// same command again".
enum class ExitCode : int {
  ok = 0,
  usage = 64,  // bad command line
  bad_data =
      65,  // corrupt or malformed input: token files, tokenizer, checkpoint without a good fallback
  not_found = 66,           // an input that does not exist
  device_unavailable = 69,  // no driver, no device, or one that is not supported
  internal = 70,            // a bug of ours
  out_of_memory = 71,       // device or host memory
  cannot_create = 73,       // an output that cannot be created, or belongs to another run
  io = 74,                  // read or write failed, disk full
  preempted = 75,           // stopped by a signal or time limit; saved; resumable
  peer_lost = 76,           // a rank died or hung; the last checkpoint is usable
  config = 78,              // wrong YAML or --set
  numeric = 79,             // too many non-finite steps
  no_progress = 93,         // three restarts without a new step
};

class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ExitCode code() const noexcept { return code_; }

 private:
  ExitCode code_;
};

}  // namespace grist
