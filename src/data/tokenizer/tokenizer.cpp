#include "grist/data/tokenizer.h"

#include <array>

#include "bpe_cache.h"
#include "grist/core/check.h"
#include "grist/core/file.h"
#include "grist/core/json.h"
#include "tokenizer_model.h"

namespace grist {

namespace {

constexpr const char* kEndNames[] = {"<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>"};

std::optional<std::int32_t> id_of(const TokenizerModel& model, std::string_view spelling) {
  const auto found = model.id_by_spelling.find(spelling);
  if (found == model.id_by_spelling.end()) return {};
  return found->second;
}

// A token that tokenizer_config.json names: a string, or an object with `content`. Empty: none.
std::string named(const Json& config, const char* key, const std::filesystem::path& path) {
  const Json* token = config.find(key);
  if (token != nullptr && token->is_object()) token = token->find("content");
  if (token == nullptr || token->is_null()) return {};
  if (!token->is_string())
    fail(ExitCode::bad_data, "{}: {}: must be a string or an object with content", path.string(),
         key);
  return token->as_string();
}

// Takes the ends and begins of tokenizer_config.json. A begin that is no token is nobody's trouble
// until it is asked for.
void configure(TokenizerModel& model, const std::filesystem::path& path,
               const std::filesystem::path& tokenizer) {
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return;
  const Json config = Json::parse(read_text(path), path.string());
  const std::string eos = named(config, "eos_token", path);
  if (!eos.empty()) {
    model.eos = id_of(model, eos);
    if (!model.eos)
      fail(ExitCode::bad_data, "{}: eos_token: \"{}\" is not a token of {}", path.string(), eos,
           tokenizer.string());
  }
  model.bos = id_of(model, named(config, "bos_token", path));
}

}  // namespace

Tokenizer::Tokenizer(std::unique_ptr<const TokenizerModel> model) : model_(std::move(model)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

namespace {

std::unique_ptr<TokenizerModel> make_model(std::string_view json, std::string_view where) {
  auto model = std::make_unique<TokenizerModel>(parse_tokenizer(json, where), where);
  for (const char* name : kEndNames)
    for (const AddedToken& t : model->definition.added)
      if (!model->eos && t.special && t.content == name) model->eos = t.id;
  return model;
}

}  // namespace

Tokenizer Tokenizer::parse(std::string_view json, std::string_view where) {
  return Tokenizer(make_model(json, where));
}

Tokenizer Tokenizer::load(const std::filesystem::path& path) {
  std::error_code ignored;
  const bool folder = std::filesystem::is_directory(path, ignored);
  const std::filesystem::path file = folder ? path / "tokenizer.json" : path;
  auto model = make_model(read_text(file), file.string());
  configure(*model, file.parent_path() / "tokenizer_config.json", file);
  return Tokenizer(std::move(model));
}

std::int32_t Tokenizer::vocab_size() const {
  return static_cast<std::int32_t>(model_->bytes.size());
}

std::optional<std::int32_t> Tokenizer::eos_id() const {
  return model_->eos;
}
std::optional<std::int32_t> Tokenizer::bos_id() const {
  return model_->bos;
}
std::optional<std::int32_t> Tokenizer::token_id(std::string_view spelling) const {
  return id_of(*model_, spelling);
}
std::uint64_t Tokenizer::hash() const {
  return model_->hash;
}

void Tokenizer::decode(std::span<const std::int32_t> ids, std::string& out) const {
  for (const std::int32_t id : ids) {
    if (id < 0 || static_cast<std::size_t>(id) >= model_->bytes.size() || model_->present[id] == 0)
      fail(ExitCode::bad_data, "token id {} is not in this tokenizer's vocabulary of {}", id,
           vocab_size());
    out += model_->bytes[id];
  }
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids) const {
  std::string out;
  decode(ids, out);
  return out;
}

// ---- Encoder ---------------------------------------------------------------------------------

struct Encoder::State {
  State(const TokenizerModel& m, EncodeOptions o)
      : model(m), options(o), prefixed(m.stages.size()), match(m.stages.size()) {}

  void encode_plain(std::string_view text) {
    if (model.nfc && !model.nfc->surely_normal(text)) {
      model.nfc->normalize(text, normalized);
      text = normalized;
    }
    if (model.normalized_added.empty()) return encode_stage(0, text);
    model.normalized_added.split(
        text, model.classes, options.special_as_text,
        [this](std::string_view part) { encode_stage(0, part); },
        [this](std::int32_t id) { out->push_back(id); });
  }

  // Pre-tokenizer stages from number k on, then BPE.
  void encode_stage(std::size_t k, std::string_view text) {
    if (k == model.stages.size()) return encode_piece(text, text.data() + text.size());
    const TokenizerModel::Stage& stage = model.stages[k];
    if (stage.add_prefix_space && !text.starts_with(' ')) {
      prefixed[k].assign(1, ' ').append(text);
      text = prefixed[k];
    }
    if (!stage.cutter) return encode_stage(k + 1, text);
    const bool last = k + 1 == model.stages.size();
    std::array<std::uint32_t, 256> ends;
    for (std::size_t begin = 0; begin < text.size();) {
      const std::size_t count = stage.cutter->cut(text, begin, ends, match[k]);
      for (std::size_t i = 0; i < count; ++i) {
        const std::string_view piece = text.substr(begin, ends[i] - begin);
        if (last)
          encode_piece(piece, text.data() + text.size());
        else
          encode_stage(k + 1, piece);
        begin = ends[i];
      }
    }
  }

  // `end`: of the memory that the piece lies in.
  void encode_piece(std::string_view piece, const char* end) {
    if (piece.size() > PieceCache::kMaxPiece) return merge_piece(piece);
    const PieceCache::Key key = PieceCache::key_of(piece.data(), piece.size(), end);
    if (cache.lookup(key, *out)) [[likely]]
      return;
    const std::size_t before = out->size();
    merge_piece(piece);
    cache.insert(key, std::span(*out).subspan(before));
  }

  void merge_piece(std::string_view piece) {
    if (model.definition.ignore_merges) {
      const auto found = model.id_by_bytes.find(piece);
      if (found != model.id_by_bytes.end()) return out->push_back(found->second);
    }
    bpe.merge(model.merges, model.byte_ids, piece, *out);
  }

  const TokenizerModel& model;
  EncodeOptions options;
  std::vector<std::string> prefixed;  // by stage: text with a space put in front
  std::string repaired;
  std::string normalized;
  std::uint64_t replaced = 0;
  PieceCache cache;
  BpeScratch bpe;
  std::vector<MatchState> match;  // a stage's: its text is under way while the next cuts
  std::vector<std::int32_t>* out = nullptr;
};

Encoder::Encoder(const Tokenizer& tokenizer, EncodeOptions options)
    : state_(std::make_unique<State>(*tokenizer.model_, options)) {}
Encoder::Encoder(Encoder&&) noexcept = default;
Encoder::~Encoder() = default;

void Encoder::encode(std::string_view text, std::vector<std::int32_t>& out) {
  constexpr std::size_t kMaxText = (1ULL << 31U) - 64;
  State& s = *state_;
  if (unicode::valid_prefix(text, 0) != text.size()) {
    s.replaced += unicode::repair_utf8(text, s.repaired);
    text = s.repaired;
  }
  if (text.size() > kMaxText)
    fail(ExitCode::bad_data, "a text of {} bytes is too long to encode at once; cut it below 2 GiB",
         text.size());
  s.out = &out;
  s.model.raw_added.split(
      text, s.model.classes, s.options.special_as_text,
      [&s](std::string_view part) { s.encode_plain(part); },
      [&out](std::int32_t id) { out.push_back(id); });
}

std::vector<std::int32_t> Encoder::encode(std::string_view text) {
  std::vector<std::int32_t> out;
  encode(text, out);
  return out;
}

std::uint64_t Encoder::replaced() const {
  return state_->replaced;
}

std::uint64_t repair_utf8(std::string& text) {
  std::string repaired;
  const std::uint64_t replaced = unicode::repair_utf8(text, repaired);
  text = std::move(repaired);
  return replaced;
}

}  // namespace grist
