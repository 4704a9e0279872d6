#include "grist/eval/generate.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "grist/core/check.h"
#include "grist/core/random.h"
#include "grist/core/stop.h"
#include "grist/nn/decoder.h"

namespace grist::eval {

std::int32_t sample_token(std::span<const float> logits, const SamplingOptions& options,
                          std::uint64_t position) {
  for (const float l : logits) {
    if (!std::isfinite(l))
      fail(ExitCode::numeric, "the model's logits are not finite; use an earlier checkpoint");
  }
  const auto likelier = [&](std::int32_t a, std::int32_t b) {
    const float la = logits[static_cast<std::size_t>(a)], lb = logits[static_cast<std::size_t>(b)];
    return la > lb || (la == lb && a < b);
  };
  std::vector<std::int32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  if (options.temperature == 0) return *std::min_element(ids.begin(), ids.end(), likelier);
  std::sort(ids.begin(), ids.end(), likelier);
  if (options.top_k > 0 && options.top_k < static_cast<std::int64_t>(ids.size()))
    ids.resize(static_cast<std::size_t>(options.top_k));

  const double best = logits[static_cast<std::size_t>(ids[0])];
  std::vector<double> weight(ids.size());
  double sum = 0;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    weight[i] = std::exp((static_cast<double>(logits[static_cast<std::size_t>(ids[i])]) - best) /
                         options.temperature);
    sum += weight[i];
  }
  std::size_t kept = 0;
  double mass = 0;
  while (kept < ids.size() && (kept == 0 || mass < options.top_p * sum)) mass += weight[kept++];
  double at = Random(options.seed, "generate").uniform(position) * mass;
  for (std::size_t i = 0; i + 1 < kept; ++i) {
    at -= weight[i];
    if (at < 0) return ids[i];
  }
  return ids[kept - 1];
}

namespace {

void check_options(const SamplingOptions& s, std::int64_t max_tokens) {
  if (!(s.temperature >= 0) || !std::isfinite(s.temperature))
    fail(ExitCode::usage, "--temperature {}: must be 0 or more", s.temperature);
  if (s.top_k < 0) fail(ExitCode::usage, "--top-k {}: must be 0 (all) or more", s.top_k);
  if (!(s.top_p > 0 && s.top_p <= 1))
    fail(ExitCode::usage, "--top-p {}: must be above 0 and at most 1", s.top_p);
  if (max_tokens < 1 || max_tokens > (1 << 24))
    fail(ExitCode::usage, "--max-tokens {}: must be 1 to 2^24", max_tokens);
}

}  // namespace

StopReason generate(const TrainedModel& trained, const GenerateOptions& options,
                    const std::function<void(std::string_view)>& emit) {
  check_options(options.sampling, options.max_tokens);
  if (!trained.tokenizer)
    fail(ExitCode::not_found,
         "{}: the run had no tokenizer (data.tokenizer), so there is no text to make",
         trained.checkpoint.string());
  const Tokenizer& tokenizer = *trained.tokenizer;
  std::vector<std::int32_t> tokens = Encoder(tokenizer).encode(options.prompt);
  if (tokens.empty())
    fail(ExitCode::usage,
         "the prompt is empty: the model has not learnt how documents begin; give --prompt some "
         "text");
  const std::int64_t room = trained.config.model.max_position_embeddings;
  const auto length = static_cast<std::int64_t>(tokens.size());
  if (length >= room)
    fail(ExitCode::usage,
         "the prompt has {} tokens, the model has {} positions; use a shorter prompt", length,
         room);

  nn::Decoder decoder(*trained.model, std::min(room, length + options.max_tokens));
  std::span<const float> logits = decoder.feed(trained.context(), tokens);
  const auto used = static_cast<std::size_t>(
      tokenizer.vocab_size());  // columns beyond are padding of the embedding table
  for (std::int64_t i = 0; i < options.max_tokens; ++i) {
    const std::int32_t next =
        sample_token(logits.first(std::min(used, logits.size())), options.sampling,
                     static_cast<std::uint64_t>(decoder.length()));
    if (tokenizer.eos_id() == next) return StopReason::end_of_text;
    emit(tokenizer.decode(std::span(&next, 1)));
    if (stop_signal() != 0) return StopReason::stopped;
    if (i + 1 == options.max_tokens) break;
    if (decoder.length() == decoder.max_tokens()) return StopReason::no_room;
    logits = decoder.feed(trained.context(), std::span(&next, 1));
  }
  return StopReason::max_tokens;
}

}  // namespace grist::eval
