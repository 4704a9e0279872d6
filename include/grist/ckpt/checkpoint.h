#pragma once
// Checkpoints of a run: `<run>/checkpoints/step-00001000/` holds safetensors shards, texts and
// manifest.json. A step is written aside, synced, and committed by one rename; whoever sees a
// folder named step-N sees a whole step. Loading checks every byte against the manifest's sums
// before it counts, and goes on to the step before when one is damaged. The format and the order of
// operations: docs/formats/checkpoint.md.
//
// Tensors are stored in parts (core/tensor_part.h), any number of parts in any number of shards,
// and a reader asks for the parts it wants, so any layout loads any other. With several ranks each
// writes one shard and reads its own ranges; what the file system says is asked by rank 0 and told
// to the others, and one rank's failure is every rank's.
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "grist/ckpt/manifest.h"
#include "grist/ckpt/storage.h"
#include "grist/comm/communicator.h"
#include "grist/core/device_id.h"

namespace grist {

// A random UUID (version 4) for a new run.
std::string new_uuid();

// ---- saving ----------------------------------------------------------------------------------

// A part of a global tensor; `data` points at its first element, the others follow.
struct TensorSlice {
  std::string name{};  // global name; no '@'
  DType dtype = DType::f32;
  Shape shape{};  // of the whole tensor
  TensorPart part{};
  const void* data = nullptr;
  // Where it lies. What is not on the CPU must be copied before folder.save() (BackgroundSave
  // does).
  Device device = Device::cpu;
};
TensorSlice whole(std::string name, const ConstTensorView& view);

struct TextFile {  // e.g. config.yaml, tokenizer.json
  std::string name{};
  std::string text{};
};

// With several ranks: `step` is the same everywhere, `shards` is one list, this rank's file; the
// rest counts on rank 0 only.
struct SaveRequest {
  std::int64_t step = 0;
  std::int64_t parent_step = -1;
  Json layout = Json::object();  // e.g. {"world": 1}
  Json state = Json::object();   // comes back from CheckpointReader::state()
  // One list a file. Those of all ranks together tile each tensor.
  std::vector<std::vector<TensorSlice>> shards{};
  std::vector<TextFile> texts{};
  // Gives the bytes of a whole tensor without `data`, front to back in any pieces, when it is
  // written: for one rank that cannot hold all of them.
  std::function<void(const std::string& name,
                     const std::function<void(std::span<const std::byte>)>& append)>
      source{};
};

struct SavedStep {
  std::filesystem::path folder{};
  std::uint64_t bytes = 0;  // of all files but the manifest
};

struct CheckpointOptions {
  Storage* storage = nullptr;                    // null: the disk
  std::uint64_t block_bytes = kCheckpointBlock;  // bytes under one sum
  // The ranks that save together; null: this one alone. Must outlive the folder object. Its
  // Activity beats with every block that is written.
  comm::Communicator* communicator = nullptr;
  // Steps that this process found damaged when it loaded (ReadOptions::passed_over). Their sizes
  // may be right, so prune() would count them; until they are saved again it does not.
  std::vector<std::int64_t> damaged{};
};

// How far verify and prune look: `sizes` reads the manifest and asks for file sizes, `blocks` reads
// every byte.
enum class VerifyDepth : std::uint8_t { sizes, blocks };

struct StepInfo {
  std::int64_t step = 0;
  std::filesystem::path folder{};
};

// The checkpoints folder of one run, as its writer sees it. One object a rank; with several ranks
// every function that writes is collective, and returns the same or throws the same comm::Agreed on
// all of them. When a rank is lost meanwhile, the others throw Error{peer_lost} and leave what was
// written aside to the next start's sweep().
class CheckpointFolder {
 public:
  CheckpointFolder(std::filesystem::path folder, std::string uuid,
                   const CheckpointOptions& options = {});

  // Writes and commits a step; when it returns, the step survives kill -9 and a power cut. A
  // committed step of the same number is replaced in one exchange (a step of another run is
  // Error{cannot_create}). On failure nothing named step-N has changed, what was written aside is
  // removed, and the error names path and reason; a later save uses another name.
  SavedStep save(const SaveRequest& request);

  // Removes all but the newest `keep` steps that verify to `depth` (0 keeps all). Steps that do not
  // verify or are known to be damaged are not counted, and stay when they are newer than the oldest
  // kept one. Failures are warnings. Returns the number removed.
  int prune(std::int64_t keep, VerifyDepth depth = VerifyDepth::sizes);

  // Removes what killed saves and prunes left (.tmp-*, .del, .old), unless a live process holds it,
  // and gives a step back its name if its replacement was interrupted. Call at start, before
  // loading. Failures are warnings. Returns the number of leftovers removed.
  int sweep();

  const std::filesystem::path& path() const { return folder_; }

 private:
  friend class StepWriter;
  Storage& storage() { return storage_ == nullptr ? disk_ : *storage_; }
  comm::Communicator& ranks() { return communicator_ == nullptr ? *alone_ : *communicator_; }
  int prune_here(std::int64_t keep, VerifyDepth depth);
  bool counts(const StepInfo& step, VerifyDepth depth) const;
  int sweep_here();

