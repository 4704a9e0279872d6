#pragma once
// Saves that run beside training. start() copies the tensors and returns; a thread of each rank
// then writes, commits and prunes together with the same threads of the other ranks, on a
// communicator of their own. Training stops for the copy only.
//
// busy() and poll() look at this rank alone, and ranks end a save at slightly different times. A
// decision that all ranks must share (skip this save? stop after that error?) is therefore made
// from a reduced value, e.g. once a step:
//   if (comm::all_reduce_max(world, saves.busy() ? 1 : 0) == 0) { verdict = saves.poll(); ... }
// All ranks then have the verdict, and it is the same on all: step, bytes and error.
//
// A save that ended here by an error which the others do not know (no memory for a message, a lost
// peer) is no verdict: they may wait for this rank for ever. busy(), start(), poll() and finish()
// throw it, and the job cannot go on.
#include <chrono>
#include <deque>
#include <future>
#include <memory>
#include <optional>

#include "grist/ckpt/checkpoint.h"
#include "grist/core/context.h"
#include "grist/core/memory.h"

namespace grist {

struct SaveVerdict {
  std::int64_t step = 0;
  std::uint64_t bytes = 0;  // of all files but the manifest; 0 when not saved
  double pause = 0;         // seconds for which start() held the caller up
  double seconds = 0;       // from start() to the commit or the error
  int pruned = 0;           // old steps removed
  // Empty: the step is committed and survives a power cut. The same line on all ranks.
  std::optional<Error> error;
};

struct BackgroundSaveOptions {
  Storage* storage = nullptr;                    // null: the disk
  std::uint64_t block_bytes = kCheckpointBlock;  // bytes under one sum
  std::int64_t keep = 0;                         // committed steps kept after each save; 0: all
  // On whose stream tensors of a device are copied, behind the work that fills them; outlives the
  // saves. Null: all tensors lie in host memory.
  const Context* context = nullptr;
  bool asynchronous = true;  // false: start() saves before it returns, and no copy is held
  std::vector<std::int64_t> damaged{};  // steps known to be: not counted (CheckpointOptions)
};

class BackgroundSave {
 public:
  // Collective; `world` must outlive the object. `slices` are those that this rank will save (only
  // their sizes count): room for their copy is taken now, under "checkpoint copy", so that the
  // first save cannot run out of memory.
  BackgroundSave(comm::Communicator& world, const std::filesystem::path& folder, std::string uuid,
                 std::span<const TensorSlice> slices, const BackgroundSaveOptions& options = {},
                 MemoryLedger* ledger = nullptr);
  // Waits for a save that is under way; its verdict is lost.
  ~BackgroundSave();
  BackgroundSave(const BackgroundSave&) = delete;
  BackgroundSave& operator=(const BackgroundSave&) = delete;

  bool busy();  // a save is under way here
  // All ranks call. Waits for the save before, copies what the slices of request.shards point at,
  // and begins. With several ranks, and also alone, `shards` is one list. Throws for a broken
  // contract (more bytes than announced) and as above; everything else is in the verdict.
  void start(SaveRequest request);
  // The verdict of a save that has ended, the oldest first; each comes once.
  std::optional<SaveVerdict> poll();
  // The same, but waits for the save that is under way. Empty: every verdict has been given.
  std::optional<SaveVerdict> finish();

 private:
  using Clock = std::chrono::steady_clock;
  void copy(SaveRequest& request) const;
  struct Ended {
    SaveVerdict verdict;
    bool agreed = true;
  };
  Ended save(const SaveRequest& request, Clock::time_point begin) noexcept;
  void prune(SaveVerdict& verdict);
  void wait();
  void keep(Ended ended);
  void wait_for_thread() const;

  std::shared_ptr<comm::Activity> activity_;  // of the caller's thread
  std::unique_ptr<comm::Communicator> ranks_;
  CheckpointFolder folder_;
  BackgroundSaveOptions options_;
  Buffer copy_;
  SaveRequest request_;  // of the save that is under way; points into copy_
  std::deque<SaveVerdict> verdicts_;
  std::future<Ended> running_;  // last: waits before the rest goes
};

}  // namespace grist
