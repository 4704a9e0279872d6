#include "grist/data/prepare.h"

#include <memory>

#include "command_line.h"
#include "grist/core/check.h"
#include "grist/core/hash.h"
#include "grist/core/log.h"
#include "grist/data/tokenizer.h"

namespace grist::app {

ExitCode run(const PrepareArguments& a) {
  const Tokenizer tokenizer = Tokenizer::load(a.tokenizer);
  if (!a.no_eod && !tokenizer.eos_id()) {
    fail(ExitCode::bad_data,
         "{}: no end-of-text token to put behind documents; add one to tokenizer_config.json "
         "(eos_token), or use --no-eod",
         a.tokenizer);
  }
  PrepareOptions options;
  options.corpus = {
      .inputs = a.inputs, .text_key = a.text_key, .on_bad_line = parse_on_bad_line(a.on_bad_line)};
  options.output = a.output;
  options.overwrite = a.overwrite;
  options.threads = static_cast<int>(a.threads);
  options.vocab_size = tokenizer.vocab_size();
  options.eod_id = a.no_eod ? -1 : *tokenizer.eos_id();
  options.tokenizer_hash = hash_hex(tokenizer.hash());
  options.make_encoder = [&] {
    const auto encoder =
        std::make_shared<Encoder>(tokenizer, EncodeOptions{.special_as_text = a.special_as_text});
    return [encoder](std::string_view text, std::vector<std::int32_t>& ids) {
      encoder->encode(text, ids);
    };
  };
  const PrepareSummary summary = prepare(options);
  for (const std::string& line : summary.bad.first) log::warn("skipped {}", line);
  log::info("{}: {}", a.output, summary.line());
  return ExitCode::ok;
}

}  // namespace grist::app
