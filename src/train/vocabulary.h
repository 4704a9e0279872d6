#pragma once
// The tokenizer of a run: its size, and the files of it that go into checkpoints.
#include <filesystem>
#include <optional>
#include <vector>

#include "grist/ckpt/checkpoint.h"
#include "grist/config/load.h"
#include "grist/data/tokenizer.h"

namespace grist::train {

// Loads data.tokenizer, if there is one, and settles model.vocab_size.
std::optional<Tokenizer> resolve_vocabulary(LoadedConfig& loaded);

// The files that Tokenizer::load reads.
std::vector<TextFile> tokenizer_texts(const std::filesystem::path& path);

}  // namespace grist::train
