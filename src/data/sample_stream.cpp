// SampleStream of data/dataset.h: sample i of a weighted mix of token files, made from (seed, i)
// alone; and whether the data are those of the run that is resumed.
#include <cmath>
#include <map>

#include "batch_rows.h"
#include "blend.h"
#include "grist/core/check.h"
#include "grist/data/dataset.h"
#include "token_stream.h"

namespace grist {

namespace {

struct Source {
  std::string name, path, fingerprint;
  double weight = 1;
  TokenStream tokens;
};

std::string name_of(const DataSourceConfig& source) {
  return source.name.empty() ? std::filesystem::path(source.path).filename().string() : source.name;
}

std::vector<double> weights_of(const DataConfig& data) {
  std::vector<double> weights;
  for (const DataSourceConfig& s : data.train) weights.push_back(s.weight);
  return weights;
}

// As a validation set is: steps on it would move weights by weight decay alone.
void check_targets(const TokenFile& file, bool mask_documents) {
  if (!mask_documents) return;  // one stream without end
  for (std::int64_t d = 0; d < file.num_documents(); ++d)
    if (file.document_end(d) - file.document_begin(d) > 1) return;
  fail(ExitCode::bad_data,
       "{}.bin: {} tokens in {} documents leave nothing to predict; use documents of two tokens or "
       "more, or data.mask_documents: false",
       file.prefix(), file.num_tokens(), file.num_documents());
}

void check_sizes(std::int64_t seq_length, std::int64_t vocab_size) {
  if (seq_length <= 0 || seq_length > (std::int64_t{1} << 30))
    fail(ExitCode::config, "data.seq_length = {}: must be 1 to 2^30", seq_length);
  if (vocab_size <= 0 || vocab_size > (std::int64_t{1} << 31))
    fail(ExitCode::config, "model.vocab_size = {}: must be 1 to 2^31", vocab_size);
}

}  // namespace

struct SampleStream::State {
  std::int64_t seed = 0;
  SampleOptions options;
  Blend blend;
  std::vector<Source> sources;
};

SampleStream::SampleStream(const DataConfig& data, std::int64_t seed, std::int64_t vocab_size)
    : state_(std::make_unique<State>(State{.seed = seed,
                                           .options = {.seq_length = data.seq_length,
                                                       .vocab_size = vocab_size,
                                                       .mask_documents = data.mask_documents},
                                           .blend = Blend(weights_of(data)),
                                           .sources = {}})) {
  check_sizes(data.seq_length, vocab_size);
  // Random numbers are named by content, so moving a file changes nothing; a source listed twice is
  // drawn in two different orders.
  std::map<std::string, int> copies;
  for (const DataSourceConfig& config : data.train) {
    Source source{.name = name_of(config),
                  .path = config.path,
                  .fingerprint = {},
                  .weight = config.weight,
                  .tokens = TokenStream(config.path, TokenStream::Order::drawn)};
    check_targets(source.tokens.file(), data.mask_documents);
    source.fingerprint = source.tokens.file().fingerprint();
    source.tokens.draw_with(
        static_cast<std::uint64_t>(seed),
        fmt::format("data/{}/{}", source.fingerprint, copies[source.fingerprint]++));
    state_->sources.push_back(std::move(source));
  }
}
SampleStream::~SampleStream() = default;
SampleStream::SampleStream(SampleStream&&) noexcept = default;
SampleStream& SampleStream::operator=(SampleStream&&) noexcept = default;

SampleOrigin SampleStream::origin(std::int64_t sample) const {
  GRIST_CHECK(sample >= 0, "sample {}", sample);
  const Blend::Place place = state_->blend(sample);
  return {.source = place.source, .sample = place.sample};
}

void SampleStream::batch(std::int64_t first, std::int64_t count, Batch& out) const {
  const State& s = *state_;
  BatchRows rows(out, count, s.options);
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(s.options.seq_length + 1));
  std::vector<std::uint8_t> starts(tokens.size());
  for (std::int64_t i = first; i < first + count; ++i) {
    const SampleOrigin from = origin(i);
    const TokenStream& stream = s.sources[static_cast<std::size_t>(from.source)].tokens;
    stream.read(stream.sample_position(from.sample, s.options.seq_length), s.options.vocab_size,
                tokens, starts);
    rows.add(tokens, starts);
  }
}

