// What `prepare` takes from a tokenizer (data/prepare.h): its hash, the tokens around documents.
#include <memory>

#include "grist/core/check.h"
#include "grist/core/hash.h"
#include "grist/data/prepare.h"
#include "grist/data/tokenizer.h"

namespace grist {

std::string tokenizer_hash(const Tokenizer& tokenizer) {
  return hash_hex(tokenizer.hash());
}

namespace {

std::int64_t begin_id(const Tokenizer& tokenizer, const std::string& wanted) {
  const auto id = wanted.empty() ? tokenizer.bos_id() : tokenizer.token_id(wanted);
  if (!id && wanted.empty())
    fail(ExitCode::bad_data,
         "the tokenizer names no token that begins documents (bos_token in tokenizer_config.json); "
         "add one, or name it: --bos TOKEN");
  if (!id) fail(ExitCode::usage, "--bos: the tokenizer has no token '{}'", wanted);
  return *id;
}

}  // namespace

void use_tokenizer(PrepareOptions& options, const Tokenizer& tokenizer,
                   const TokenizeOptions& tokenize) {
  options.vocab_size = tokenizer.vocab_size();
  options.tokenizer_hash = tokenizer_hash(tokenizer);
  options.bos_id = tokenize.prepend_bos ? begin_id(tokenizer, tokenize.begin_token) : -1;
  options.eod_id = -1;
  if (tokenize.append_eod) {
    const auto eos = tokenizer.eos_id();
    if (!eos)
      fail(ExitCode::bad_data,
           "the tokenizer names no end-of-document token (eos_token in tokenizer_config.json); add "
           "one, or prepare without (--no-eod)");
    options.eod_id = *eos;
  }
  const EncodeOptions encode{.special_as_text = tokenize.special_as_text};
  options.make_encoder = [&tokenizer, encode]() -> TextEncoder {
    // Shared because std::function must be copyable; no copy is ever used by two threads.
    auto encoder = std::make_shared<Encoder>(tokenizer, encode);
    return [encoder](std::string_view text, std::vector<std::int32_t>& ids) {
      encoder->encode(text, ids);
    };
  };
}

}  // namespace grist
