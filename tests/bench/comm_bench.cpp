// Transports beside memcpy: an all-to-all, a reduce-scatter and a barrier, in turn with a plain
// copy of the bytes that the all-to-all brings to a rank.
// Usage: comm_bench [rounds] [MiB a rank]: threads of one process, 2 and 4 ranks.
//        mpirun -n N comm_bench [rounds] [MiB a rank]: the ranks of MPI.
#include <fmt/core.h>

#include <cstdlib>
#include <cstring>

#include "bench/bench.h"
#include "grist/comm/collectives.h"
#include "grist/comm/launch.h"
#include "grist/comm/local.h"
#include "grist/core/context.h"
#include "grist/ops/optimizer.h"

namespace {

using namespace grist;
using bench::Case;
using bench::random_tensor;
using comm::Communicator;

constexpr int kBarriers = 200;

struct Data {
  std::vector<Buffer> keep;
  TensorView send, receive, staging;
  std::vector<std::int64_t> offsets;

  Data(const Communicator& c, std::int64_t elements)
      : send(random_tensor(keep, {elements}, "send")),
        receive(random_tensor(keep, {elements}, "receive")),
        staging(random_tensor(keep, {c.size(), elements / c.size()}, "staging")) {
    for (int p = 0; p <= c.size(); ++p) offsets.push_back(p * (elements / c.size()));
  }
};

void reduce_scatter(Communicator& c, const Data& d) {
  gather_parts(c, d.send, d.offsets, d.staging).wait();
  const auto self = static_cast<std::size_t>(c.rank());
  ops::tree_add({},
                {.sum = rows(d.send, d.offsets[self], d.offsets[self + 1]), .parts = d.staging});
}

std::vector<Case> cases(Communicator& c, Data& d) {
  return {
      {"copy", 0, [&d] { std::memcpy(d.receive.data, d.send.data, d.send.bytes()); }, {}},
      {"all-to-all", 0, [&] { all_to_all(c, d.send, d.offsets, d.receive, d.offsets).wait(); }, {}},
      {"reduce-scatter", 0, [&] { reduce_scatter(c, d); }, {}},
      {"barriers",
       0,
       [&] {
         for (int i = 0; i < kBarriers; ++i) barrier(c);
       },
       {}},
  };
}

// The ranks begin each case together, and the slowest one's time counts.
void measure(Communicator& c, std::vector<Case>& all, int rounds) {
  for (Case& one : all) one.run();
  for (int round = 0; round < rounds; ++round) {
    for (Case& one : all) {
      barrier(c);
      const double begin = bench::seconds_now(bench::Clock::wall);
      one.run();
      const double own = bench::seconds_now(bench::Clock::wall) - begin;
      one.seconds.push_back(
          static_cast<double>(all_reduce_max(c, static_cast<std::int64_t>(own * 1e9))) * 1e-9);
    }
  }
}

void report(Communicator& c, const char* transport, int rounds, std::int64_t mib) {
  const std::int64_t elements = (mib << 20) / 4 / c.size() * c.size();
  Data d(c, elements);
  std::vector<Case> all = cases(c, d);
  measure(c, all, rounds);
  if (c.rank() != 0) return;
  const auto bytes = static_cast<double>(d.send.bytes());
  const double copy = all[0].median();
  fmt::print("{:<6} {:>5} {:>8.2f} {:>12.2f} {:>5.0f} % {:>12.2f} {:>5.0f} % {:>12.1f}\n",
             transport, c.size(), bytes / copy * 1e-9, bytes / all[1].median() * 1e-9,
             100 * copy / all[1].median(), bytes / all[2].median() * 1e-9,
             100 * copy / all[2].median(), all[3].median() / kBarriers * 1e6);
}

}  // namespace

int main(int argc, char** argv) {
  flush_denormals();
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 11;
  const std::int64_t mib = argc > 2 ? std::atoi(argv[2]) : 32;
  comm::Launch launch = comm::connect();
  if (launch.world->rank() == 0) {
    fmt::print(
        "{} MiB a rank, {} rounds in turn, medians of the slowest rank; all ranks copy at once\n"
        "                        all-to-all          reduce-scatter       barrier\n"
        "       ranks     GB/s         GB/s  of copy         GB/s  of copy   microseconds\n",
        mib, rounds);
  }
  if (launch.mpi) {
    report(*launch.world, "mpi", rounds, mib);
  } else {
    for (const int ranks : {2, 4})
      comm::run_local(ranks, [&](Communicator& c) { report(c, "local", rounds, mib); });
  }
}
