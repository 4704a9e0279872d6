#include "grist/data/prepare.h"

#include "command_line.h"
#include "corpus_arguments.h"
#include "grist/core/check.h"
#include "grist/core/log.h"
#include "grist/data/tokenizer.h"

namespace grist::app {

namespace {

std::string named(const Tokenizer& tokenizer, std::int64_t id) {
  const auto token = static_cast<std::int32_t>(id);
  return fmt::format("{} (id {})", tokenizer.decode(std::span(&token, 1)), id);
}

// What stands around each document: a model that learns another end never stops.
std::string around(const Tokenizer& tokenizer, const PrepareOptions& options) {
  std::string line = "each document ends with ";
  line += options.eod_id >= 0 ? named(tokenizer, options.eod_id) : "no token of its own (--no-eod)";
  if (options.bos_id >= 0) line += " and begins with " + named(tokenizer, options.bos_id);
  return line;
}

}  // namespace

ExitCode run(const PrepareArguments& a) {
  const Tokenizer tokenizer = Tokenizer::load(a.tokenizer);
  PrepareOptions options;
  options.corpus = corpus_options(a);
  options.output = a.output;
  options.overwrite = a.overwrite;
  options.threads = static_cast<int>(a.threads);
  use_tokenizer(options, tokenizer,
                {.append_eod = !a.no_eod,
                 .prepend_bos = a.bos,
                 .begin_token = a.bos_token,
                 .special_as_text = !a.special_tokens});
  log::info("{}", around(tokenizer, options));
  const PrepareSummary summary = prepare(options);
  for (const std::string& line : summary.bad.first) log::warn("skipped {}", line);
  log::info("{}: {}", a.output, summary.line());
  return ExitCode::ok;
}

}  // namespace grist::app