std::int64_t SampleStream::num_sources() const {
  return static_cast<std::int64_t>(state_->sources.size());
}
std::int64_t SampleStream::num_tokens(std::int64_t source) const {
  return state_->sources[static_cast<std::size_t>(source)].tokens.tokens_an_epoch();
}
double SampleStream::epochs(std::int64_t source, std::int64_t samples) const {
  return static_cast<double>(state_->blend.taken(source, samples)) *
         static_cast<double>(state_->options.seq_length) / static_cast<double>(num_tokens(source));
}

void SampleStream::check_tokenizer(const std::string& tokenizer_hash) const {
  for (const Source& source : state_->sources) source.tokens.file().check_tokenizer(tokenizer_hash);
}

// ---- fingerprints ----------------------------------------------------------------------------

Json SampleStream::fingerprints() const {
  const State& s = *state_;
  Json sources = Json::array();
  for (std::size_t d = 0; d < s.sources.size(); ++d) {
    const Source& source = s.sources[d];
    Json j = Json::object();
    j.set("name", source.name);
    j.set("path", source.path);
    j.set("fingerprint", source.fingerprint);
    j.set("documents", source.tokens.file().num_documents());
    j.set("tokens", source.tokens.tokens_an_epoch());
    j.set("weight", source.weight);
    j.set("share", s.blend.share(static_cast<std::int64_t>(d)));
    sources.push_back(std::move(j));
  }
  Json j = Json::object();
  j.set("sample_order", 1);
  j.set("seed", s.seed);
  j.set("seq_length", s.options.seq_length);
  j.set("mask_documents", s.options.mask_documents);
  j.set("sources", std::move(sources));
  return j;
}

namespace {

void compare(const Json& saved, const Json& now, const char* key, const std::string& label,
             std::vector<std::string>& changes) {
  if (saved.at(key) == now.at(key)) return;
  changes.push_back(
      fmt::format("{} was {}, is {}", label, saved.at(key).dump(), now.at(key).dump()));
}

// Appends what differs about source d; true if its content does.
bool compare_source(const Json& saved, const Json& now, std::size_t d,
                    std::vector<std::string>& changes) {
  const std::string label = fmt::format("data.train[{}]", d);
  const bool content = !(saved.at("fingerprint") == now.at("fingerprint"));
  if (content) {
    changes.push_back(fmt::format(
        "{} ({}) has other content: {} documents, {} tokens, fingerprint {}; it was {} with {} "
        "documents, {} tokens, fingerprint {}",
        label, now.at("path").as_string(), now.at("documents").as_int(), now.at("tokens").as_int(),
        now.at("fingerprint").as_string(), saved.at("path").as_string(),
        saved.at("documents").as_int(), saved.at("tokens").as_int(),
        saved.at("fingerprint").as_string()));
  }
  if (!(saved.at("share") == now.at("share")))
    compare(saved, now, "weight", label + ".weight", changes);
  return content;
}

}  // namespace

void SampleStream::check_fingerprints(const Json& saved) const {
  const Json now = fingerprints();
  std::vector<std::string> changes;
  compare(saved, now, "sample_order", "the version of the sample order", changes);
  compare(saved, now, "seed", "seed", changes);
  compare(saved, now, "seq_length", "data.seq_length", changes);
  compare(saved, now, "mask_documents", "data.mask_documents", changes);
  const auto& before = saved.at("sources").as_array();
  const auto& after = now.at("sources").as_array();
  bool content = false;
  if (before.size() != after.size()) {
    changes.push_back(
        fmt::format("data.train had {} sources, has {}", before.size(), after.size()));
  } else {
    for (std::size_t d = 0; d < after.size(); ++d)
      content = compare_source(before[d], after[d], d, changes) || content;
  }
  if (changes.empty()) return;
  std::string all;
  for (const std::string& change : changes) all += (all.empty() ? "" : "; ") + change;
  fail(
      content ? ExitCode::bad_data : ExitCode::config,
      "the training data is not what this checkpoint was trained on: {}. Put it back to resume, or "
      "train on the new data in another run folder with init.from",
      all);
}

}  // namespace grist
