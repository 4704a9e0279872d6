#include "likelihood.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>

#include "grist/core/check.h"
#include "grist/core/progress.h"
#include "grist/core/stop.h"
#include "grist/nn/scorer.h"
#include "prefix_tree.h"
#include "python_text.h"

namespace grist::eval {

namespace {

using Tokens = std::vector<std::int32_t>;

// Encodes on one thread.
class PairEncoder {
 public:
  PairEncoder(const Tokenizer& tokenizer, bool bos) : encoder_(tokenizer) {
    prefix_ = tokenizer.bos_id() ? tokenizer.bos_id() : tokenizer.eos_id();
    if (bos) bos_ = tokenizer.bos_id();
  }

  // The tokens of both and how many of them, the last ones, are scored.
  ScoredText encode(const Request& r) {
    const std::string_view context = rstrip(r.context);
    const std::string continuation =
        std::string(r.context.substr(context.size())) + std::string(r.continuation);
    if (context.empty()) return without_context(continuation);
    ScoredText out{text(std::string(context) + continuation), 0};
    const Tokens alone = text(context);
    out.scored = std::max<std::int64_t>(0, std::ssize(out.tokens) - std::ssize(alone));
    return out;
  }

 private:
  Tokens text(std::string_view t) {
    Tokens out;
    encoder_.encode(t, out);
    if (bos_ && (out.empty() || out[0] != *bos_)) out.insert(out.begin(), *bos_);
    return out;
  }
  // BOS, else EOS, stands for the context.
  ScoredText without_context(std::string_view continuation) {
    ScoredText out{encoder_.encode(continuation), 0};
    if (prefix_ && (out.tokens.empty() || out.tokens[0] != *prefix_))
      out.tokens.insert(out.tokens.begin(), *prefix_);
    out.scored = std::ssize(out.tokens) - 1;
    return out;
  }

  Encoder encoder_;
  std::optional<std::int32_t> prefix_, bos_;
};

std::vector<ScoredText> encode_all(const TrainedModel& trained,
                                   const std::vector<Request>& requests, bool bos) {
  const Context& ctx = trained.context();
  std::vector<ScoredText> texts(requests.size());
  std::vector<std::unique_ptr<PairEncoder>> encoders(
      static_cast<std::size_t>(trained.device->threads()));
  constexpr std::size_t kTask = 64;
  const auto tasks = static_cast<std::int64_t>((requests.size() + kTask - 1) / kTask);
  parallel_for(ctx, tasks, [&](std::int64_t task, int worker) {
    auto& encoder = encoders[static_cast<std::size_t>(worker)];
    if (!encoder) encoder = std::make_unique<PairEncoder>(*trained.tokenizer, bos);
    const std::size_t begin = static_cast<std::size_t>(task) * kTask;
    for (std::size_t i = begin; i < std::min(begin + kTask, requests.size()); ++i)
      texts[i] = encoder->encode(requests[i]);
  });
  return texts;
}

void check_text(const ScoredText& t, std::int64_t room, const std::string& where) {
  if (t.scored <= 0 || t.scored >= std::ssize(t.tokens))
    fail(ExitCode::bad_data,
         "{}: the tokenizer leaves no token of the answer behind those of its context", where);
  if (t.scored > room)
    fail(ExitCode::bad_data, "{}: an answer of {} tokens, the model has {} positions", where,
         t.scored, room);
}

}  // namespace

void want_tokenizer(const TrainedModel& trained) {
  if (!trained.tokenizer)
    fail(ExitCode::not_found, "{}: the run had no tokenizer (data.tokenizer), so it reads no text",
         trained.checkpoint.string());
}

TextScores score_texts(const TrainedModel& trained, const std::vector<ScoredText>& texts,
                       std::int64_t batch_tokens,
                       const std::function<std::string(std::size_t)>& where,
                       const std::function<void(std::size_t)>& done) {
  const std::vector<std::size_t> order = tree_order(texts);
  const nn::Scorer scorer(*trained.model);
  TextScores out;
  out.values.resize(texts.size());
  for (std::size_t next = 0; next < order.size();) {
    if (stop_signal() != 0) fail(ExitCode::preempted, "stopped by signal {}", stop_signal());
    const PrefixTree tree = next_tree(texts, order, next, batch_tokens);
    out.computed += tree.tokens;
    const std::vector<float> losses = scorer.score(trained.context(), tree.pieces, tree.queries);
    for (std::size_t at = 0; at < losses.size(); ++next) {
      const ScoredText& t = texts[order[next]];
      double sum = 0;
      for (std::int64_t i = 0; i < t.scored; ++i) sum -= static_cast<double>(losses[at++]);
      if (!std::isfinite(sum))
        fail(ExitCode::numeric,
             "{}: a log-likelihood is {}: the model's outputs are not finite; use an earlier "
             "checkpoint",
             where(order[next]), sum);
      out.values[order[next]] = sum;
    }
    if (done) done(next);
  }
  return out;
}

Likelihoods score_requests(const TrainedModel& trained, const std::vector<Request>& requests,
                           const LikelihoodOptions& options, const std::string& label,
                           const std::function<std::string(std::size_t)>& where) {
  want_tokenizer(trained);
  if (options.bos && !trained.tokenizer->bos_id())
    fail(ExitCode::usage, "--bos: the tokenizer has no bos_token");
  std::vector<ScoredText> texts = encode_all(trained, requests, options.bos);
  const std::int64_t room = trained.config.model.max_position_embeddings;
  Likelihoods out;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    Tokens& tokens = texts[i].tokens;
    check_text(texts[i], room, where(i));
    out.truncated += std::ssize(tokens) > room + 1 ? 1 : 0;
    if (std::ssize(tokens) > room + 1) tokens.erase(tokens.begin(), tokens.end() - (room + 1));
    out.tokens += std::ssize(tokens) - 1;
  }
  Progress progress(label, texts.size(), "requests");
  TextScores scores = score_texts(trained, texts, options.batch_tokens, where,
                                  [&](std::size_t done) { progress.update(done); });
  progress.finish(texts.size());
  out.values = std::move(scores.values);
  out.computed = scores.computed;
  return out;
}

}  // namespace grist::eval
