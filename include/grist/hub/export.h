#pragma once
// A checkpoint as a folder that transformers, vLLM and others load: safetensors, config.json,
// generation_config.json, the tokenizer's files and a model card with the proof. docs/export.md.
#include <cstdint>
#include <filesystem>
#include <optional>

#include "grist/hub/hub_files.h"
#include "grist/hub/proof.h"

namespace grist::hub {

struct ExportOptions {
  std::filesystem::path checkpoint;  // a step folder, a checkpoints or run folder
  std::filesystem::path output;      // must not exist
  WriteOptions write;
  bool prove = true;  // needs the memory of the model
  // Where the proof's tokens and the checkpoint's logits go, as safetensors, for checking other
  // tools; empty: nowhere. Wants `prove`.
  std::filesystem::path save_logits{};
  int threads = 0;  // of the proof; 0: one per core
};

struct Exported {
  std::filesystem::path folder;
  std::filesystem::path checkpoint;  // the step that was taken
  Family family = Family::mixtral;
  std::uint64_t bytes = 0;  // of all tensors
  std::optional<Proof> proof;
};

// The newest good step; damaged ones are named and passed over. The folder appears whole or not at
// all. Error{config} when no family computes this model; Error{numeric} when the proof fails;
// Error{not_found}, Error{bad_data}, Error{cannot_create}, Error{io}; Error{preempted} when a stop
// signal came.
Exported export_model(const ExportOptions& options);

// "5GB", "200MB", "1.5GiB", "4096" -> bytes. Error{usage}.
std::uint64_t parse_size(const std::string& text);

}  // namespace grist::hub
