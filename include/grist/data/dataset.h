#pragma once
// Batches of token sequences. Both sets are stateless: a sample is a function of its number, so
// resuming is a number and every world size and batch size sees the same order.
//
// Training. A source is an endless stream of tokens: epoch after epoch, all of its documents in an
// order drawn for (seed, content, epoch). The stream is cut every T = seq_length tokens; sample j
// has inputs [j'T, j'T + T) and the targets one further on, where j' is j permuted among the
// samples that start in the same epoch, so that the pieces of a long document are not neighbours.
// Each token of an epoch is an input exactly once. Sources are mixed by weights in a fixed cycle in
// which no source runs ahead of its share.
//
// Validation. The documents of all its files in order, once, nothing left out; the last sample is
// padded.
//
// With mask_documents, positions restart and attention ends at document starts, and the last token
// of a document (its end-of-document token) has target -1: nothing predicts the first token of the
// next document. Without it a sample is one segment and every target counts.
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "grist/config/config.h"
#include "grist/core/json.h"

namespace grist {

// A micro-batch: `sequences` rows of `seq_length` tokens, N = sequences * seq_length.
struct Batch {
  std::int64_t sequences = 0;
  std::int64_t seq_length = 0;
  std::vector<std::int32_t> ids;         // (N)
  std::vector<std::int32_t> targets;     // (N); -1: not counted
  std::vector<std::int32_t> positions;   // (N); from 0 in each segment
  std::vector<std::int32_t> cu_seqlens;  // (segments + 1); 0 first, N last; rows are always cut
  std::int32_t max_seqlen = 0;           // longest segment
  std::int64_t num_targets = 0;          // targets that are not -1
};

struct SampleOptions {
  std::int64_t seq_length = 0;
  std::int64_t vocab_size = 0;  // an id beyond it is Error{bad_data} when it is read
  bool mask_documents = true;
};

// Where a training sample comes from.
struct SampleOrigin {
  std::int64_t source = 0;  // index into data.train
  std::int64_t sample = 0;  // number within the source, counted over all epochs
};

class SampleStream {
 public:
  // Opens data.train and hashes it. not_found, bad_data, or config (weights).
  SampleStream(const DataConfig& data, std::int64_t seed, std::int64_t vocab_size);
  ~SampleStream();
  SampleStream(SampleStream&&) noexcept;
  SampleStream& operator=(SampleStream&&) noexcept;

  // Samples [first, first + count) of the run. Safe to call from many threads. The first use of an
  // epoch draws its document order: about 0.5 s of one core a million documents (all cores share
  // it), 1/8 byte a document kept.
  void batch(std::int64_t first, std::int64_t count, Batch& out) const;
  SampleOrigin origin(std::int64_t sample) const;

  std::int64_t num_sources() const;
  std::int64_t num_tokens(std::int64_t source) const;  // of one epoch
  // Epochs of a source that the first `samples` samples of the run have gone through.
  double epochs(std::int64_t source, std::int64_t samples) const;

  // bad_data when a source was made with another tokenizer (known from its sidecar).
  void check_tokenizer(const std::string& tokenizer_hash) const;

  // What the order of samples depends on, for the checkpoint.
  Json fingerprints() const;
  // Throws when `saved` belongs to another order, saying what changed and what to do. Moved files
  // with the same content are the same data.
  void check_fingerprints(const Json& saved) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// One validation source. Rows past the end are padding: id 0, target -1, a segment of their own.
class ValidationSet {
 public:
  ValidationSet(const DataSourceConfig& source, const SampleOptions& options);
  ~ValidationSet();
  ValidationSet(ValidationSet&&) noexcept;
  ValidationSet& operator=(ValidationSet&&) noexcept;

  const std::string& name() const;
  std::int64_t num_samples() const;  // covers every token
  std::int64_t num_tokens() const;
  std::int64_t num_targets() const;   // over the whole set
  std::int64_t source_bytes() const;  // of the text, for bits per byte; 0: not known
  void batch(std::int64_t first, std::int64_t count, Batch& out) const;
  void check_tokenizer(const std::string& tokenizer_hash) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace grist
