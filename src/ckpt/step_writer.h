#pragma once
// One save: plan, write aside, commit. Used by CheckpointFolder::save.
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
  void plan();
  void plan_tensors();
  void plan_shard(std::size_t i);
  void refuse_other_run() const;
  void make_folder() const;
  void check_space() const;
  void make_aside();
  void write_files();
  void write_manifest();
  void commit();
  void replace();
  void write_hint() noexcept;

  CheckpointFolder& folder_;
  Storage& storage_;
  const SaveRequest& request_;
  Manifest manifest_;
  std::vector<std::vector<SafetensorsTensor>> entries_;  // of each shard
  std::vector<SafetensorsLayout> layouts_;
  ckpt::BlockWriter::Buffers buffers_;
  std::filesystem::path final_;
  std::filesystem::path aside_;
  std::string attempt_;  // "<uuid>-<attempt>"
  FolderLock lock_;
  bool committed_ = false;  // the step has its name: nothing may be cleaned up any more
};

}  // namespace grist
