// Reading tokenizer.json: every field is honoured or refused by name.
#include <algorithm>
#include <unordered_set>

#include "grist/core/check.h"
#include "grist/core/json.h"
#include "tokenizer_model.h"

namespace grist {

namespace {

// A value of the file with the path that leads to it.
class Field {
 public:
  Field(const Json* json, std::string name, std::string_view file)
      : json_(json), name_(std::move(name)), file_(file) {}

  template <class... Args>
  [[noreturn]] void refuse(fmt::format_string<Args...> format, Args&&... args) const {
    fail(ExitCode::bad_data, "{}: {}: {}", file_, name_.empty() ? "the document" : name_,
         fmt::format(format, std::forward<Args>(args)...));
  }
  const Json& json() const { return *json_; }
  std::string where() const { return fmt::format("{}: {}", file_, name_); }
  bool is_null() const { return json_->is_null(); }

  // The member; a JSON null when absent.
  Field operator[](std::string_view key) const {
    static const Json kNull;
    if (!json_->is_object()) refuse("must be an object");
    const Json* found = json_->find(key);
    return {found == nullptr ? &kNull : found,
            name_.empty() ? std::string(key) : fmt::format("{}.{}", name_, key), file_};
  }
  Field member(std::string_view key, const Json& value) const {
    return {&value, fmt::format("{}[\"{}\"]", name_, key), file_};
  }
  Field element(std::size_t i) const {
    return {&json_->as_array()[i], fmt::format("{}[{}]", name_, i), file_};
  }
  std::size_t size() const {
    if (!json_->is_array()) refuse("must be an array");
    return json_->as_array().size();
  }
  const std::string& string() const {
    if (!json_->is_string()) refuse("must be a string");
    return json_->as_string();
  }
  bool boolean(bool absent) const {
    if (is_null()) return absent;
    if (!json_->is_bool()) refuse("must be true or false");
    return json_->as_bool();
  }
  std::int32_t id() const {
    constexpr std::int64_t kMaxId = (1 << 24) - 1;
    if (!json_->is_int() || json_->as_int() < 0 || json_->as_int() > kMaxId)
      refuse("must be a token id between 0 and {}", kMaxId);
    return static_cast<std::int32_t>(json_->as_int());
  }

