#pragma once
// Log-likelihoods of texts behind contexts, as lm-evaluation-harness defines them: context and
// continuation are encoded together, and what lies behind the context's own number of tokens is
// scored; what is too long loses its beginning.
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "grist/comm/communicator.h"
#include "grist/eval/trained_model.h"
#include "prefix_tree.h"

namespace grist::eval {

struct Request {
  std::string_view context{}, continuation{};  // the separator begins the continuation
};

struct LikelihoodOptions {
  std::int64_t batch_tokens = 2048;     // computed at a time
  comm::Communicator* world = nullptr;  // ranks that share the work; null: this one alone
  bool bos = false;                     // the tokenizer's bos_token in front of every text
};

struct Likelihoods {
  std::vector<double> values{};  // nats, one a request
  std::int64_t tokens = 0;       // of all requests
  std::int64_t computed = 0;     // that went through the model
  std::int64_t truncated = 0;    // requests that lost their beginning
};

struct TextScores {
  std::vector<double> values{};  // nats, of each text's scored tokens
  std::int64_t computed = 0;     // tokens that went through the model
};

// Error{not_found} without one.
void want_tokenizer(const TrainedModel& trained);

// Texts of at most max_position_embeddings + 1 tokens. `where(i)` names text i in Error{numeric},
// for a result that is not finite; `done(n)`, where not empty, hears of progress. Error{preempted}
// by a signal. With several ranks all call it with the same texts and get the same scores, to the
// bit those of one; an error before it on one rank must be agreed on after it (comm::Agreed).
TextScores score_texts(const TrainedModel& trained, const std::vector<ScoredText>& texts,
                       std::int64_t batch_tokens, comm::Communicator* world,
                       const std::function<std::string(std::size_t)>& where,
                       const std::function<void(std::size_t)>& done);

// `where(i)` names request i in errors: Error{bad_data} when the tokenizer leaves nothing to score
// or more than the model's positions, Error{numeric} for a result that is not finite.
// Error{not_found} without a tokenizer.
Likelihoods score_requests(const TrainedModel& trained, const std::vector<Request>& requests,
                           const LikelihoodOptions& options, const std::string& label,
                           const std::function<std::string(std::size_t)>& where);

}  // namespace grist::eval
