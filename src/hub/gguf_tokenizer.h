#pragma once
// A tokenizer.json in the keys of a GGUF file.
#include <cstdint>

#include "gguf_file.h"
#include "grist/core/json.h"
#include "grist/data/tokenizer.h"
#include "grist/hub/families.h"

namespace grist::hub {

// Byte-level BPE, under llama.cpp's name for its pre-tokenizer; places of the model's vocabulary
// that no token has become [PADn], as llama.cpp's own conversion does. Error{config} for one that
// llama.cpp has no name for. `json` is the text that `tokenizer` was read from.
void add_tokenizer(GgufHeader& header, const Json& json, const Tokenizer& tokenizer,
                   const SpecialTokens& special, std::int64_t vocab_size);

}  // namespace grist::hub
