#pragma once
// How well a model predicts text: perplexity and bits per byte, source by source. Documents are
// scored as lm-evaluation-harness's loglikelihood_rolling scores them: the tokenizer's BOS, else
// EOS token in front, windows of the model's length, every token once; the last window is as long
// as the others by looking back.
#include <cstdint>
#include <string>
#include <vector>

#include "grist/comm/communicator.h"
#include "grist/core/json.h"
#include "grist/data/corpus.h"
#include "grist/eval/trained_model.h"

namespace grist::eval {

struct TextLossOptions {
  std::vector<std::string> sources{};  // each a path or a pattern (data/corpus.h)
  std::string text_key = "text";
  OnBadLine on_bad_line = OnBadLine::refuse;
  std::int64_t batch_tokens = 2048;     // computed at a time
  comm::Communicator* world = nullptr;  // ranks that share the work; null: this one alone
};

struct TextLoss {
  std::string source{};
  std::int64_t documents = 0, bytes = 0, tokens = 0;  // tokens that were predicted
  double nats = 0;
  double perplexity() const;     // of a token
  double bits_per_byte() const;  // of UTF-8
};

// Throws Error{not_found}, Error{bad_data} for files and for a source without text, Error{numeric}
// when a log-likelihood is not finite, Error{preempted} by a signal. With several ranks all call it
// for the same files.
std::vector<TextLoss> text_losses(const TrainedModel& trained, const TextLossOptions& options);

// A line a source, and all together when there are several.
std::string text_loss_table(const std::vector<TextLoss>& losses);
// {source: {"documents", "bytes", "tokens", "nats_per_token", "perplexity", "bits_per_byte"}}
Json text_loss_json(const std::vector<TextLoss>& losses);

}  // namespace grist::eval
