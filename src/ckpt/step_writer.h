#pragma once
// One save: plan, write aside, commit. Used by CheckpointFolder::save. Collective: every phase ends
// in comm::agree, so that all ranks go on or all give up. Rank 0 does everything that concerns the
// folder; each rank writes its own shard.
#include <functional>
#include <string>
#include <vector>

#include "block_writer.h"
#include "grist/ckpt/checkpoint.h"
#include "grist/ckpt/safetensors.h"

namespace grist {

// Removes a file or a folder with its content. Never throws; what stays is warned about.
bool remove_quietly(Storage& storage, const std::filesystem::path& path);

class StepWriter {
 public:
  StepWriter(CheckpointFolder& folder, const SaveRequest& request);
  SavedStep run();

 private:
  bool is_root() const { return ranks_.rank() == 0; }
  void on_root(const std::function<void()>& work);
  bool is_own(std::size_t file) const;
  SavedStep write();
  [[noreturn]] void give_up(const Error& e);
  // step_plan.cpp
  void check_request() const;
  std::vector<std::string> exchange_slices();
  void take_slices(const std::vector<std::string>& lists);
  void plan();
  void plan_tensors();
  void plan_shard(std::size_t i);
  // step_writer.cpp
  void refuse_other_run() const;
  void make_folder() const;
  void check_space() const;
  void make_aside();
  void share_name();
  void reserve_files();
  void write_files();
  void share_sums();
  void write_manifest();
  void commit();
  void replace();
  void write_hint() noexcept;

  CheckpointFolder& folder_;
  Storage& storage_;
  comm::Communicator& ranks_;
  const SaveRequest& request_;
  std::vector<std::vector<TensorSlice>> shards_;  // of all files; those of others without data
  Manifest manifest_;
  std::vector<std::vector<SafetensorsTensor>> entries_;  // of each shard
  std::vector<SafetensorsLayout> layouts_;
  ckpt::BlockWriter::Buffers buffers_;
  std::vector<ckpt::BlockWriter> writers_;  // of this rank's files, between reserving and the end
  std::filesystem::path final_;
  std::filesystem::path aside_;
  std::string attempt_;  // "<uuid>-<attempt>"
  FolderLock lock_;
  std::filesystem::path replaced_;  // what had the step's name before; to be removed
  bool committed_ = false;          // the step has its name: nothing may be cleaned up any more
};

}  // namespace grist
