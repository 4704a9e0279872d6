// A program whose ranks end in ways that a test of a library cannot: faults_test.cpp starts it
// under mpirun and looks at the status and the message. Like grist's main it turns an error into a
// line and a status. Usage: faulty_rank WAY
#include <fmt/core.h>

#include <csignal>
#include <cstdio>
#include <string>
#include <vector>

#include "grist/comm/collectives.h"
#include "grist/comm/launch.h"
#include "grist/core/check.h"

namespace {

using namespace grist;
using comm::Communicator;
using comm::Receive;
using comm::Send;

// Rank 0 sends, rank 1 receives.
void pair(Communicator& c, std::size_t sent, std::size_t expected) {
  std::vector<std::byte> bytes(c.rank() == 0 ? sent : expected);
  const Send send{1, bytes};
  const Receive receive{0, bytes};
  if (c.rank() == 0) c.exchange({&send, 1}, {}).wait();
  if (c.rank() == 1) c.exchange({}, {&receive, 1}).wait();
  barrier(c);
}

void go_wrong(Communicator& c, const std::string& way) {
  const bool culprit = c.rank() == 1;
  if (way == "abort" && culprit) comm::abort(ExitCode::io);
  if (way == "kill" && culprit) raise(SIGKILL);
  if (way == "throw" && culprit) fail(ExitCode::io, "disk full");
  if (way == "unwind" && culprit) {  // past an operation that cannot end
    std::byte never{};
    const Receive receive{0, {&never, 1}};
    const comm::Pending pending = c.exchange({}, {&receive, 1});
    fail(ExitCode::io, "disk full");
  }
  if (way == "agreed")
    comm::agree(c, [&] {
      if (culprit) fail(ExitCode::config, "no such key");
    });
  if (way == "short") pair(c, 4, 8);
  if (way == "long") pair(c, 8, 4);
  barrier(c);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const comm::Launch launch = comm::connect();
    go_wrong(*launch.world, argc > 1 ? argv[1] : "");
    if (launch.world->rank() == 0) fmt::print("{} ranks, all is well\n", launch.world->size());
    return 0;
  } catch (const Error& e) {
    fmt::print(stderr, "error: {}\n", e.what());
    return static_cast<int>(e.code());
  }
}