 private:
  const Json* json_;
  std::string name_;
  std::string_view file_;
};

void read_vocab(const Field& vocab, TokenizerDefinition& d, TokenMap& ids) {
  if (!vocab.json().is_object() || vocab.json().as_object().empty())
    vocab.refuse("must be an object of token: id with at least one token");
  const Json::Object& object = vocab.json().as_object();
  ids.reserve(object.size());
  for (const auto& [token, id_json] : object) {
    const Field member = vocab.member(token, id_json);
    const std::int32_t id = member.id();
    if (static_cast<std::size_t>(id) > object.size() * 2 + 65536)
      member.refuse("id {} is far beyond the {} tokens there are", id, object.size());
    if (token.empty()) member.refuse("a token must not be empty");
    if (static_cast<std::size_t>(id) >= d.spelling.size())
      d.spelling.resize(static_cast<std::size_t>(id) + 1);
    if (d.spelling[id]) member.refuse("id {} is also the id of \"{}\"", id, *d.spelling[id]);
    d.spelling[id] = token;
    ids.emplace(token, id);
  }
}

// One merge, in the old form "a b" or the new one ["a", "b"].
std::pair<std::string_view, std::string_view> merge_parts(const Field& merge) {
  if (merge.json().is_string()) {
    const std::string_view text = merge.json().as_string();
    const std::size_t space = text.find(' ');
    if (space == std::string_view::npos || text.find(' ', space + 1) != std::string_view::npos)
      merge.refuse("\"{}\" is not two tokens with one space between them", text);
    return {text.substr(0, space), text.substr(space + 1)};
  }
  if (!merge.json().is_array() || merge.size() != 2)
    merge.refuse("must be \"a b\" or [\"a\", \"b\"]");
  return {merge.element(0).string(), merge.element(1).string()};
}

void read_merges(const Field& merges, const TokenMap& ids, TokenizerDefinition& d) {
  const auto id_of = [&ids](const Field& merge, std::string_view token) {
    const auto found = ids.find(token);
    if (found == ids.end()) merge.refuse("token \"{}\" is not in model.vocab", token);
    return found->second;
  };
  std::string joined;
  const std::size_t count = merges.size();
  d.merges.reserve(count);
  for (std::size_t i = 0; i < count; ++i) {
    const Json& json = merges.json().as_array()[i];
    if (json.is_string() && json.as_string().starts_with("#version")) continue;
    const Field merge = merges.element(i);
    const auto [left, right] = merge_parts(merge);
    joined.assign(left).append(right);
    d.merges.push_back({id_of(merge, left), id_of(merge, right), id_of(merge, joined)});
  }
}

void refuse_unless_empty(const Field& f) {
  if (f.is_null() || (f.json().is_string() && f.json().as_string().empty())) return;
  f.refuse("is not supported: only byte-level BPE without prefix or suffix marks is");
}

void read_model(const Field& model, TokenizerDefinition& d, TokenMap& ids) {
  if (model.is_null()) model.refuse("is missing");
  const Field type = model["type"];
  if (!type.is_null() && type.string() != "BPE")
    type.refuse("\"{}\" is not supported; grist reads byte-level BPE", type.string());
  const Field dropout = model["dropout"];
  if (!dropout.is_null() && !(dropout.json().is_number() && dropout.json().as_double() == 0.0))
    dropout.refuse("random merges are not supported; set it to null");
  refuse_unless_empty(model["continuing_subword_prefix"]);
  refuse_unless_empty(model["end_of_word_suffix"]);
  if (model["byte_fallback"].boolean(false))
    model["byte_fallback"].refuse("is not supported: this is a SentencePiece-style vocabulary");
  // unk_token and fuse_unk never come into play: every byte is in the vocabulary (checked later).
  d.ignore_merges = model["ignore_merges"].boolean(false);
  read_vocab(model["vocab"], d, ids);
  read_merges(model["merges"], ids, d);
}

// Other tools number added tokens themselves: the model's id if it has the token, else the next
// free one after the model's. A file that says otherwise means different ids to different readers.
void check_added_id(const Field& f, const AddedToken& t, const TokenMap& ids, std::int32_t next) {
  const auto found = ids.find(t.content);
  const std::int32_t want = found != ids.end() ? found->second : next;
  if (t.id != want)
    f["id"].refuse("{} is the id of \"{}\" here, but other tools would give it {}", t.id, t.content,
                   want);
}

void read_added(const Field& list, const TokenMap& ids, TokenizerDefinition& d) {
  if (list.is_null()) return;
  auto next = static_cast<std::int32_t>(ids.size());
  std::unordered_set<std::string_view> seen;
  d.added.reserve(list.size());
  for (std::size_t i = 0; i < list.size(); ++i) {
    const Field f = list.element(i);
    AddedToken t{.id = f["id"].id(),
                 .content = f["content"].string(),
                 .single_word = f["single_word"].boolean(false),
                 .lstrip = f["lstrip"].boolean(false),
                 .rstrip = f["rstrip"].boolean(false),
                 .normalized = f["normalized"].boolean(true),
                 .special = f["special"].boolean(false)};
    if (t.content.empty()) f["content"].refuse("must not be empty");
    if (!seen.insert(f["content"].string()).second) f.refuse("\"{}\" was already added", t.content);
    check_added_id(f, t, ids, next);
    next = std::max(next, t.id + 1);
    d.added.push_back(std::move(t));
  }
  std::sort(d.added.begin(), d.added.end(),
            [](const AddedToken& x, const AddedToken& y) { return x.id < y.id; });
}

PretokenizerStage read_split(const Field& f) {
  const Field behavior = f["behavior"];
  if (behavior.string() != "Isolated")
    behavior.refuse("\"{}\" is not supported; \"Isolated\" is", behavior.string());
  f["invert"].boolean(false);  // means nothing for Isolated: matches and gaps are both pieces
  const Field pattern = f["pattern"];
  const Field regex = pattern["Regex"];
  if (!regex.is_null()) return {.pattern = regex.string(), .where = regex.where()};
  const Field literal = pattern["String"];
  if (literal.is_null()) pattern.refuse("must be {{\"Regex\": ...}} or {{\"String\": ...}}");
  return {.pattern = escape_pattern(literal.string()), .where = literal.where()};
}

void read_pretokenizer(const Field& f, bool last, TokenizerDefinition& d) {
  if (f.is_null())
    f.refuse("is missing; grist reads ByteLevel, or a Sequence of Split, Digits and ByteLevel");
  const std::string& type = f["type"].string();
  if (type == "Sequence") {
    const Field list = f["pretokenizers"];
    for (std::size_t i = 0; i < list.size(); ++i)
      read_pretokenizer(list.element(i), last && i + 1 == list.size(), d);
    if (last && list.size() == 0) list.refuse("is empty; it must end with ByteLevel");
    return;
  }
  if (last && type != "ByteLevel")
    f.refuse("type \"{}\" comes last; the last one must be ByteLevel", type);
  if (type == "ByteLevel") {
    if (!last) f.refuse("ByteLevel must come last");
    PretokenizerStage stage{.where = f.where(),
                            .add_prefix_space = f["add_prefix_space"].boolean(true)};
    if (f["use_regex"].boolean(true)) stage.pattern = kGpt2Pattern;
    d.stages.push_back(std::move(stage));
  } else if (type == "Split") {
    d.stages.push_back(read_split(f));
  } else if (type == "Digits") {
    const bool individual = f["individual_digits"].boolean(false);
    d.stages.push_back(
        {.pattern = std::string(individual ? kDigitPattern : kDigitsPattern), .where = f.where()});
  } else {
    f["type"].refuse("\"{}\" is not supported; ByteLevel, Split and Digits are", type);
  }
}

void read_normalizer(const Field& f, TokenizerDefinition& d) {
  if (f.is_null()) return;
  const std::string& type = f["type"].string();
  if (type == "Sequence") {
    const Field list = f["normalizers"];
    for (std::size_t i = 0; i < list.size(); ++i) read_normalizer(list.element(i), d);
    return;
  }
  if (type != "NFC") f["type"].refuse("\"{}\" is not supported; NFC or null is", type);
  d.nfc = true;
}

// Only tokens put around a text are at stake here, and Encoder adds none
// (add_special_tokens=False).
void check_post_processor(const Field& f) {
  if (f.is_null()) return;
  const std::string& type = f["type"].string();
  if (type == "ByteLevel" || type == "TemplateProcessing") return;
  if (type != "Sequence")
    f["type"].refuse("\"{}\" is not supported; ByteLevel and TemplateProcessing are", type);
  for (std::size_t i = 0; i < f["processors"].size(); ++i)
    check_post_processor(f["processors"].element(i));
}

void check_decoder(const Field& f) {
  if (f.is_null()) f.refuse("is missing; it must be ByteLevel");
  const std::string& type = f["type"].string();
  if (type == "Sequence" && f["decoders"].size() == 1)
    return check_decoder(f["decoders"].element(0));
  if (type != "ByteLevel") f["type"].refuse("\"{}\" is not supported; ByteLevel is", type);
}

}  // namespace

TokenizerDefinition parse_tokenizer(std::string_view json, std::string_view where) {
  const Json document = Json::parse(json, where);
  const Field root(&document, "", where);
  if (!document.is_object()) root.refuse("must be an object, as tokenizer.json is");
  for (const char* key : {"truncation", "padding"})
    if (!root[key].is_null())
      root[key].refuse("would change the ids of long or short texts; set it to null");
  TokenizerDefinition d;
  TokenMap ids;
  read_model(root["model"], d, ids);
  read_added(root["added_tokens"], ids, d);
  read_normalizer(root["normalizer"], d);
  read_pretokenizer(root["pre_tokenizer"], true, d);
  check_post_processor(root["post_processor"]);
  check_decoder(root["decoder"]);
  return d;
}

}  // namespace grist
