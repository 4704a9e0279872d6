#pragma once
// Text to token ids and back, from a Hugging Face tokenizer.json with byte-level BPE (GPT-2,
// Llama-3, Qwen2, cl100k style). The ids equal those of PyPI `tokenizers` with
// add_special_tokens=False: nothing is put before or after the text. What cannot be honoured is
// refused at load with the file and the field. decode(encode(text)) is `text`, in NFC if the file
// asks for that normalizer, and less the spaces that added tokens with lstrip or rstrip take along.
//
// Malformed UTF-8 is never an error and never silent: each maximal malformed part becomes U+FFFD,
// exactly as Python's bytes.decode("utf-8", errors="replace") does, and is counted.
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace grist {

struct TokenizerModel;

// Immutable after loading; any number of threads may use one, each with an Encoder of its own.
class Tokenizer {
 public:
  // A tokenizer.json, or a folder that holds one. Also reads tokenizer_config.json beside it (if
  // there is one) for eos_token and bos_token. Throws Error{not_found}, Error{bad_data}.
  static Tokenizer load(const std::filesystem::path& path);
  // The text of a tokenizer.json; `where` names it in errors.
  static Tokenizer parse(std::string_view json, std::string_view where);

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  std::int32_t vocab_size() const;  // largest id + 1, added tokens included
  // The token that ends a document: eos_token of tokenizer_config.json, else the first of
  // <|endoftext|>, <|end_of_text|>, </s>, <eos> that is a special token.
  std::optional<std::int32_t> eos_id() const;
  // The token that begins a text: bos_token of tokenizer_config.json.
  std::optional<std::int32_t> bos_id() const;
  std::optional<std::int32_t> token_id(std::string_view spelling) const;
  // Fingerprint of everything that decides ids (tokens, merges, pre-tokenizer, added tokens), not
  // of the file's layout: the two encodings of merges give the same value.
  std::uint64_t hash() const;

  // Appends the bytes of the tokens; a cut-off multi-byte character stays cut off. An id outside
  // the vocabulary throws Error{bad_data}.
  void decode(std::span<const std::int32_t> ids, std::string& out) const;
  std::string decode(std::span<const std::int32_t> ids) const;

 private:
  friend class Encoder;
  explicit Tokenizer(std::unique_ptr<const TokenizerModel> model);
  std::unique_ptr<const TokenizerModel> model_;
};

struct EncodeOptions {
  // Special tokens spelled out in the text are encoded as plain text (`encode_special_tokens` of
  // PyPI tokenizers). For text from strangers, who could otherwise end a document.
  bool special_as_text = false;
};

// One thread's encoder: scratch memory and a bounded cache of piece -> ids, about 5 MB. The
// tokenizer must outlive it.
class Encoder {
 public:
  explicit Encoder(const Tokenizer& tokenizer, EncodeOptions options = {});
  Encoder(Encoder&&) noexcept;
  ~Encoder();
  // Appends the ids of `text` (shorter than 2 GiB) to `out`.
  void encode(std::string_view text, std::vector<std::int32_t>& out);
  std::vector<std::int32_t> encode(std::string_view text);
  // U+FFFD put in for malformed UTF-8 since construction.
  std::uint64_t replaced() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// What an Encoder is given when `text` is malformed, in place; returns how many U+FFFD were put in.
std::uint64_t repair_utf8(std::string& text);

}  // namespace grist
