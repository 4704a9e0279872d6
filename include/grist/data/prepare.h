#pragma once
// Text to tokens, through the pipeline of data/document_pipeline.h: the output is the same bytes
// for any number of threads, and memory is bounded.
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "grist/data/corpus.h"
#include "grist/data/token_file.h"

namespace grist {

using TextEncoder = std::function<void(std::string_view text, std::vector<std::int32_t>& ids)>;

struct PrepareOptions {
  CorpusOptions corpus;
  std::filesystem::path output;  // PREFIX of .bin, .idx and .json
  bool overwrite = false;
  int threads = 0;                            // encoding threads; 0: one per available core
  std::function<TextEncoder()> make_encoder;  // called once a thread; an encoder appends ids
  std::int64_t vocab_size = 0;                // every id is below it
  std::int64_t bos_id = -1;                   // put before each document; -1: none
  std::int64_t eod_id = -1;                   // appended to each document; -1: none
  std::string tokenizer_hash;                 // kept beside the tokens
  bool progress = true;
};

class Tokenizer;

struct TokenizeOptions {
  bool append_eod = true;       // the tokenizer's eos_token after each document
  bool prepend_bos = false;     // begin_token before each document
  std::string begin_token{};    // empty: the tokenizer's bos_token
  bool special_as_text = true;  // "<|endoftext|>" spelled out in a document is text, not a token
};
// Sets make_encoder, vocab_size, bos_id, eod_id and tokenizer_hash. The tokenizer must outlive
// prepare(). bad_data: a token is wanted and the tokenizer names none; usage: it has no such token.
void use_tokenizer(PrepareOptions& options, const Tokenizer& tokenizer,
                   const TokenizeOptions& tokenize = {});
// What token files keep and check_tokenizer() compares.
std::string tokenizer_hash(const Tokenizer& tokenizer);

struct PrepareSummary {
  std::int64_t documents = 0;
  std::int64_t empty_documents = 0;  // had no text; left out
  std::int64_t tokens = 0;           // with those that begin and end documents
  std::uint64_t text_bytes = 0;      // UTF-8 bytes of the documents' text
  std::uint64_t input_bytes = 0;     // as stored on disk
  BadLines bad;                      // skipped lines
  double seconds = 0;
  std::string line() const;  // for people
};

// Naming the skipped lines is left to the caller. Throws Error; whatever happens before the end, no
// output appears and none is replaced. A stop signal is Error{preempted}.
PrepareSummary prepare(const PrepareOptions& options);

}  // namespace grist
