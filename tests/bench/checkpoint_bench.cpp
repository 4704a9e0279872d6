// Save and load rates of a step with many ranks beside what dd does to the same disk, and the pause
// of a background save beside a plain copy of the same bytes. All in turn, round after round.
//
//   checkpoint_bench [rounds 5] [MiB 1024] [folder /tmp]     the folder decides which disk
#include <cstring>
#include <filesystem>
#include <map>

#include "bench/bench.h"
#include "grist/ckpt/background_save.h"
#include "grist/comm/local.h"
#include "grist/core/check.h"

namespace grist::bench {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kTensors = 32;
constexpr const char* kRun = "bench";

struct Bench {
  fs::path folder;
  std::int64_t elements = 0;  // of each tensor
  std::vector<Buffer> keep{};
  std::vector<TensorView> state{}, loaded{};
  std::map<std::string, std::vector<double>> rates{};  // GB/s, one a round; pauses in seconds

  double gigabytes() const { return static_cast<double>(kTensors * elements) * 4e-9; }
  template <class F> void rate(const std::string& name, F&& run) {
    const double begin = seconds_now(Clock::wall);
    run();
    rates[name].push_back(gigabytes() / (seconds_now(Clock::wall) - begin));
  }
  double median(const std::string& name) const {
    return Case{.name = name, .run = {}, .seconds = rates.at(name)}.median();
  }
  // Of the ratios within the rounds: the disk is not the same from minute to minute.
  double ratio(const std::string& a, const std::string& b) const {
    Case c{.name = a, .run = {}, .seconds = rates.at(a)};
    for (std::size_t i = 0; i < c.seconds.size(); ++i) c.seconds[i] /= rates.at(b)[i];
    return c.median();
  }

  // Every rank's part of every tensor, as ZeRO cuts it.
  template <class Slice>
  std::vector<Slice> parts(const std::vector<TensorView>& of, int rank, int world) const {
    std::vector<Slice> out;
    for (std::size_t i = 0; i < of.size(); ++i) {
      Slice s{.name = fmt::format("t{:02}", i), .dtype = DType::f32, .shape = {elements}};
      s.part.begin = elements * rank / world;
      s.part.end = elements * (rank + 1) / world;
      s.data = of[i].as<float>() + s.part.begin;
      out.push_back(s);
    }
    return out;
  }
};

void shell(const std::string& command) {
  if (std::system((command + " 2>/dev/null").c_str()) != 0)  // NOLINT: single-threaded here
    fail(ExitCode::io, "failed: {}", command);
}

void save(Bench& b, int world) {
  comm::run_local(world, [&](comm::Communicator& c) {
    CheckpointFolder folder(b.folder / "c", kRun, {.communicator = &c});
    folder.save({.step = 1, .shards = {b.parts<TensorSlice>(b.state, c.rank(), world)}});
  });
}

void load(Bench& b, int world) {
  comm::run_local(world, [&](comm::Communicator& c) {
    load_newest(c, b.folder / "c", b.parts<TensorDestination>(b.loaded, c.rank(), world));
  });
}

void disk_round(Bench& b, int world) {
  const std::string dd = (b.folder / "dd").string();
  const auto count = static_cast<std::int64_t>(b.gigabytes() * 1e9) >> 23;
  const std::string write = fmt::format("dd if=/dev/zero of={} bs=8M count={} ", dd, count);
  const std::string key = std::to_string(world);
  fs::remove_all(b.folder / "c");
  b.rate("save" + key, [&] { save(b, world); });
  b.rate("direct" + key, [&] { shell(write + "oflag=direct conv=fsync"); });
  b.rate("load" + key, [&] { load(b, world); });
  b.rate("read" + key, [&] { shell("dd if=" + dd + " of=/dev/null bs=8M iflag=direct"); });
  fs::remove(dd);
  b.rate("buffered" + key, [&] { shell(write + "conv=fsync"); });
  fs::remove(dd);
}

void pause_round(Bench& b, BackgroundSave& saves, const Buffer& target) {
  saves.start({.step = 1, .shards = {b.parts<TensorSlice>(b.state, 0, 1)}});
  const auto verdict = saves.finish();
  if (verdict->error) throw *verdict->error;
  b.rates["pause"].push_back(verdict->pause);
  const double begin = seconds_now(Clock::wall);
  std::size_t at = 0;
  for (const TensorView& t : b.state) {
    std::memcpy(target.data() + at, t.data, t.bytes());
    at += t.bytes();
  }
  b.rates["memcpy"].push_back(seconds_now(Clock::wall) - begin);
}

void run(Bench& b, int rounds) {
  const auto alone = comm::alone();
  BackgroundSave saves(*alone, b.folder / "c", kRun, b.parts<TensorSlice>(b.state, 0, 1));
  const Buffer target(static_cast<std::size_t>(b.gigabytes() * 1e9), Device::cpu, "copy");
  for (int round = 0; round < rounds; ++round) {
    for (const int world : {1, 2, 4}) disk_round(b, world);
    pause_round(b, saves, target);
  }
  fmt::print("{:.2f} GB, {} rounds in turn; GB/s (medians), ratios within the rounds (medians)\n",
             b.gigabytes(), rounds);
  fmt::print(
      "ranks   save  dd direct  dd buffered  save/direct  save/buffered   load  dd read  "
      "load/read\n");
  for (const char* w : {"1", "2", "4"}) {
    const auto key = [&](const char* name) { return std::string(name) + w; };
    fmt::print(
        "{:>5}  {:>5.2f}  {:>9.2f}  {:>11.2f}  {:>11.2f}  {:>13.2f}  {:>5.2f}  {:>7.2f}  "
        "{:>9.2f}\n",
        w, b.median(key("save")), b.median(key("direct")), b.median(key("buffered")),
        b.ratio(key("save"), key("direct")), b.ratio(key("save"), key("buffered")),
        b.median(key("load")), b.median(key("read")), b.ratio(key("load"), key("read")));
  }
  fmt::print("background save, 1 rank: pause {:.3f} s, memcpy {:.3f} s, pause/memcpy {:.2f}\n",
             b.median("pause"), b.median("memcpy"), b.ratio("pause", "memcpy"));
}

}  // namespace
}  // namespace grist::bench

int main(int argc, char** argv) {
  using namespace grist;
  using namespace grist::bench;
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 5;
  const std::int64_t mebibytes = argc > 2 ? std::atoll(argv[2]) : 1024;
  std::string folder = std::string(argc > 3 ? argv[3] : "/tmp") + "/grist-checkpoint-bench-XXXXXX";
  if (::mkdtemp(folder.data()) == nullptr) {
    fmt::print(stderr, "cannot make {}\n", folder);
    return 1;
  }
  Bench b{.folder = folder, .elements = (mebibytes << 20) / 4 / kTensors};
  for (std::int64_t i = 0; i < kTensors; ++i) {
    b.state.push_back(random_tensor(b.keep, {b.elements}, fmt::format("state {}", i)));
    b.loaded.push_back(random_tensor(b.keep, {b.elements}, fmt::format("loaded {}", i)));
  }
  int status = 0;
  try {
    run(b, rounds);
  } catch (const std::exception& e) {
    fmt::print(stderr, "{}\n", e.what());
    status = 1;
  }
  fs::remove_all(folder);
  return status;
}
