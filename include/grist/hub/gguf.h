#pragma once
// A checkpoint as one GGUF file, which llama.cpp and what is built on it load. docs/export.md.
#include <cstdint>
#include <filesystem>
#include <string>

#include "grist/config/words.h"

namespace grist::hub {

GRIST_WORDS(GgufDType, fp32, bf16, f16);  // of the matrices; norms and routers are fp32

struct GgufOptions {
  std::filesystem::path checkpoint;  // a step folder, a checkpoints or run folder
  std::filesystem::path output;      // the file; must not exist
  GgufDType dtype = GgufDType::f16;
};

struct GgufExported {
  std::filesystem::path checkpoint;  // the step that was taken
  std::string architecture;          // llama.cpp's: llama, qwen3, qwen3moe
  std::uint64_t bytes = 0;           // of the file
};

// The newest good step; damaged ones are named and passed over. The file appears whole or not at
// all; one tensor of the checkpoint is held, or several of together 32 MiB. Error{config} where no
// architecture of llama.cpp computes this model or no pre-tokenizer of it is the run's;
// Error{numeric} for a weight that f16 cannot hold; Error{not_found}, Error{bad_data},
// Error{cannot_create}, Error{io}; Error{preempted} when a stop signal came.
GgufExported export_gguf(const GgufOptions& options);

}  // namespace grist::hub
