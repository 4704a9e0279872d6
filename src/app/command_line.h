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

struct TokensJoinArguments {
  std::vector<std::string> inputs;
  std::string output;
  std::int64_t vocab_size = 0;
  bool overwrite = false;
};

struct TokensSplitArguments {
  std::string input;
  std::string output;
  std::int64_t parts = 0;  // 0: held_out
  double held_out = 0;
  std::int64_t seed = 1234;
  std::int64_t vocab_size = 0;
  bool overwrite = false;
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

struct ExportArguments {
  std::string checkpoint;
  std::string to;
  std::string output;
  std::string dtype = "fp32";
  std::string max_shard_size = "5GB";
  std::string save_logits;
  std::int64_t threads = 0;
  bool no_proof = false;
};

struct ImportArguments {
  std::string input;
  std::string output;
  std::int64_t threads = 0;
  bool no_proof = false;
};

struct UpcycleArguments {
  std::string checkpoint;
  std::string output;
  std::int64_t granularity = 8;
  std::int64_t expansion_rate = 8;
  std::int64_t flops_multiplier = 1;
  std::vector<std::string> sets;
  std::int64_t threads = 0;
  bool no_proof = false;
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
                 TokenizerEncodeArguments, TokenizerDecodeArguments, TokensJoinArguments,
                 TokensSplitArguments, GenerateArguments, ExportArguments, ImportArguments,
                 UpcycleArguments, EvalArguments, EvalCompareArguments, CheckpointLsArguments,
                 CheckpointVerifyArguments, VerifyParallelArguments, VerifyResumeArguments>;

Invocation parse_command_line(int argc, const char* const* argv);

// Each in the file of its name.
ExitCode run(const TrainArguments& a);
ExitCode run(const PrepareArguments& a);
ExitCode run(const TokenizerTrainArguments& a);
ExitCode run(const TokenizerEncodeArguments& a);
ExitCode run(const TokenizerDecodeArguments& a);
ExitCode run(const TokensJoinArguments& a);
ExitCode run(const TokensSplitArguments& a);
ExitCode run(const GenerateArguments& a);
ExitCode run(const ExportArguments& a);
ExitCode run(const ImportArguments& a);
ExitCode run(const UpcycleArguments& a);
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
