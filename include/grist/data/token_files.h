#pragma once
// Token files made of token files: whole documents, in their order, without the text or the
// tokenizer. One document and one block are held at a time.
#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

#include "grist/data/token_file.h"

namespace grist {

struct TokenFilesOptions {
  std::filesystem::path output;  // PREFIX of .bin, .idx and .json
  bool overwrite = false;
  // Of files without a sidecar, such as Megatron's own; 0: usage error for them. Every id is below
  // it.
  std::int64_t vocab_size = 0;
  bool progress = true;
};

// What one output holds.
struct WrittenTokens {
  std::filesystem::path prefix;
  std::int64_t documents = 0;
  std::int64_t tokens = 0;
};

// The documents of all inputs, one file after the other. bad_data where two name different
// tokenizers, vocabularies or tokens around a document; usage where the output is one of them.
WrittenTokens join_token_files(std::span<const std::filesystem::path> inputs,
                               const TokenFilesOptions& options);

// OUTPUT-00000-of-0000N and so on: runs of documents of about as many tokens. usage: more parts
// than documents with tokens. The sidecars do not know the bytes of the text any more.
std::vector<WrittenTokens> split_token_file(const std::filesystem::path& input, int parts,
                                            const TokenFilesOptions& options);

// OUTPUT-validation: each document with this probability, a function of (seed, its number) alone;
// OUTPUT-train: the others. usage: one of the two would be empty.
std::vector<WrittenTokens> hold_out_documents(const std::filesystem::path& input, double fraction,
                                              std::uint64_t seed, const TokenFilesOptions& options);

}  // namespace grist
