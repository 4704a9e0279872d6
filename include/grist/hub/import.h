#pragma once
// A model of the hub as a grist run folder with one checkpoint, at step 0: to evaluate, generate,
// export again, or continue (init.from with init.optimizer: fresh). docs/export.md.
#include <filesystem>
#include <optional>

#include "grist/hub/families.h"
#include "grist/hub/proof.h"

namespace grist::hub {

struct ImportOptions {
  std::filesystem::path input;   // the folder with config.json
  std::filesystem::path output;  // the run folder; must not exist
  bool prove = true;             // needs the memory of the model
  int threads = 0;               // of the proof; 0: one per core
};

struct Imported {
  std::filesystem::path folder;
  HubModel model;
  std::uint64_t bytes = 0;     // of the tensors read
  bool has_tokenizer = false;  // taken along
  std::optional<Proof> proof;
};

// Every tensor must be there, have the shape that config.json says, and be finite; nothing is
// initialised. What is missing, unexpected or misshapen is named. The folder appears whole or not
// at all. Error{not_found}, Error{bad_data}, Error{cannot_create}, Error{io}, Error{numeric} when
// the proof fails, Error{preempted} when a stop signal came.
Imported import_model(const ImportOptions& options);

}  // namespace grist::hub
