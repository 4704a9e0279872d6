#include "grist/eval/text_loss.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numbers>
#include <optional>

#include "grist/core/check.h"
#include "grist/core/log.h"
#include "grist/data/document_pipeline.h"
#include "likelihood.h"

namespace grist::eval {

namespace {

struct Piece {                                      // of a corpus
  std::vector<std::vector<std::int32_t>> tokens{};  // of each document that has some
  std::vector<std::string> places{};                // FILE:LINE
  std::int64_t text_bytes = 0;

  void clear() { *this = {}; }
  std::size_t bytes() const {
    std::size_t sum = 0;
    for (const auto& t : tokens) sum += t.capacity() * sizeof t[0];
    return sum;
  }
};

// A document as windows of at most `room` positions. Without a prefix nothing tells of the first
// token.
void add_windows(std::vector<ScoredText>& out, const std::vector<std::int32_t>& document,
                 std::optional<std::int32_t> prefix, std::int64_t room) {
  std::vector<std::int32_t> all;
  if (prefix) all.push_back(*prefix);
  all.insert(all.end(), document.begin(), document.end());
  const std::int64_t size = std::ssize(all);
  for (std::int64_t done = 1; done < size;) {
    const std::int64_t end = std::min(done + room, size);
    const std::int64_t begin = std::max<std::int64_t>(0, end - room - 1);
    out.push_back({{all.begin() + begin, all.begin() + end}, end - done});
    done = end;
  }
}

class SourceScorer {
 public:
  SourceScorer(const TrainedModel& trained, const TextLossOptions& options, std::string source)
      : trained_(trained), options_(options) {
    loss_.source = std::move(source);
    const Tokenizer& t = *trained.tokenizer;
    prefix_ = t.bos_id() ? t.bos_id() : t.eos_id();
  }

  void add(const Piece& piece) {
    loss_.bytes += piece.text_bytes;
    loss_.documents += std::ssize(piece.tokens);
    for (std::size_t i = 0; i < piece.tokens.size(); ++i) {
      const std::size_t before = windows_.size();
      add_windows(windows_, piece.tokens[i], prefix_,
                  trained_.config.model.max_position_embeddings);
      places_.insert(places_.end(), windows_.size() - before, piece.places[i]);
      for (std::size_t w = before; w < windows_.size(); ++w)
        waiting_ += std::ssize(windows_[w].tokens);
      if (waiting_ >= kBatches * options_.batch_tokens) score();
    }
  }

  TextLoss finish() {
    score();
    if (loss_.tokens == 0) fail(ExitCode::bad_data, "{}: no text to predict", loss_.source);
    return loss_;
  }

 private:
  static constexpr std::int64_t kBatches = 16;  // sorted together

  void score() {
    const TextScores scores = score_texts(trained_, windows_, options_.batch_tokens, options_.world,
                                          [&](std::size_t i) { return places_[i]; }, {});
    for (std::size_t i = 0; i < windows_.size(); ++i) {
      loss_.nats -= scores.values[i];
      loss_.tokens += windows_[i].scored;
    }
    windows_.clear();
    places_.clear();
    waiting_ = 0;
  }

  const TrainedModel& trained_;
  const TextLossOptions& options_;
  TextLoss loss_;
  std::optional<std::int32_t> prefix_;
  std::vector<ScoredText> windows_;
  std::vector<std::string> places_;
  std::int64_t waiting_ = 0;
};

TextLoss loss_of(const TrainedModel& trained, const TextLossOptions& options,
                 const std::string& source) {
  SourceScorer scorer(trained, options, source);
  const auto make_worker = [&](int) {
    return
        [encoder = std::make_shared<Encoder>(*trained.tokenizer)](const Document& d, Piece& out) {
          std::vector<std::int32_t> tokens = encoder->encode(d.text);
          if (tokens.empty()) return;
          out.tokens.push_back(std::move(tokens));
          out.places.push_back(std::string(d.file) + ":" + std::to_string(d.line));
          out.text_bytes += static_cast<std::int64_t>(d.text.size());
        };
  };
  const CorpusSummary summary =
      for_each_in_order<Piece>({.corpus = {.inputs = {source},
                                           .text_key = options.text_key,
                                           .on_bad_line = options.on_bad_line},
                                .pipeline = {.threads = 1, .max_bytes = std::size_t{4} << 20},
                                .label = source},
                               make_worker, [&](const Piece& p) { scorer.add(p); });
  if (summary.bad.count > 0) log::warn("{}: skipped {}", source, summary.bad.summary());
  return scorer.finish();
}

}  // namespace

double TextLoss::perplexity() const {
  return std::exp(nats / static_cast<double>(tokens));
}

double TextLoss::bits_per_byte() const {
  return nats / std::numbers::ln2 / static_cast<double>(bytes);
}

std::vector<TextLoss> text_losses(const TrainedModel& trained, const TextLossOptions& options) {
  want_tokenizer(trained);
  std::vector<TextLoss> out;
  for (const std::string& source : options.sources)
    out.push_back(loss_of(trained, options, source));
  return out;
}

std::string text_loss_table(const std::vector<TextLoss>& losses) {
  const auto line = [](const TextLoss& t) {
    return fmt::format("{:<40} {:>9} {:>12} {:>12} {:>12.4f} {:>12.4f} {:>12.4f}\n", t.source,
                       t.documents, t.bytes, t.tokens, t.nats / static_cast<double>(t.tokens),
                       t.perplexity(), t.bits_per_byte());
  };
  std::string out =
      fmt::format("{:<40} {:>9} {:>12} {:>12} {:>12} {:>12} {:>12}\n", "text", "documents", "bytes",
                  "tokens", "nats/token", "perplexity", "bits/byte");
  TextLoss all;
  all.source = "all";
  for (const TextLoss& t : losses) {
    out += line(t);
    all.documents += t.documents;
    all.bytes += t.bytes;
    all.tokens += t.tokens;
    all.nats += t.nats;
  }
  return losses.size() > 1 ? out + line(all) : out;
}

Json text_loss_json(const std::vector<TextLoss>& losses) {
  Json out = Json::object();
  for (const TextLoss& t : losses) {
    Json source = Json::object();
    source.set("documents", t.documents);
    source.set("bytes", t.bytes);
    source.set("tokens", t.tokens);
    source.set("nats_per_token", t.nats / static_cast<double>(t.tokens));
    source.set("perplexity", t.perplexity());
    source.set("bits_per_byte", t.bits_per_byte());
    out.set(t.source, std::move(source));
  }
  return out;
}

}  // namespace grist::eval
