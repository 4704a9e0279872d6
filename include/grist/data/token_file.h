#pragma once
// Token files: Megatron's PREFIX.bin and PREFIX.idx, version 1, and PREFIX.json, a sidecar of ours
// that Megatron ignores (docs/formats/tokens.md has the byte tables). A document is one sequence
// when we write; files whose documents have several sequences are read too.
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "grist/core/file.h"
#include "grist/core/json.h"

namespace grist {

// What the sidecar holds: where the tokens came from.
struct TokenFileInfo {
  std::string tokenizer_hash;   // empty: not known
  std::int64_t vocab_size = 0;  // 0: not known
  std::int64_t bos_id = -1;     // put before each document; -1: none
  std::int64_t eod_id = -1;     // appended to each document; -1: none
  std::int64_t documents = 0;
  std::int64_t tokens = 0;
  std::int64_t source_bytes = 0;  // UTF-8 bytes of the text; 0: not known
  bool operator==(const TokenFileInfo&) const = default;
};

// Writes a pair aside (PREFIX.bin.partial, PREFIX.idx.partial); finish() syncs both and renames
// them, .idx last, so a crash leaves either no .idx or a complete pair. The destructor removes what
// was not finished. Throws cannot_create when the output exists and overwrite is false, or when
// another process is writing it.
class TokenFileWriter {
 public:
  // `prefix` may end in .bin or .idx. Ids are stored in 2 bytes when vocab_size < 65500, in 4
  // otherwise, as Megatron does.
  TokenFileWriter(const std::filesystem::path& prefix, std::int64_t vocab_size, bool overwrite);
  ~TokenFileWriter();
  TokenFileWriter(const TokenFileWriter&) = delete;
  TokenFileWriter& operator=(const TokenFileWriter&) = delete;

  void add_document(std::span<const std::int32_t> tokens);  // ids in [0, vocab_size)
  // Fills in documents and tokens, writes the sidecar and commits. At least one token is required.
  void finish(TokenFileInfo info = {});
  std::int64_t num_documents() const { return static_cast<std::int64_t>(lengths_.size()); }
  std::int64_t num_tokens() const { return num_tokens_; }

 private:
  void flush();
  void write_index();
  std::filesystem::path prefix_;
  std::int64_t vocab_size_;
  File bin_, idx_;
  std::vector<std::byte> pending_;     // tokens not yet written to bin_
  std::uint64_t bin_bytes_ = 0;        // written to bin_
  std::vector<std::int32_t> lengths_;  // tokens of each document
  std::int64_t num_tokens_ = 0;
  bool finished_ = false;
};

// An open pair. Everything in .idx is checked against the size of .bin before anything is trusted;
// 8 bytes a document are kept in memory, tokens are read on demand. Safe to use from many threads.
// Throws not_found when a file is missing, bad_data (file and byte) when one is not what it should
// be.
class TokenFile {
 public:
  explicit TokenFile(const std::filesystem::path& prefix);  // with or without .bin or .idx

  const std::string& prefix() const { return prefix_; }
  std::int64_t num_documents() const { return static_cast<std::int64_t>(ends_.size()); }
  std::int64_t num_tokens() const { return ends_.empty() ? 0 : ends_.back(); }
  // Document d is tokens [document_begin(d), document_end(d)) of the file.
  std::int64_t document_begin(std::int64_t d) const {
    return d == 0 ? 0 : ends_[static_cast<std::size_t>(d - 1)];
  }
  std::int64_t document_end(std::int64_t d) const { return ends_[static_cast<std::size_t>(d)]; }
  std::int64_t length(std::int64_t d) const { return document_end(d) - document_begin(d); }
  std::int64_t document_of(std::int64_t token) const;  // the document that holds a token

  // Tokens [begin, begin + out.size()). An id outside [0, vocab_size) is bad_data naming document,
  // token and id.
  void read(std::int64_t begin, std::span<std::int32_t> out, std::int64_t vocab_size) const;

  // 16 hex digits over all of .idx, the size of .bin, and 256 blocks of 64 KiB spread evenly over
  // .bin from its first byte to its last; a .bin of 16 MiB or less is hashed whole. Quick for any
  // size; a change inside a larger .bin that keeps every size can be missed.
  std::string fingerprint() const;
  const std::optional<TokenFileInfo>& info() const { return info_; }  // null: no sidecar
  // bad_data when the sidecar names another tokenizer. Without a sidecar nothing is known.
  void check_tokenizer(const std::string& tokenizer_hash) const;

 private:
  void read_index();
  void read_info();
  std::string prefix_;
  File bin_;
  int dtype_ = 0;  // Megatron's code
  std::uint64_t bin_bytes_ = 0;
  std::uint64_t idx_hash_ = 0;
  std::vector<std::int64_t> ends_;  // token at which each document ends
  std::optional<TokenFileInfo> info_;
};

}  // namespace grist
