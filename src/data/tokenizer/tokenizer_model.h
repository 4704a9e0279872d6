#pragma once
// What a tokenizer.json says, checked and in the form that encoding needs.
#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "bpe.h"
#include "pretokenize.h"
#include "tokenizer_added.h"
#include "unicode.h"
#include "unicode_nfc.h"

namespace grist {

// One step of the pre-tokenizer: cut by a pattern (empty: no cut), after putting a space in front
// of text that has none.
struct PretokenizerStage {
  std::string pattern{};
  std::string where{};  // the field, for errors
  bool add_prefix_space = false;
};

// What tokenizer.json holds, after checks.
struct TokenizerDefinition {
  std::vector<std::optional<std::string>> spelling;  // by id; tokens of the model
  std::vector<Merge> merges;                         // by rank
  std::vector<AddedToken> added;                     // by id
  std::vector<PretokenizerStage> stages;
  bool ignore_merges = false;
  bool nfc = false;  // normalise text to NFC first
};

// Throws Error{bad_data} naming `where` and the field.
TokenizerDefinition parse_tokenizer(std::string_view json, std::string_view where);

struct StringHash {
  using is_transparent = void;
  std::size_t operator()(std::string_view s) const { return std::hash<std::string_view>{}(s); }
};
using TokenMap = std::unordered_map<std::string, std::int32_t, StringHash, std::equal_to<>>;

struct TokenizerModel {
  struct Stage {
    std::unique_ptr<const Cutter> cutter{};  // null: no cut
    bool add_prefix_space = false;
  };

  // Stays where it is made: the matchers refer to `definition`.
  TokenizerModel(TokenizerDefinition parsed, std::string_view where);
  TokenizerModel(const TokenizerModel&) = delete;
  TokenizerModel& operator=(const TokenizerModel&) = delete;

  TokenizerDefinition definition;
  unicode::Classes classes;
  MergeTable merges;
  std::array<std::int32_t, 256> byte_ids{};  // -1 for bytes that UTF-8 never has
  std::vector<std::string> bytes;            // by id: what a token decodes to
  std::vector<char> present;                 // by id
  TokenMap id_by_spelling;
  TokenMap id_by_bytes;                     // only with ignore_merges: tokens of the model
  AddedTokenMatcher raw_added;              // matched first
  AddedTokenMatcher normalized_added;       // matched in what is left ("normalized": true)
  std::unique_ptr<const unicode::Nfc> nfc;  // null: text is taken as it is
  std::vector<Stage> stages;
  std::optional<std::int32_t> eos, bos;
  std::uint64_t hash = 0;

 private:
  void add_model_tokens(std::string_view where);
  void add_added_tokens();
};

}  // namespace grist
