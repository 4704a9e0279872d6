#include "command_line.h"

#include <CLI/CLI.hpp>

#include "grist/config/config.h"
#include "grist/core/check.h"
#include "grist/core/path.h"

namespace grist::app {

namespace {

constexpr const char* kExitCodes =
    "Exit codes: 0 done; 64 bad command line; 65 corrupt input; 66 not found; 69 device "
    "unavailable; 70 internal; 71 out of memory;\n"
    "73 cannot create output; 74 I/O error; 75 stopped and saved, start again; 76 peer lost, start "
    "again; 78 bad configuration; 79 numeric failure";

// An option that takes one path or several: every path of the command line comes through here.
template <class Paths>
CLI::Option* add_path(CLI::App* c, const std::string& name, Paths& paths, const std::string& help) {
  return c->add_option(name, paths, help)->check([](const std::string& path) {
    return unexpanded(path);
  });
}

template <class Arguments> void add_config(CLI::App* c, Arguments& a) {
  add_path(c, "config", a.config, "Configuration (YAML; docs/configuration.md lists the keys)")
      ->required();
  c->add_option("--set", a.sets, "Override a value: optim.lr=2e-4 (repeatable)")
      ->take_all()
      ->allow_extra_args(false);
}

void add_train(CLI::App& app, Invocation& chosen, TrainArguments& a) {
  CLI::App* c = app.add_subcommand(
      "train", "Train a model; goes on from the newest good checkpoint of its run folder");
  add_config(c, a);
  c->add_flag(
      "--dry-run", a.dry_run,
      "Print the resolved configuration, sizes and memory, run one micro-batch, write nothing");
  c->callback([&] { chosen = a; });
}

template <class Arguments> void add_corpus_options(CLI::App* c, Arguments& a) {
  add_path(c, "--input", a.inputs,
           "Text: .txt (a document each) or .jsonl (a document a line), plain, .gz or .zst; "
           "patterns and pipes allowed")
      ->required();
  c->add_option("--text-key", a.text_key, "Key of the text in a JSON line")->capture_default_str();
  c->add_option("--document-separator", a.document_separator,
                "What stands between the documents of a .txt; '\\n': a line is a document");
  c->add_option("--on-bad-line", a.on_bad_line,
                "refuse: stop and name the bad lines; skip: count, name and pass over")
      ->capture_default_str();
  c->add_option("--threads", a.threads, "0: one per core")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
}

void add_prepare(CLI::App& app, Invocation& chosen, PrepareArguments& a) {
  CLI::App* c = app.add_subcommand("prepare", "Turn text into token files (Megatron .bin/.idx)");
  add_corpus_options(c, a);
  add_path(c, "--tokenizer", a.tokenizer, "tokenizer.json (Hugging Face, byte-level BPE)")
      ->required();
  add_path(c, "--output", a.output, "Prefix of the files to write")->required();
  c->add_flag("--overwrite", a.overwrite, "Replace files of that name");
  CLI::Option* bos = c->add_option("--bos", a.bos_token,
                                   "Put a token before each document: this one, or the tokenizer's "
                                   "bos_token when none is named")
                         ->expected(0, 1);
  c->add_flag("--no-eod", a.no_eod, "Do not put an end-of-document token behind each document");
  c->add_flag("--special-tokens", a.special_tokens,
              "Special tokens spelled out in a document are tokens, not text");
  c->callback([&, bos] {
    a.bos = bos->count() > 0;
    chosen = a;
  });
}

struct TokenizerCommands {
  TokenizerTrainArguments train;
  TokenizerEncodeArguments encode;
  TokenizerDecodeArguments decode;
};

void add_tokenizer(CLI::App& app, Invocation& chosen, TokenizerCommands& a) {
  CLI::App* group = app.add_subcommand("tokenizer", "Train or use a byte-level BPE tokenizer");
  group->require_subcommand(1);
  CLI::App* train = group->add_subcommand("train", "Learn a vocabulary from text");
  add_corpus_options(train, a.train);
  train
      ->add_option("--vocab-size", a.train.vocab_size,
                   "Tokens, special ones included (at least 257)")
      ->check(CLI::Range(257, 1 << 24))
      ->required();
  add_path(train, "--output", a.train.output, "Folder for tokenizer.json and tokenizer_config.json")
      ->required();
  train->callback([&] { chosen = a.train; });
  CLI::App* encode = group->add_subcommand("encode", "Standard input to token ids, one line");
  add_path(encode, "tokenizer", a.encode.tokenizer, "tokenizer.json")->required();
  encode->callback([&] { chosen = a.encode; });
  CLI::App* decode = group->add_subcommand("decode", "Token ids on standard input to text");
  add_path(decode, "tokenizer", a.decode.tokenizer, "tokenizer.json")->required();
  decode->callback([&] { chosen = a.decode; });
}

struct TokensCommands {
  TokensJoinArguments join;
  TokensSplitArguments split;
};

template <class Arguments> void add_token_output(CLI::App* c, Arguments& a) {
  add_path(c, "--output", a.output, "Prefix of the files to write")->required();
  c->add_option("--vocab-size", a.vocab_size,
                "Of files without a .json beside them, such as Megatron's own")
      ->check(CLI::Range(1, 1 << 30));
  c->add_flag("--overwrite", a.overwrite, "Replace files of that name");
}

void add_tokens(CLI::App& app, Invocation& chosen, TokensCommands& a) {
  CLI::App* group = app.add_subcommand("tokens", "Join or split token files, whole documents each");
  group->require_subcommand(1);
  CLI::App* join = group->add_subcommand("join", "The documents of several files in one");
  add_path(join, "inputs", a.join.inputs, "Prefixes of token files, in their order")->required();
  add_token_output(join, a.join);
  join->callback([&] { chosen = a.join; });
  CLI::App* split = group->add_subcommand(
      "split", "Parts of about as many tokens, or documents held out for validation");
  add_path(split, "input", a.split.input, "Prefix of a token file")->required();
  add_token_output(split, a.split);
  CLI::Option_group* how = split->add_option_group("how");
  how->add_option("--parts", a.split.parts, "Into OUTPUT-00000-of-0000N and so on")
      ->check(CLI::Range(1, 99999));
  how->add_option("--held-out", a.split.held_out,
                  "Each document with this probability into OUTPUT-validation, else OUTPUT-train")
      ->check(CLI::Range(1e-9, 1.0 - 1e-9));
  how->require_option(1);
  split->add_option("--seed", a.split.seed, "Of --held-out")->capture_default_str();
  split->callback([&] { chosen = a.split; });
}

template <class Arguments> void add_device(CLI::App* c, Arguments& a) {
  std::vector<std::string> devices;
  for (const WantedDevice d : all_words<WantedDevice>()) devices.emplace_back(word(d));
  c->add_option("--device", a.device,
                "Where to compute; by default what the run's configuration says")
      ->check(CLI::IsMember(devices));
  c->add_option("--threads", a.threads, "0: one per core")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
}

void add_generate(CLI::App& app, Invocation& chosen, GenerateArguments& a) {
  CLI::App* c = app.add_subcommand("generate", "Continue a prompt with a trained model");
  add_path(c, "checkpoint", a.checkpoint, "A step folder, or a run folder (its newest good step)")
      ->required();
  CLI::Option* prompt = c->add_option("--prompt", a.prompt, "Text to continue");
  add_path(c, "--prompt-file", a.prompt_file, "A file or a pipe with the text; /dev/stdin too")
      ->excludes(prompt);
  c->add_option("--max-tokens", a.max_tokens)->capture_default_str();
  c->add_option("--temperature", a.temperature, "0: always the most likely token")
      ->capture_default_str();
  c->add_option("--top-k", a.top_k, "Only the k most likely tokens; 0: all")->capture_default_str();
  c->add_option("--top-p", a.top_p, "Only the most likely tokens that together reach p")
      ->capture_default_str();
  c->add_option("--seed", a.seed)->capture_default_str();
  add_device(c, a);
  c->callback([&] { chosen = a; });
}

template <class Arguments> void add_proof_options(CLI::App* c, Arguments& a) {
  c->add_flag(
      "--no-proof", a.no_proof,
      "Do not compare logits with the files'; the comparison needs the memory of the model");
  c->add_option("--threads", a.threads, "Of the comparison; 0: one per core")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
}

void add_export(CLI::App& app, Invocation& chosen, ExportArguments& a) {
  CLI::App* c = app.add_subcommand(
      "export",
      "Write a trained model for other tools: hf is a folder that transformers loads, gguf a file "
      "that llama.cpp loads");
  add_path(c, "checkpoint", a.checkpoint, "A step folder, or a run folder (its newest good step)")
      ->required();
  c->add_option("--to", a.to, "The format")->check(CLI::IsMember({"hf", "gguf"}))->required();
  add_path(c, "--output", a.output, "The folder or file to write; it must not exist")->required();
  c->add_option("--dtype", a.dtype, "Of the matrices: fp32 or bf16, and f16 for gguf")
      ->check(CLI::IsMember({"fp32", "bf16", "f16"}))
      ->capture_default_str();
  c->add_option("--max-shard-size", a.max_shard_size, "Of one file: 5GB, 200MB, 1GiB")
      ->capture_default_str();
  add_proof_options(c, a);
  add_path(c, "--save-logits", a.save_logits,
           "Write the proof's tokens and the checkpoint's logits there (safetensors)")
      ->excludes("--no-proof");
  c->callback([&, c] {
    if (a.to == "gguf")
      for (const char* of_hf : {"--max-shard-size", "--no-proof", "--threads", "--save-logits"})
        if (c->count(of_hf) > 0) throw CLI::ValidationError(of_hf, "belongs to --to hf");
    chosen = a;
  });
}

void add_import(CLI::App& app, Invocation& chosen, ImportArguments& a) {
  CLI::App* c = app.add_subcommand(
      "import", "Make a run folder of a model as the Hugging Face hub has it, at step 0");
  add_path(c, "folder", a.input, "With config.json and safetensors files")->required();
  add_path(c, "--output", a.output, "The run folder to write; it must not exist")->required();
  add_proof_options(c, a);
  c->callback([&] { chosen = a; });
}

void add_upcycle(CLI::App& app, Invocation& chosen, UpcycleArguments& a) {
  CLI::App* c = app.add_subcommand(
      "upcycle", "Make a fine-grained Mixture-of-Experts of a dense model that computes the same");
  add_path(c, "checkpoint", a.checkpoint, "A step folder, or a run folder (its newest good step)")
      ->required();
  add_path(c, "--output", a.output, "The run folder to write; it must not exist")->required();
  c->add_option("--granularity", a.granularity, "Into how many experts each FFN is cut")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  c->add_option("--expansion-rate", a.expansion_rate, "Copies of each")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  c->add_option("--flops-multiplier", a.flops_multiplier, "Copies of each that a token goes to")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  c->add_option("--set", a.sets,
                "More of the new configuration: model.moe.router.pre_softmax=true (repeatable)")
      ->take_all()
      ->allow_extra_args(false);
  add_proof_options(c, a);
  c->callback([&] { chosen = a; });
}

struct EvalCommands {
  EvalArguments benchmarks;
  EvalCompareArguments compare;
};

void add_eval(CLI::App& app, Invocation& chosen, EvalCommands& commands) {
  CLI::App* c = app.add_subcommand(
      "eval", "Benchmarks of a trained model, as lm-evaluation-harness asks them");
  EvalArguments& a = commands.benchmarks;
  CLI::Option* checkpoint = add_path(c, "checkpoint", a.checkpoint,
                                     "A step folder, or a run folder (its newest good step)");
  c->add_option("--tasks", a.tasks, "all, or names with commas between: arc_easy,hellaswag")
      ->capture_default_str();
  CLI::Option* data =
      add_path(c, "--data", a.data, "Folder of the tasks' JSONL files (docs/evaluation.md)");
  CLI::Option* texts =
      add_path(c, "--text", a.texts,
               "Text to predict, as `prepare --input` takes it, each a source of its own: "
               "perplexity and bits per byte; without --data no benchmark is asked")
          ->take_all()
          ->allow_extra_args(false);
  c->add_option("--text-key", a.text_key, "Key of the text in a JSON line of --text")
      ->capture_default_str();
  c->add_option("--on-bad-line", a.on_bad_line,
                "Of --text. refuse: stop and name the bad lines; skip: count, name and pass over")
      ->capture_default_str();
  c->add_option("--num-fewshot", a.num_fewshot, "Answered examples in front of each question")
      ->check(CLI::Range(0, 1000))
      ->capture_default_str();
  c->add_option("--limit", a.limit, "Only the first questions of each task; 0: all")
      ->check(CLI::Range(std::int64_t{0}, std::int64_t{1} << 40))
      ->capture_default_str();
  c->add_flag("--cloze", a.cloze,
              "Score the answers' words also where the harness scores their letters");
  c->add_flag("--bos", a.bos, "Put the tokenizer's bos_token in front of every text");
  add_path(c, "--output", a.output, "Write the results there (JSON, the harness's layout)");
  add_path(c, "--samples", a.samples, "Write every question with its scores there (JSONL)");
  c->add_option("--batch-tokens", a.batch_tokens, "Tokens computed at a time")
      ->check(CLI::Range(1, 1 << 24))
      ->capture_default_str();
  add_device(c, a);
  CLI::App* compare = c->add_subcommand(
      "compare", "Two files of --samples: differences and their paired standard errors");
  add_path(compare, "A", commands.compare.first, "Samples of one model")->required();
  add_path(compare, "B", commands.compare.second, "Samples of another, same questions")->required();
  for (const char* of_benchmarks :
       {"--tasks", "--num-fewshot", "--limit", "--cloze", "--bos", "--samples"})
    c->get_option(of_benchmarks)->needs(data);
  for (const char* of_text : {"--text-key", "--on-bad-line"}) c->get_option(of_text)->needs(texts);
  c->callback([&, compare, checkpoint, data, texts] {
    if (compare->parsed()) {
      chosen = commands.compare;
      return;
    }
    if (checkpoint->count() == 0) throw CLI::RequiredError(checkpoint->get_name());
    if (data->count() + texts->count() == 0) throw CLI::RequiredError("--data or --text");
    chosen = commands.benchmarks;
  });
}

struct VerifyCommands {
  VerifyParallelArguments parallel;
  VerifyResumeArguments resume;
};

void add_verify(CLI::App& app, Invocation& chosen, VerifyCommands& a) {
  CLI::App* group = app.add_subcommand("verify", "Prove a configuration's numbers on this machine");
  group->require_subcommand(1);
  CLI::App* parallel = group->add_subcommand(
      "parallel",
      "A few steps on the ranks of this job and on one: losses and every gradient must agree (exit "
      "code 79 when not)");
  add_config(parallel, a.parallel);
  parallel->add_option("--steps", a.parallel.steps)
      ->check(CLI::Range(1, 1000000))
      ->capture_default_str();
  parallel
      ->add_option("--reference", a.parallel.reference,
                   "one-rank: rank 0 takes the whole batch alone; all-ranks: all ranks with "
                   "expert_model_parallel_size 1, for models that one rank cannot hold")
      ->check(CLI::IsMember({"one-rank", "all-ranks"}))
      ->capture_default_str();
  parallel->callback([&] { chosen = a.parallel; });
  CLI::App* resume = group->add_subcommand(
      "resume",
      "A straight run and one that ended without a save and went on: the same bits (exit code 79 "
      "when not). Works in <run.dir>.verify");
  add_config(resume, a.resume);
  resume->add_option("--steps", a.resume.steps)
      ->check(CLI::Range(4, 1000000))
      ->capture_default_str();
  resume->callback([&] { chosen = a.resume; });
}

struct CheckpointCommands {
  CheckpointLsArguments ls;
  CheckpointVerifyArguments verify;
};

void add_checkpoint(CLI::App& app, Invocation& chosen, CheckpointCommands& a) {
  CLI::App* group = app.add_subcommand("checkpoint", "Look at checkpoints");
  group->require_subcommand(1);
  CLI::App* ls = group->add_subcommand("ls", "List the steps of a run");
  add_path(ls, "path", a.ls.path, "Run folder, checkpoints folder or step folder")->required();
  ls->callback([&] { chosen = a.ls; });
  CLI::App* verify = group->add_subcommand(
      "verify", "Check every byte against the stored sums (exit code 65 when one is wrong)");
  add_path(verify, "path", a.verify.path, "Run folder, checkpoints folder or step folder")
      ->required();
  verify->callback([&] { chosen = a.verify; });
}

}  // namespace

Invocation parse_command_line(int argc, const char* const* argv) {
  Invocation chosen;
  TrainArguments train;
  PrepareArguments prepare;
  TokenizerCommands tokenizer;
  TokensCommands tokens;
  GenerateArguments generate;
  ExportArguments exported;
  ImportArguments imported;
  UpcycleArguments upcycled;
  EvalCommands eval;
  CheckpointCommands checkpoint;
  VerifyCommands verify;
  CLI::App app("grist pretrains fine-grained Mixture-of-Experts language models", "grist");
  app.set_version_flag("--version", "grist " GRIST_VERSION);
  app.footer(kExitCodes);
  app.require_subcommand(1);
  add_tokenizer(app, chosen, tokenizer);
  add_prepare(app, chosen, prepare);
  add_tokens(app, chosen, tokens);
  add_train(app, chosen, train);
  add_generate(app, chosen, generate);
  add_export(app, chosen, exported);
  add_import(app, chosen, imported);
  add_upcycle(app, chosen, upcycled);
  add_eval(app, chosen, eval);
  add_checkpoint(app, chosen, checkpoint);
  add_verify(app, chosen, verify);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) {
      app.exit(e);  // --help, --version
      return Exit{ExitCode::ok};
    }
    fail(ExitCode::usage, "{}; grist --help and grist SUBCOMMAND --help list what there is",
         e.what());
  }
  return chosen;
}

}  // namespace grist::app
