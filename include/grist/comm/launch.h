#pragma once
// Starting up: one rank alone, or the ranks that mpirun or srun has started, over MPI.
#include <memory>
#include <string>

#include "grist/comm/communicator.h"
#include "grist/core/error.h"

namespace grist::comm {

struct Launch {
  std::unique_ptr<Communicator> world;
  int local_rank = 0;  // among the ranks on this host
  int local_size = 1;
  int cores = 0;  // this rank's share of those that it may run on; 0: all of them are its own
  std::string host;
  bool mpi = false;
};

// Processes that the launcher of the environment says it has started; 1 without a launcher. Starts
// nothing.
int started_processes();

// Call once, early in main. Without a launcher in the environment MPI is never initialised and the
// world is alone(). Throws Error{usage} where launcher and MPI disagree on the number of ranks.
//
// MPI ends with the last communicator of the world, which the thread that called connect()
// destroys. That waits for all ranks; an orderly end therefore is: every rank has waited for all
// its operations and destroys its communicators. While an exception unwinds the stack others may
// wait for this rank for ever, so then nothing is finalised: end the process, by abort() or by a
// non-zero status, on which every launcher stops the other ranks.
Launch connect();

// Ends all ranks with this status, at once and from any thread; the only such end in grist. Flushes
// stdio, destroys nothing.
[[noreturn]] void abort(ExitCode code);

}  // namespace grist::comm
