#pragma once
// Who hangs: the rule of watch/monitor.h on what rank 0 knows. Pure, so that every case has a test
// without sockets and clocks.
#include <cstdint>
#include <optional>
#include <span>
#include <string>

namespace grist::watch {

struct RankSeen {
  int rank = 0;
  std::string name;  // "rank 3 (host a, pid 17)"
  std::int64_t step = -1;
  std::string phase;
  std::uint64_t operations = 0, waits = 0;
  bool waiting = false;
  bool left = false;   // has said good-bye, `silent` seconds ago
  double silent = 0;   // seconds since anything moved
  double unheard = 0;  // seconds since the last heartbeat
};

// The line that names the culprit, or nothing when no rank hangs. seconds > 0.
std::optional<std::string> find_hang(std::span<const RankSeen> ranks, double seconds);

// "rank 3", "ranks 3, 4, 5"; more than eight are counted: "ranks 0, 1, 2, ... (63 in all)".
std::string rank_list(std::span<const int> ranks);

}  // namespace grist::watch
