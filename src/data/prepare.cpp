#include "grist/data/prepare.h"

#include <algorithm>
#include <chrono>

#include "grist/core/check.h"
#include "grist/data/document_pipeline.h"

namespace grist {

namespace {

constexpr std::size_t kKeepBytes = std::size_t{4} << 20;  // capacity kept between pieces

// What a piece of the corpus becomes.
struct Encoded {
  std::vector<std::int32_t> ids;
  std::vector<std::size_t> ends;  // of documents, in ids
  std::int64_t empty = 0;
  std::uint64_t text_bytes = 0;

  void clear() {
    if (bytes() > kKeepBytes) ids = {};
    ids.clear();
    ends.clear();
    empty = 0;
    text_bytes = 0;
  }
  std::size_t bytes() const { return ids.capacity() * sizeof ids[0]; }
};

class Worker {
 public:
  explicit Worker(const PrepareOptions& options)
      : encode_(options.make_encoder()), bos_id_(options.bos_id), eod_id_(options.eod_id) {}

  void operator()(const Document& document, Encoded& out) const {
    const std::size_t before = out.ids.size();
    if (bos_id_ >= 0) out.ids.push_back(static_cast<std::int32_t>(bos_id_));
    const std::size_t begun = out.ids.size();
    encode_(document.text, out.ids);
    if (out.ids.size() == begun) {
      out.ids.resize(before);
      ++out.empty;
      return;
    }
    if (eod_id_ >= 0) out.ids.push_back(static_cast<std::int32_t>(eod_id_));
    out.ends.push_back(out.ids.size());
    out.text_bytes += document.text.size();
  }

 private:
  TextEncoder encode_;
  std::int64_t bos_id_, eod_id_;
};

void check_options(const PrepareOptions& options) {
  GRIST_CHECK(options.make_encoder != nullptr, "prepare needs an encoder");
  GRIST_CHECK(options.vocab_size > 0, "vocab_size = {}", options.vocab_size);
  GRIST_CHECK(options.bos_id < options.vocab_size, "bos_id {} of a vocabulary of {}",
              options.bos_id, options.vocab_size);
  GRIST_CHECK(options.eod_id < options.vocab_size, "eod_id {} of a vocabulary of {}",
              options.eod_id, options.vocab_size);
}

void add(const Encoded& piece, TokenFileWriter& writer, PrepareSummary& summary) {
  std::size_t begin = 0;
  for (const std::size_t end : piece.ends) {
    writer.add_document(std::span(piece.ids).subspan(begin, end - begin));
    begin = end;
  }
  summary.empty_documents += piece.empty;
  summary.text_bytes += piece.text_bytes;
}

}  // namespace

std::string PrepareSummary::line() const {
  const double mb = static_cast<double>(text_bytes) / 1e6;
  const auto count = static_cast<double>(std::max<std::int64_t>(tokens, 1));
  const double time = std::max(seconds, 1e-9);
  return fmt::format(
      "{} documents, {} tokens, {:.1f} MB of text ({:.3f} bytes a token), {} empty documents left "
      "out, {} bad lines skipped; {:.1f} s, {:.1f} MB/s, {:.0f} tokens/s",
      documents, tokens, mb, static_cast<double>(text_bytes) / count, empty_documents, bad.count,
      seconds, mb / time, static_cast<double>(tokens) / time);
}

PrepareSummary prepare(const PrepareOptions& options) {
  check_options(options);
  const auto start = std::chrono::steady_clock::now();
  TokenFileWriter writer(options.output, options.vocab_size, options.overwrite);
  PrepareSummary summary;
  const CorpusSummary corpus = for_each_in_order<Encoded>(
      {.corpus = options.corpus,
       .pipeline = {.threads = options.threads},
       .label = options.progress ? "prepare" : ""},
      [&](int) { return Worker(options); },
      [&](const Encoded& piece) { add(piece, writer, summary); });
  if (corpus.bad.count > 0 && writer.num_tokens() == 0)
    fail(ExitCode::bad_data, "{}: nothing is left to write: {}", options.output.string(),
         corpus.bad.summary());
  writer.finish({.tokenizer_hash = options.tokenizer_hash,
                 .vocab_size = options.vocab_size,
                 .bos_id = options.bos_id,
                 .eod_id = options.eod_id,
                 .source_bytes = static_cast<std::int64_t>(summary.text_bytes)});
  summary.documents = writer.num_documents();
  summary.tokens = writer.num_tokens();
  summary.bad = corpus.bad;
  summary.input_bytes = corpus.input_bytes;
  summary.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return summary;
}

}  // namespace grist
