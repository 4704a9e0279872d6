#pragma once
// Many ranks that save and load the small model of fixture.h: who holds what, and what is asked of
// them again and again.
#include <atomic>
#include <functional>
#include <mutex>

#include "ckpt/fixture.h"
#include "grist/ckpt/background_save.h"
#include "grist/comm/collectives.h"
#include "grist/comm/local.h"

namespace grist::test {

// Elements of `t` that a rank holds: an expert's are cut among the ranks of one half, large dense
// ones among all, small ones whole on rank 0. `cut` moves the edges, so that layouts differ.
inline std::pair<std::int64_t, std::int64_t> range_of(const TensorSpec& t, int rank, int world,
                                                      std::int64_t cut) {
  const std::int64_t n = t.shape.numel();
  if (n < 10) return rank == 0 ? std::pair{std::int64_t{0}, n} : std::pair{n, n};
  int first = 0, members = world;
  if (world > 1 && t.name.find("experts") != std::string::npos) {
    members = world / 2;
    first = t.name.find("experts.1") != std::string::npos ? members : 0;
  }
  const int place = rank - first;
  if (place < 0 || place >= members) return {n, n};
  const auto edge = [&](std::int64_t p) {
    if (p == 0 || p == members) return p == 0 ? std::int64_t{0} : n;
    return std::min(n, (n * p / members + cut) / 4 * 4);  // increasing: pieces are longer than 4
  };
  return {edge(place), edge(place + 1)};
}

inline std::vector<TensorSlice> rank_slices(State& state, int rank, int world, std::int64_t cut) {
  std::vector<TensorSlice> out;
  for (const TensorSpec& t : state.specs()) {
    const auto [begin, end] = range_of(t, rank, world, cut);
    if (begin == end && rank > 0) continue;
    out.push_back(
        {.name = t.name,
         .dtype = t.dtype,
         .shape = t.shape,
         .part = {.begin = begin, .end = end},
         .data = state.bytes(t.name).data() + static_cast<std::size_t>(begin) * size_of(t.dtype)});
  }
  return out;
}

inline std::vector<TensorDestination> rank_destinations(State& state, int rank, int world,
                                                        std::int64_t cut) {
  std::vector<TensorDestination> out;
  for (const TensorSpec& t : state.specs()) {
    const auto [begin, end] = range_of(t, rank, world, cut);
    if (begin == end && rank > 0) continue;
    out.push_back(
        {.name = t.name,
         .dtype = t.dtype,
         .shape = t.shape,
         .part = {.begin = begin, .end = end},
         .data = state.bytes(t.name).data() + static_cast<std::size_t>(begin) * size_of(t.dtype)});
  }
  return out;
}

inline SaveRequest rank_request(State& state, std::int64_t step, const comm::Communicator& c,
                                std::int64_t cut = 0) {
  SaveRequest request = request_of(state, step, 1);
  request.shards = {rank_slices(state, c.rank(), c.size(), cut)};
  return request;
}

inline SavedStep save_step(CheckpointFolder& folder, const comm::Communicator& c, std::int64_t step,
                           std::int64_t cut = 0) {
  State state(step);
  return folder.save(rank_request(state, step, c, cut));
}

// The step that all ranks load, each its part compared with what was saved; -1: there is none.
inline std::int64_t loaded_step(comm::Communicator& c, const std::filesystem::path& folder,
                                std::int64_t cut = 0) {
  State got(-1);
  const auto wanted = rank_destinations(got, c.rank(), c.size(), cut);
  const auto reader = load_newest(c, folder, wanted);
  if (!reader) return -1;
  State want(reader->step());
  for (const TensorDestination& d : wanted) {
    if (d.part.begin == d.part.end) continue;  // nothing, at no address
    const std::size_t width = size_of(d.dtype);
    EXPECT_EQ(
        std::memcmp(d.data,
                    want.bytes(d.name).data() + static_cast<std::size_t>(d.part.begin) * width,
                    static_cast<std::size_t>(d.part.end - d.part.begin) * width),
        0)
        << "rank " << c.rank() << " of " << c.size() << ", step " << reader->step() << ", "
        << d.name;
  }
  EXPECT_EQ(reader->text("config.yaml"), "seed: " + std::to_string(reader->step()) + "\n");
  return reader->step();
}

// Error code and text of each rank.
struct Outcome {
  ExitCode code = ExitCode::ok;
  std::string what;
  bool operator==(const Outcome&) const = default;
};

template <class F> Outcome outcome_of(F&& f) {
  Outcome out;
  out.code = code_of(std::forward<F>(f), &out.what);
  return out;
}

}  // namespace grist::test
