#include "grist/data/prepare.h"

#include "command_line.h"
#include "grist/core/log.h"
#include "grist/data/tokenizer.h"

namespace grist::app {

ExitCode run(const PrepareArguments& a) {
  const Tokenizer tokenizer = Tokenizer::load(a.tokenizer);
  PrepareOptions options;
  options.corpus = {
      .inputs = a.inputs, .text_key = a.text_key, .on_bad_line = parse_on_bad_line(a.on_bad_line)};
  options.output = a.output;
  options.overwrite = a.overwrite;
  options.threads = static_cast<int>(a.threads);
  use_tokenizer(options, tokenizer,
                {.append_eod = !a.no_eod, .special_as_text = !a.special_tokens});
  const PrepareSummary summary = prepare(options);
  for (const std::string& line : summary.bad.first) log::warn("skipped {}", line);
  log::info("{}: {}", a.output, summary.line());
  return ExitCode::ok;
}

}  // namespace grist::app
