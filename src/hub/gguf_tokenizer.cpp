// Vocabulary, merges and special tokens for llama.cpp.
#include "gguf_tokenizer.h"

#include <array>

#include "grist/core/check.h"

namespace grist::hub {

namespace {

// llama.cpp's name of a pre-tokenizer that is one pattern before the byte alphabet.
struct NamedPattern {
  std::string_view name, pattern;
};
constexpr std::array<NamedPattern, 2> kPatterns = {{
    {"llama-bpe",
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
    {"qwen2",
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
}};

bool is_type(const Json* json, std::string_view type) {
  const Json* found = json != nullptr && json->is_object() ? json->find("type") : nullptr;
  return found != nullptr && found->is_string() && found->as_string() == type;
}

bool flag(const Json& json, const char* key, bool otherwise) {
  const Json* found = json.find(key);
  return found != nullptr && found->is_bool() ? found->as_bool() : otherwise;
}

// {"type": "Split", "pattern": {"Regex": ...}}, and the byte alphabet without its own pattern.
std::string_view name_of_sequence(const Json& pre) {
  const Json* steps = pre.find("pretokenizers");
  if (steps == nullptr || !steps->is_array() || steps->as_array().size() != 2) return "";
  const Json &split = steps->as_array()[0], &bytes = steps->as_array()[1];
  if (!is_type(&split, "Split") || !is_type(&bytes, "ByteLevel")) return "";
  if (flag(bytes, "use_regex", true) || flag(bytes, "add_prefix_space", true)) return "";
  const Json* pattern = split.find("pattern");
  const Json* regex = pattern != nullptr && pattern->is_object() ? pattern->find("Regex") : nullptr;
  if (regex == nullptr || !regex->is_string()) return "";
  for (const NamedPattern& p : kPatterns)
    if (regex->as_string() == p.pattern) return p.name;
  return "";
}

std::string pre_tokenizer_name(const Json& json) {
  const Json* pre = json.find("pre_tokenizer");
  std::string_view name;
  if (is_type(pre, "ByteLevel") && flag(*pre, "use_regex", true) &&
      !flag(*pre, "add_prefix_space", true))
    name = "gpt-2";
  if (is_type(pre, "Sequence")) name = name_of_sequence(*pre);
  if (name.empty())
    fail(ExitCode::config,
         "tokenizer.json: pre_tokenizer: llama.cpp has a name for GPT-2's, Llama-3's and Qwen2's "
         "patterns, and this is none of them; export --to hf takes it");
  return std::string(name);
}

constexpr std::int32_t kNormal = 1, kControl = 3, kUserDefined = 4, kUnused = 5;

struct Vocabulary {
  std::vector<std::string> tokens;  // as tokenizer.json spells them
  std::vector<std::int32_t> types;
};

void place(Vocabulary& v, std::int64_t id, const std::string& token, std::int32_t type) {
  if (id < 0 || id >= std::ssize(v.tokens))
    fail(ExitCode::bad_data, "tokenizer.json: token \"{}\" has id {}, the model's vocabulary is {}",
         token, id, v.tokens.size());
  v.tokens[static_cast<std::size_t>(id)] = token;
  v.types[static_cast<std::size_t>(id)] = type;
}

Vocabulary vocabulary_of(const Json& json, const Tokenizer& tokenizer, std::int64_t vocab_size) {
  Vocabulary v;
  for (std::int64_t id = 0; id < vocab_size; ++id) v.tokens.push_back(fmt::format("[PAD{}]", id));
  v.types.assign(v.tokens.size(), kUnused);
  for (const auto& [token, id] : json.at("model").at("vocab").as_object())
    place(v, id.as_int(), token, kNormal);
  const Json* added = json.find("added_tokens");
  if (added == nullptr || !added->is_array()) return v;
  for (const Json& a : added->as_array()) {
    const std::string& content = a.at("content").as_string();
    const auto id = tokenizer.token_id(content);
    if (id) place(v, *id, content, flag(a, "special", false) ? kControl : kUserDefined);
  }
  return v;
}

// "a b", whichever of its two forms the file has.
std::vector<std::string> merges_of(const Json& json) {
  std::vector<std::string> out;
  for (const Json& m : json.at("model").at("merges").as_array())
    out.push_back(m.is_string()
                      ? m.as_string()
                      : m.as_array().at(0).as_string() + " " + m.as_array().at(1).as_string());
  return out;
}

}  // namespace

void add_tokenizer(GgufHeader& h, const Json& json, const Tokenizer& tokenizer,
                   const SpecialTokens& special, std::int64_t vocab_size) {
  const Vocabulary v = vocabulary_of(json, tokenizer, vocab_size);
  h.add("tokenizer.ggml.model", "gpt2");
  h.add("tokenizer.ggml.pre", pre_tokenizer_name(json));
  h.add_strings("tokenizer.ggml.tokens", v.tokens);
  h.add_i32s("tokenizer.ggml.token_type", v.types);
  h.add_strings("tokenizer.ggml.merges", merges_of(json));
  for (const auto& [name, ids] :
       {std::pair{"bos", &special.bos}, {"eos", &special.eos}, {"padding", &special.pad}}) {
    const Json* id = ids->is_array() && !ids->as_array().empty() ? &ids->as_array()[0] : ids;
    if (id->is_int()) h.add_u32(fmt::format("tokenizer.ggml.{}_token_id", name), id->as_int());
  }
  h.add_bool("tokenizer.ggml.add_bos_token", false);  // documents are trained as they are
  h.add_bool("tokenizer.ggml.add_eos_token", false);
}

}  // namespace grist::hub
