#include "tokenizer_model.h"

#include "grist/core/check.h"
#include "grist/core/hash.h"

namespace grist {

namespace {

// Bytes that occur in valid UTF-8, hence in what BPE is given.
bool occurs_in_utf8(std::size_t b) {
  return b < 0xC0 || (b >= 0xC2 && b <= 0xF4);
}

void add_number(Hasher& h, std::int64_t v) {
  h.update(&v, sizeof v);
}
void add_text(Hasher& h, std::string_view s) {
  add_number(h, static_cast<std::int64_t>(s.size()));
  h.update(s.data(), s.size());
}

std::uint64_t fingerprint(const TokenizerDefinition& d) {
  Hasher h(1);  // the version of this list
  add_number(h, static_cast<std::int64_t>(d.spelling.size()));
  for (const auto& s : d.spelling) add_text(h, s ? *s : "");
  add_number(h, static_cast<std::int64_t>(d.merges.size()));
  for (const Merge& m : d.merges) {
    add_number(h, m.left);
    add_number(h, m.right);
  }
  add_number(h, static_cast<std::int64_t>(d.added.size()));
  for (const AddedToken& t : d.added) {
    add_number(h, t.id);
    add_text(h, t.content);
    for (const bool flag : {t.single_word, t.lstrip, t.rstrip, t.normalized, t.special})
      add_number(h, flag ? 1 : 0);
  }
  add_number(h, static_cast<std::int64_t>(d.stages.size()));
  for (const PretokenizerStage& s : d.stages) {
    add_text(h, s.pattern);
    add_number(h, s.add_prefix_space ? 1 : 0);
  }
  add_number(h, d.ignore_merges ? 1 : 0);
  add_number(h, d.nfc ? 1 : 0);
  return h.digest();
}

}  // namespace

TokenizerModel::TokenizerModel(TokenizerDefinition parsed, std::string_view where)
    : definition(std::move(parsed)), merges(definition.merges) {
  if (definition.nfc) nfc = std::make_unique<unicode::Nfc>();
  add_model_tokens(where);
  add_added_tokens();
  for (const PretokenizerStage& stage : definition.stages) {
    stages.push_back({.add_prefix_space = stage.add_prefix_space});
    if (stage.pattern.empty()) continue;
    stages.back().cutter = make_scanner(stage.pattern, classes);
    if (!stages.back().cutter) stages.back().cutter = make_regex_cutter(stage.pattern, stage.where);
  }
  hash = fingerprint(definition);
}

void TokenizerModel::add_model_tokens(std::string_view where) {
  const unicode::ByteAlphabet alphabet;
  byte_ids.fill(-1);
  bytes.resize(definition.spelling.size());
  present.resize(definition.spelling.size(), 0);
  for (std::size_t id = 0; id < definition.spelling.size(); ++id) {
    if (!definition.spelling[id]) continue;
    const std::string& spelling = *definition.spelling[id];
    // A token with characters outside the alphabet stands for itself.
    const bool spelled = alphabet.to_bytes(spelling, bytes[id]);
    if (!spelled) bytes[id] = spelling;
    present[id] = 1;
    id_by_spelling.emplace(spelling, static_cast<std::int32_t>(id));
    if (!spelled) continue;
    if (bytes[id].size() == 1)
      byte_ids[static_cast<unsigned char>(bytes[id][0])] = static_cast<std::int32_t>(id);
    if (definition.ignore_merges) id_by_bytes.emplace(bytes[id], static_cast<std::int32_t>(id));
  }
  for (std::size_t b = 0; b < byte_ids.size(); ++b)
    if (byte_ids[b] < 0 && occurs_in_utf8(b))
      fail(ExitCode::bad_data,
           "{}: model.vocab: no token for byte 0x{:02x}; this is not a byte-level vocabulary",
           where, b);
}

void TokenizerModel::add_added_tokens() {
  for (const AddedToken& t : definition.added) {
    const auto id = static_cast<std::size_t>(t.id);
    if (id >= bytes.size()) {
      bytes.resize(id + 1);
      present.resize(id + 1, 0);
    }
    bytes[id] = t.content;
    present[id] = 1;
    id_by_spelling.insert_or_assign(t.content, t.id);
    if (!t.normalized) {
      raw_added.add(t, t.content);
      continue;
    }
    std::string pattern = t.content;
    if (nfc) nfc->normalize(t.content, pattern);
    normalized_added.add(t, pattern);
  }
}

}  // namespace grist
