#pragma once
// Names the rank that died or hangs, and ends the job with one line and one exit code, because MPI
// never notices a stuck rank. Every rank has a monitor thread, joined to rank 0's by a TCP
// connection beside the Communicator; it carries heartbeats (what Activity says), fatal errors and
// rank 0's verdicts.
//
// A dead peer: its connection closes without a good-bye. All ranks end with peer_lost (76).
// A hang: no beat, exchange or wait began on a rank for watchdog_seconds. A rank that is blocked in
// a communicator wait is a victim; who is named is (first that applies)
//   - a rank whose heartbeats stopped (stopped process, lost machine);
//   - a silent rank that is not in a wait (endless loop, blocked read);
//   - when all are silent and wait: the ranks that have begun fewest operations, then fewest waits
//     (an early return from a collective, calls that do not match).
// Then every rank writes the stacks of its threads to stderr, and all end with peer_lost. Somebody
// who beats while the others wait, e.g. a long save, is no hang: long phases must beat.
// A fatal error of one rank (fail()): rank 0 says it once, all ranks end with its code.
// Rank 0 lost or stopped: one living rank of its machine says so, and one of the next machine.
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "grist/comm/communicator.h"
#include "grist/core/error.h"

namespace grist::watch {

class Monitor {
 public:
  struct Options {
    double watchdog_seconds = 30;  // 0: hangs are not looked for; deaths and errors still are
    // Ends this process; called on the monitor's thread, once, after the line is out. It gets two
    // seconds; tests return from it. Default: _exit(code).
    std::function<void(ExitCode)> end = {};
    std::function<void(const std::string&)> say = {};  // one line; default: "error: LINE" on stderr
    bool stacks = true;                                // write stacks when a rank hangs
  };
  // What a monitor needs of the Communicator, for processes without one.
  struct Member {
    int rank = 0;
    int size = 1;
    std::shared_ptr<comm::Activity> activity;
    std::function<std::vector<std::string>(const std::string&)> all_gather;  // texts in rank order
  };

  // All ranks construct; starts the thread. With one rank there is no thread. Throws peer_lost when
  // a rank cannot connect to rank 0 within 30 seconds.
  Monitor(comm::Communicator& c, Options options);
  Monitor(const Member& member, Options options);
  // stop(). A rank that leaves by an error which the others do not have calls fail() before, or
  // they wait for it until the watchdog bites.
  ~Monitor();
  Monitor(const Monitor&) = delete;
  Monitor& operator=(const Monitor&) = delete;

  // This rank cannot go on, and the others do not know (an error that is not Agreed): the line
  // "rank R: message", and the job ends with this code. Any thread. Returns only if options.end
  // does.
  void fail(ExitCode code, const std::string& message);

  // The orderly end: says good-bye, and blocks until every rank has. A rank that never comes is
  // found as in any other phase.
  void stop();

  class Thread;  // src/watch/monitor_thread.h

 private:
  std::unique_ptr<Thread> thread_;  // null with one rank
  Options options_;
};

}  // namespace grist::watch
