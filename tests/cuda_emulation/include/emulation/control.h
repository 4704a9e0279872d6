#pragma once
// For tests: how the emulation orders what a program leaves open, and what it found.
#include <cstdint>
#include <string>

namespace grist::emu {

enum class Order { forward, reverse, random_lanes, random_warps, random_priorities };
// When asynchronous copies within a kernel take place: at once, as late as is allowed, or between.
enum class Async { eager, lazy, random };
// When work on streams takes place: in the call, or when the host waits, from a random ready
// stream.
enum class Streams { immediate, deferred };

struct Options {
  Order order = Order::forward;
  Async async = Async::eager;
  Streams streams = Streams::immediate;
  std::uint64_t seed = 0;
};
// From the environment (docs/emulation.md) where it says something. Takes effect at the next
// launch; setting it ends what is on the streams.
Options options();
void set_options(const Options& o);

// What was wrong with the last failed launch or call; empty: nothing since the last call of this.
std::string take_report();

}  // namespace grist::emu
