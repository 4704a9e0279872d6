// ValidationSet of data/dataset.h: the documents of all files in order, once.
#include <algorithm>

#include "batch_rows.h"
#include "grist/core/check.h"
#include "grist/data/dataset.h"
#include "token_stream.h"

namespace grist {

struct ValidationSet::State {
  std::string name;
  SampleOptions options;
  TokenStream tokens;
  std::int64_t num_targets = 0;
};

ValidationSet::ValidationSet(const DataSourceConfig& source, const SampleOptions& options)
    : state_(std::make_unique<State>(
          State{.name = source.name.empty() ? std::filesystem::path(source.path).filename().string()
                                            : source.name,
                .options = options,
                .tokens = TokenStream(source.path, TokenStream::Order::file)})) {
  GRIST_CHECK(options.seq_length > 0 && options.vocab_size > 0, "seq_length {}, vocab_size {}",
              options.seq_length, options.vocab_size);
  const TokenFile& file = state_->tokens.file();
  std::int64_t heads = 0;  // tokens that nothing predicts
  for (std::int64_t d = 0; d < file.num_documents(); ++d)
    heads += file.document_end(d) > file.document_begin(d) ? 1 : 0;
  state_->num_targets = file.num_tokens() - (options.mask_documents ? heads : 1);
  if (state_->num_targets == 0)
    fail(ExitCode::bad_data, "{}.bin: {} tokens in {} documents leave nothing to predict",
         file.prefix(), file.num_tokens(), heads);
}
ValidationSet::~ValidationSet() = default;
ValidationSet::ValidationSet(ValidationSet&&) noexcept = default;
ValidationSet& ValidationSet::operator=(ValidationSet&&) noexcept = default;

const std::string& ValidationSet::name() const {
  return state_->name;
}
std::int64_t ValidationSet::num_tokens() const {
  return state_->tokens.tokens_an_epoch();
}
std::int64_t ValidationSet::num_samples() const {
  const std::int64_t T = state_->options.seq_length;
  return (num_tokens() - 1 + T - 1) / T;
}
std::int64_t ValidationSet::num_targets() const {
  return state_->num_targets;
}
std::int64_t ValidationSet::source_bytes() const {
  const auto& info = state_->tokens.file().info();
  return info ? info->source_bytes : 0;
}
void ValidationSet::check_tokenizer(const std::string& tokenizer_hash) const {
  state_->tokens.file().check_tokenizer(tokenizer_hash);
}

void ValidationSet::batch(std::int64_t first, std::int64_t count, Batch& out) const {
  GRIST_CHECK(first >= 0, "sample {}", first);
  const State& s = *state_;
  const std::int64_t T = s.options.seq_length;
  BatchRows rows(out, count, s.options);
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(T + 1));
  std::vector<std::uint8_t> starts(tokens.size());
  for (std::int64_t i = first; i < first + count; ++i) {
    const bool inside = i < num_samples();
    const std::int64_t here = inside ? std::min(T + 1, num_tokens() - i * T) : 0;
    const auto some_tokens = std::span(tokens).first(static_cast<std::size_t>(here));
    const auto some_starts = std::span(starts).first(static_cast<std::size_t>(here));
    if (inside) s.tokens.read(i * T, s.options.vocab_size, some_tokens, some_starts);
    rows.add(some_tokens, some_starts);
  }
}

}  // namespace grist
