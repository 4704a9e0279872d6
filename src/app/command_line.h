#pragma once
// The command line as plain structs: one a subcommand. Only command_line.cpp knows the parser.
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "grist/core/error.h"

namespace grist::app {

struct Exit {  // --help, --version or a wrong command line: already said
  ExitCode code = ExitCode::ok;
};

struct TrainArguments {
  std::string config;
  std::vector<std::string> sets;
  bool dry_run = false;
};

struct VerifyParallelArguments {
  std::string config;
  std::vector<std::string> sets;
  std::int64_t steps = 3;
  std::string reference = "one-rank";
};

struct VerifyResumeArguments {
  std::string config;
  std::vector<std::string> sets;
  std::int64_t steps = 20;
};

struct PrepareArguments {
  std::vector<std::string> inputs;
  std::string tokenizer;
  std::string output;
  std::string text_key = "text";
  std::string document_separator;  // as written; empty: none
  std::string on_bad_line = "refuse";
  std::int64_t threads = 0;
  bool overwrite = false;
  bool bos = false;
  std::string bos_token;  // empty: the tokenizer's
  bool no_eod = false;
  bool special_tokens = false;
};

struct TokenizerTrainArguments {
  std::vector<std::string> inputs;
  std::string output;
  std::string text_key = "text";
  std::string document_separator;  // as written; empty: none
  std::string on_bad_line = "refuse";
  std::int64_t vocab_size = 0;
  std::int64_t threads = 0;
};

struct TokenizerEncodeArguments {
  std::string tokenizer;
};

struct TokenizerDecodeArguments {
  std::string tokenizer;
};

struct GenerateArguments {
  std::string checkpoint;
  std::string prompt;
  std::string prompt_file;
  std::int64_t max_tokens = 128;
  double temperature = 1.0;
  std::int64_t top_k = 0;
  double top_p = 1.0;
  std::int64_t seed = 0;
  std::string device{};
  std::int64_t threads = 0;
};

struct EvalArguments {
  std::string checkpoint;
  std::string tasks = "all";
  std::string data;
  std::string output;
  std::string samples;
  std::vector<std::string> texts;
  std::string text_key = "text";
  std::string on_bad_line = "refuse";
  std::int64_t num_fewshot = 0;
  std::int64_t limit = 0;
  std::int64_t batch_tokens = 2048;
  bool cloze = false;
  bool bos = false;
  std::string device{};
  std::int64_t threads = 0;
};

struct EvalCompareArguments {
  std::string first, second;
};

struct CheckpointLsArguments {
  std::string path;
};

struct CheckpointVerifyArguments {
  std::string path;
};

using Invocation =
    std::variant<Exit, TrainArguments, PrepareArguments, TokenizerTrainArguments,
                 TokenizerEncodeArguments, TokenizerDecodeArguments, GenerateArguments,
                 CheckpointLsArguments, CheckpointVerifyArguments, VerifyParallelArguments,
                 VerifyResumeArguments, EvalArguments, EvalCompareArguments>;

Invocation parse_command_line(int argc, const char* const* argv);

// Each in the file of its name.
ExitCode run(const TrainArguments& a);
ExitCode run(const PrepareArguments& a);
ExitCode run(const TokenizerTrainArguments& a);
ExitCode run(const TokenizerEncodeArguments& a);
ExitCode run(const TokenizerDecodeArguments& a);
ExitCode run(const GenerateArguments& a);
ExitCode run(const EvalArguments& a);
ExitCode run(const EvalCompareArguments& a);
ExitCode run(const CheckpointLsArguments& a);
ExitCode run(const CheckpointVerifyArguments& a);
ExitCode run(const VerifyParallelArguments& a);
ExitCode run(const VerifyResumeArguments& a);
inline ExitCode run(const Exit& e) {
  return e.code;
}

}  // namespace grist::app