  std::filesystem::path folder_;
  std::string uuid_;
  comm::Communicator* communicator_;  // null: alone_
  std::unique_ptr<comm::Communicator> alone_ = comm::alone();
  DiskStorage disk_;
  Storage* storage_;  // null: disk_
  std::uint64_t block_bytes_;
  std::set<std::int64_t> damaged_;
  std::int64_t attempt_ = 0;  // part of the names aside; never used twice
};

// ---- finding ---------------------------------------------------------------------------------

// Committed steps, newest first; empty when there are none or no folder. Nothing is verified.
std::vector<StepInfo> list_steps(const std::filesystem::path& folder);

// Steps that a path given by a user means, best first: a step folder itself; a checkpoints folder,
// its `latest` file or a run folder: all its steps, newest first. Error{not_found} when it is none
// of these or holds none.
std::vector<StepInfo> resolve_steps(const std::filesystem::path& path);

struct VerifyReport {
  std::filesystem::path folder{};
  std::int64_t step = -1;  // from the folder's name
  std::string uuid{};      // empty when the manifest cannot be read
  std::int64_t num_tensors = 0;
  std::uint64_t bytes = 0;
  std::vector<Damage> damage{};  // empty: good
  bool ok() const { return damage.empty(); }
};
// Never throws for what is wrong with the step; agrees with the loader.
VerifyReport verify_step(const std::filesystem::path& folder,
                         VerifyDepth depth = VerifyDepth::blocks);

// ---- loading ---------------------------------------------------------------------------------

// Where a part of the tensor `name` goes, element after element. CPU memory.
struct TensorDestination {
  std::string name{};
  DType dtype = DType::f32;
  Shape shape{};  // of the whole tensor
  TensorPart part{};
  void* data = nullptr;
};
TensorDestination whole_destination(std::string name, const TensorView& view);

struct ReadOptions {
  // Tensors of the checkpoint whose names start so need not be asked for, e.g. "optim.". "" allows
  // any. All others that are not asked for are an error: another architecture.
  std::vector<std::string> ignore_prefixes{};
  bool touched_blocks_only = false;    // read and check only the blocks that hold what is asked for
  comm::Activity* activity = nullptr;  // beats with every block that is read
  // load_newest and load_first_good add the steps that they found damaged, on every rank the same.
  std::vector<std::int64_t>* passed_over = nullptr;
};

// One step, opened: its manifest has been checked and all files have their sizes. Damage throws
// DamagedStep.
class CheckpointReader {
 public:
  explicit CheckpointReader(std::filesystem::path step_folder);
  const std::filesystem::path& path() const { return folder_; }
  const Manifest& manifest() const { return manifest_; }
  std::int64_t step() const { return manifest_.step; }
  const Json& state() const { return manifest_.state; }
  bool has_text(std::string_view name) const;
  std::string text(std::string_view name) const;  // verified; Error{bad_data} when absent

  // Error{bad_data} "... of another architecture" that counts and names what is missing, differs or
  // is left over.
  void check(std::span<const TensorDestination> wanted, const ReadOptions& options = {}) const;
  // check(), then fills every destination. Only verified bytes are written, but a DamagedStep may
  // come when some destinations are already filled: their content is then unspecified.
  void read(std::span<const TensorDestination> wanted, const ReadOptions& options = {}) const;
  // Every byte of every file and every entry against the manifest; throws at the first damage.
  void verify() const;
  // Every byte of the files that hold no tensor elements: texts, shards of ranks that had nothing.
  void verify_other_files() const;

 private:
  std::filesystem::path folder_;
  Manifest manifest_;
};

// Loads the newest good step into the destinations. Damaged steps are named by log::warn and
// passed over. Empty: there is no step at all. Error{bad_data} when there are steps and none is
// usable; another architecture is an error at once, never a reason to take an older step.
std::optional<CheckpointReader> load_newest(const std::filesystem::path& folder,
                                            std::span<const TensorDestination> wanted,
                                            const ReadOptions& options = {});

// The same on many ranks, whatever ranks saved the step; collective. Each rank reads the blocks
// that hold its own destinations, rank 0 all other files too, so every byte that training may use
// is verified by whoever uses it before any rank goes on. Damage that any rank finds sends all to
// the step before, with one warning by rank 0. The destinations of all ranks together must cover
// every tensor; the step is compared with their union. The list of steps is rank 0's. A rank's
// other failures (e.g. no memory) are thrown on all ranks. The Activity of `ranks` beats with every
// block that is read; options.activity and touched_blocks_only do not count.
std::optional<CheckpointReader> load_newest(comm::Communicator& ranks,
                                            const std::filesystem::path& folder,
                                            std::span<const TensorDestination> wanted,
                                            const ReadOptions& options = {});
// The first good one of rank 0's `steps`.
std::optional<CheckpointReader> load_first_good(comm::Communicator& ranks,
                                                std::span<const StepInfo> steps,
                                                std::span<const TensorDestination> wanted,
                                                const ReadOptions& options = {});

}  // namespace grist
