// grist tokens: token files made of token files.
#include "command_line.h"
#include "grist/core/log.h"
#include "grist/data/token_files.h"

namespace grist::app {

namespace {

template <class Arguments> TokenFilesOptions options_of(const Arguments& a) {
  return {.output = a.output, .overwrite = a.overwrite, .vocab_size = a.vocab_size};
}

void say(const WrittenTokens& w) {
  log::info("{}: {} documents, {} tokens", w.prefix.string(), w.documents, w.tokens);
}

}  // namespace

ExitCode run(const TokensJoinArguments& a) {
  const std::vector<std::filesystem::path> inputs(a.inputs.begin(), a.inputs.end());
  say(join_token_files(inputs, options_of(a)));
  return ExitCode::ok;
}

ExitCode run(const TokensSplitArguments& a) {
  const TokenFilesOptions options = options_of(a);
  const auto written =
      a.parts > 0
          ? split_token_file(a.input, static_cast<int>(a.parts), options)
          : hold_out_documents(a.input, a.held_out, static_cast<std::uint64_t>(a.seed), options);
  for (const WrittenTokens& w : written) say(w);
  return ExitCode::ok;
}

}  // namespace grist::app
