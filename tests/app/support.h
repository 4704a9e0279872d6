#pragma once
// Running the real binary: a small world to run it in (corpus, tokenizer, token files, a
// configuration), the process with what it said, and what a run folder holds afterwards.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "grist/core/json.h"
#include "support/scale.h"
#include "support/temporary_folder.h"

namespace grist::test {

struct Outcome {
  int code = -1;   // exit status; -1: ended by a signal
  int signal = 0;  // that ended it
  std::string out, err;
  std::int64_t peak_bytes = 0;  // resident
};
std::ostream& operator<<(std::ostream& stream, const Outcome& o);  // for EXPECT_EQ(...) << o

using Arguments = std::vector<std::string>;

// The binary, started in `folder` (its output goes to files there). Killed when it is forgotten.
class Child {
 public:
  // ranks > 0: that many, under mpirun; signals then go to mpirun.
  Child(const std::filesystem::path& folder, const Arguments& arguments, int ranks = 0);
  ~Child();
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  bool running();
  // Sleeps; true when it still runs after that.
  bool outlives(std::chrono::microseconds time);
  void send(int signal) const;
  std::string warnings_so_far() const;  // what it has written to stderr
  // Process ids by rank, of those that live; 0 where there is none (yet).
  std::vector<int> rank_pids() const;
  void kill_all() const;  // SIGKILL to mpirun and to every rank
  Outcome wait();
  // wait() had to end an mpirun that had hung: what that test then says is no verdict on grist.
  static bool a_launcher_hung();

 private:
  void collect(int status);
  std::string output_;  // path prefix
  int pid_ = -1;
  int ranks_ = 0;
  Outcome outcome_;
};

// What every test works with. Paths in the configuration are relative to the folder.
class World {
 public:
  World();
  const std::filesystem::path& path() const { return folder_.path(); }
  std::filesystem::path operator/(std::string_view name) const { return folder_ / name; }
  void write(std::string_view name, std::string_view text) const { folder_.write(name, text); }

  Outcome run(const Arguments& arguments, int ranks = 0) const {
    return Child(path(), arguments, ranks).wait();
  }
  // grist train tiny.yaml --set run.dir=RUN --set ...
  Arguments train_arguments(const std::string& run, const Arguments& sets = {}) const;
  Outcome train(const std::string& run, const Arguments& sets = {}, int ranks = 0) const;

 private:
  TemporaryFolder folder_;
};
const World& world();  // made when first asked for, once a process

// Reproducible documents of words without meaning, one a line of JSON.
std::string word_salad(int documents, std::uint64_t seed);
extern const char* const kTinyConfig;

// A small file system for a full disk; needs root.
class SmallDisk {
 public:
  SmallDisk(std::filesystem::path at, const char* size);  // size: of tmpfs, e.g. "4m"
  ~SmallDisk();
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  bool mounted() const { return mounted_; }
  void leave(std::uint64_t kib);  // keeps all but about this much filled
  void make_space();              // until here

 private:
  std::filesystem::path at_;
  bool mounted_ = false;
  std::jthread filler_;
};

// Waits until rank `rank` lives and the run has reached `step`: its process id, or 0 if the run
// ends before or a minute passes.
int rank_at_step(Child& child, const std::string& run, int rank, int step);
bool reaches_step(Child& child, const std::string& run, int step);
int steps_reached(const std::string& run);  // lines of metrics.jsonl, 0 without one

// ---- what a run leaves ---------------------------------------------------------------------

std::vector<Json> metrics_records(const std::filesystem::path& run);
// Lines of metrics.jsonl without the fields that hold times.
std::vector<std::string> metrics_lines(const std::filesystem::path& run);
// Numbers of the steps that have a checkpoint, ascending.
std::vector<int> saved_steps(const std::filesystem::path& run);
std::filesystem::path step_folder(const std::filesystem::path& run, int step);
std::map<std::string, std::string> tensors(const std::filesystem::path& step);  // name -> bytes
Json manifest_state(const std::filesystem::path& step);
void flip_byte(const std::filesystem::path& file, std::uint64_t at);
std::filesystem::path shard_of(const std::filesystem::path& run, int step);
// Everything below a folder, for "nothing was written".
std::vector<std::string> tree(const std::filesystem::path& folder);
std::vector<std::string> lines(const std::string& text);
// What grist wrote to standard error but that a rank is slow, which on a busy machine may be so:
// mpirun has words of its own.
std::vector<std::string> warnings_and_errors(const Outcome& o);
bool is_of_repetition(const std::string& line);  // the warning of data read many times
int occurrences(const std::string& text, const std::string& word);

// Same metrics and the same bytes in the last checkpoint.
void expect_same_run(const std::filesystem::path& got, const std::filesystem::path& want);
// Exit code, and one line on standard error that begins with "error: " and has all the words.
void expect_refusal(const Outcome& o, int code, const std::vector<std::string>& words);

}  // namespace grist::test
