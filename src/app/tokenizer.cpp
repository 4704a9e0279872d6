// grist tokenizer: trains a tokenizer, and turns text into ids and back.
#include <charconv>

#include "command_line.h"
#include "corpus_arguments.h"
#include "grist/core/check.h"
#include "grist/core/log.h"
#include "grist/core/output.h"
#include "grist/data/bpe_trainer.h"
#include "grist/data/document_pipeline.h"
#include "grist/data/tokenizer.h"

namespace grist::app {

namespace {

std::string read_standard_input() {
  std::string text;
  char buffer[1 << 16];
  for (std::size_t n = 0; (n = std::fread(buffer, 1, sizeof buffer, stdin)) > 0;)
    text.append(buffer, n);
  if (std::ferror(stdin) != 0) fail(ExitCode::io, "standard input: read failed");
  return text;
}

// Words are counted where they are found; nothing is left for writing.
struct Nothing {
  void clear() {}
  std::size_t bytes() const { return 0; }
};

}  // namespace

ExitCode run(const TokenizerTrainArguments& a) {
  const BpeTrainerOptions options{.vocab_size = static_cast<std::int32_t>(a.vocab_size)};
  const CorpusOptions corpus = corpus_options(a);
  const PipelineOptions pipeline{.threads = static_cast<int>(a.threads)};
  WordCounter counter(options, pipeline.workers());
  const auto make_worker = [&](int worker) {
    return [&counter, worker](const Document& d, Nothing&) { counter.add(d.text, worker); };
  };
  const CorpusSummary read = for_each_in_order<Nothing>(
      {.corpus = corpus, .pipeline = pipeline, .label = "counting words"}, make_worker,
      [](Nothing&) {});
  for (const std::string& line : read.bad.first) log::warn("skipped {}", line);
  if (counter.replaced() > 0)
    log::warn("malformed UTF-8: {} places became U+FFFD", counter.replaced());
  const TrainedTokenizer trained = train_bpe(counter, options);
  save_tokenizer(trained, a.output);
  log::info("{}: {} tokens", a.output, trained.vocab_size);
  return ExitCode::ok;
}

ExitCode run(const TokenizerEncodeArguments& a) {
  const Tokenizer tokenizer = Tokenizer::load(a.tokenizer);
  std::string line;
  Encoder encoder(tokenizer);
  for (const std::int32_t id : encoder.encode(read_standard_input())) {
    line += line.empty() ? "" : " ";
    line += std::to_string(id);
  }
  if (encoder.replaced() > 0)
    log::warn("standard input: malformed UTF-8: {} places became U+FFFD", encoder.replaced());
  std::puts(line.c_str());
  return ExitCode::ok;
}

ExitCode run(const TokenizerDecodeArguments& a) {
  const Tokenizer tokenizer = Tokenizer::load(a.tokenizer);
  const std::string text = read_standard_input();
  std::vector<std::int32_t> ids;
  for (const char* at = text.data(); at != text.data() + text.size();) {
    if (*at == ' ' || *at == '\n' || *at == '\t' || *at == ',') {
      ++at;
      continue;
    }
    std::int32_t id = 0;
    const auto [end, error] = std::from_chars(at, text.data() + text.size(), id);
    if (error != std::errc())
      fail(ExitCode::bad_data, "standard input: byte {} is not part of a token id",
           at - text.data());
    ids.push_back(id);
    at = end;
  }
  const std::string decoded = tokenizer.decode(ids);
  write_output(decoded);
  return ExitCode::ok;
}

}  // namespace grist::app
