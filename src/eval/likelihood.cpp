#include "likelihood.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <span>

#include "grist/comm/collectives.h"
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

namespace {

// Scores the batches of one rank: every size()-th, in the order of the tree.
class BatchScorer {
 public:
  BatchScorer(const TrainedModel& trained, const std::vector<ScoredText>& texts,
              const std::function<std::string(std::size_t)>& where, TextScores& out)
      : trained_(trained), scorer_(*trained.model), texts_(texts), where_(where), out_(out) {}

  void score(const PrefixTree& tree, std::span<const std::size_t> which) {
    out_.computed += tree.tokens;
    const std::vector<float> losses = scorer_.score(trained_.context(), tree.pieces, tree.queries);
    std::size_t at = 0;
    for (const std::size_t text : which) {
      double sum = 0;
      for (std::int64_t i = 0; i < texts_[text].scored; ++i)
        sum -= static_cast<double>(losses[at++]);
      if (!std::isfinite(sum))
        fail(ExitCode::numeric,
             "{}: a log-likelihood is {}: the model's outputs are not finite; use an earlier "
             "checkpoint",
             where_(text), sum);
      out_.values[text] = sum;
    }
  }

 private:
  const TrainedModel& trained_;
  const nn::Scorer scorer_;
  const std::vector<ScoredText>& texts_;
  const std::function<std::string(std::size_t)>& where_;
  TextScores& out_;
};

// How many texts the tree holds, from `first` on.
std::size_t texts_in(const PrefixTree& tree, const std::vector<ScoredText>& texts,
                     std::span<const std::size_t> rest) {
  std::size_t count = 0;
  for (std::size_t rows = 0; rows < tree.queries.size(); ++count)
    rows += static_cast<std::size_t>(texts[rest[count]].scored);
  return count;
}

// Each value comes from one rank; the others have 0.
void gather(comm::Communicator& world, TextScores& out) {
  const std::size_t n = out.values.size();
  const std::vector<double> all = comm::all_gather(world, out.values);
  for (std::size_t i = 0; i < n; ++i) {
    out.values[i] = 0;
    for (std::size_t r = 0; r < all.size() / n; ++r) out.values[i] += all[r * n + i];
  }
  out.computed = comm::all_reduce_sum(world, out.computed);
}

}  // namespace

TextScores score_texts(const TrainedModel& trained, const std::vector<ScoredText>& texts,
                       std::int64_t batch_tokens, comm::Communicator* world,
                       const std::function<std::string(std::size_t)>& where,
                       const std::function<void(std::size_t)>& done) {
  const std::vector<std::size_t> order = tree_order(texts);
  const int ranks = world == nullptr ? 1 : world->size();
  const int rank = world == nullptr ? 0 : world->rank();
  TextScores out;
  out.values.resize(texts.size());
  BatchScorer scorer(trained, texts, where, out);
  const auto score_own = [&] {
    int number = 0;
    for (std::size_t next = 0; next < order.size(); ++number) {
      if (stop_signal() != 0) fail(ExitCode::preempted, "stopped by signal {}", stop_signal());
      const PrefixTree tree = next_tree(texts, order, next, batch_tokens);
      const auto rest = std::span(order).subspan(next);
      const std::size_t count = texts_in(tree, texts, rest);
      if (number % ranks == rank) scorer.score(tree, rest.first(count));
      next += count;
      if (done) done(next);
    }
  };
  if (ranks == 1) {
    score_own();
    return out;
  }
  comm::agree(*world, score_own);
  if (!texts.empty()) gather(*world, out);
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
  TextScores scores = score_texts(trained, texts, options.batch_tokens, options.world, where,
                                  [&](std::size_t done) { progress.update(done); });
  progress.finish(texts.size());
  out.values = std::move(scores.values);
  out.computed = scores.computed;
  return out;
}

}  // namespace grist::eval
