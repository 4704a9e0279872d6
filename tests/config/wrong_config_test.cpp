// Every kind of wrong configuration: where the message points and what it says.
#include <gtest/gtest.h>

#include <algorithm>

#include "grist/core/check.h"
#include "wrong.h"

namespace grist {
namespace {

using test::expect_refused;
using test::kSmall;
using test::message_of;
using test::name_of;
using test::replaced;
using test::small;
using test::Wrong;

std::string without(std::string_view line) {
  return replaced(kSmall, line, "");
}
class WrongConfig : public ::testing::TestWithParam<Wrong> {};

TEST_P(WrongConfig, IsRefusedWithPlaceAndReason) {
  expect_refused(GetParam());
}

std::string bomb() {
  std::string text = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n";
  for (char c = 'b'; c < 'k'; ++c) {
    const std::string p = std::string("*") + static_cast<char>(c - 1);
    text += fmt::format("{}: &{} [{}, {}, {}, {}, {}, {}, {}, {}, {}, {}]\n", c, c, p, p, p, p, p,
                        p, p, p, p, p);
  }
  return text;
}

const Wrong kText[] = {
    {"EmptyFile", "", {"f.yaml: ", "empty"}},
    {"OnlyComments", "# nothing\n\n", {"empty"}},
    {"AWord", "hello\n", {"f.yaml:1: hello; want a block of keys"}},
    {"AList", "- 1\n- 2\n", {"f.yaml:1: a list; want a block of keys"}},
    {"BrokenYaml", "model:\n  moe: [1, 2\n", {"f.yaml:", "not YAML"}},
    {"TabIndent", "model:\n\thidden_size: 3\n", {"f.yaml:2: not YAML"}},
    {"Binary", std::string("model: a\n\0\1\2", 12), {"f.yaml:2: not a text file"}},
    {"Latin1", "run: {dir: caf\xe9}\n", {"f.yaml:1: not UTF-8"}},
    {"TwoDocuments", std::string(kSmall) + "---\na: 1\n", {"f.yaml:22: a second document"}},
    {"Tag", small("seq_length: 32", "seq_length: !!int 32"), {"f.yaml:15: tag"}},
    {"AliasBomb", bomb(), {"more than 20000 values"}},
    {"DeepNesting", std::string(5000, '['), {"nested deeper than 32"}},
    {"AliasOfItself", "a: &a [*a]\n", {"f.yaml:1: an alias of something that contains it"}},
    {"KeyIsAList", "? [a]\n: 1\n", {"a key that is a list"}},
};

const Wrong kKeys[] = {
    {"Misspelt",
     small("num_hidden_layers", "num_hiden_layers"),
     {"f.yaml:3: model.num_hiden_layers: unknown key; did you mean num_hidden_layers?",
      "model.num_hidden_layers: missing"},
     2},
    {"MisspeltBlock",
     small("optim:", "optimm:"),
     {"f.yaml:20: optimm: unknown key; did you mean optim?"}},
    {"OtherBlock",
     small("  lr: 1.0e-3", "  lr: 1.0e-3\n  granularity: 3"),
     {"f.yaml:22: optim.granularity: unknown key here; it belongs to model.moe: write "
      "model.moe.granularity"}},
    {"OtherBlockTop",
     std::string(kSmall) + "lr: 3\n",
     {"f.yaml:22: lr: unknown key here; it belongs to optim: write optim.lr"}},
    {"Nonsense",
     std::string(kSmall) + "qwertyuiop: 3\n",
     {"f.yaml:22: qwertyuiop: unknown key; docs/configuration.md"}},
    {"UnknownInSource",
     small("{path: data/a}", "{path: data/a, wieght: 2}"),
     {"f.yaml:14: data.train.0.wieght: unknown key; did you mean weight?"}},
    {"Duplicate",
     small("  hidden_size: 64\n", "  hidden_size: 64\n  hidden_size: 128\n"),
     {"f.yaml:5: model.hidden_size: duplicate key; the first is at f.yaml:4"}},
    {"DuplicateBlock",
     std::string(kSmall) + "optim: {lr: 2}\n",
     {"f.yaml:22: optim: duplicate key; the first is at f.yaml:20"}},
    {"DuplicateInSource",
     small("{path: data/a}", "{path: data/a, path: data/b}"),
     {"f.yaml:14: data.train.0.path: duplicate key"}},
    {"DerivedIsNoBlock",
     std::string(kSmall) + "derived: 3\n",
     {"f.yaml:22: derived: 3; want a block"}},
    {"DerivedOfNoKey",
     std::string(kSmall) + "derived: {optim.lrr: 3}\n",
     {"f.yaml:22: derived.optim.lrr: unknown key; did you mean lr?"}},
    {"MergeKey",
     small("  lr: 1.0e-3", "  <<: {lr: 1.0e-3}"),
     {"f.yaml:21: optim.<<: merge keys are not supported"}},
    {"GroupLimited",
     small("router: {pre_softmax: false}", "n_group: 4"),
     {"f.yaml:12: model.moe.n_group: 4; only 1 or null: group-limited routing is not "
      "supported for now"}},
    {"GroupLimitedFlat",
     small("  hidden_size: 64\n", "  hidden_size: 64\n  topk_group: 4\n"),
     {"f.yaml:5: model.topk_group: 4; only 1 or null: group-limited routing"}},
    {"SharedExpertsByCount",
     small("router: {pre_softmax: false}", "n_shared_experts: 1"),
     {"shared_expert_intermediate_size = n_shared_experts * moe_intermediate_size"}},
    {"GatedSharedExpert",
     small("  hidden_size: 64\n", "  hidden_size: 64\n  shared_expert_intermediate_size: 4\n"),
     {"f.yaml:5: model.shared_expert_intermediate_size", "gated by a sigmoid"}},
    {"OtherActivation",
     small("  hidden_size: 64\n", "  hidden_size: 64\n  hidden_act: gelu\n"),
     {"f.yaml:5: model.hidden_act: gelu; only silu: the FFN is SwiGLU"}},
};

const Wrong kTypes[] = {
    {"TextForInt",
     small("hidden_size: 64", "hidden_size: abc"),
     {"f.yaml:4: model.hidden_size: abc; want a whole number"}},
    {"FloatForInt",
     small("hidden_size: 64", "hidden_size: 64.5"),
     {"f.yaml:4: model.hidden_size: 64.5; want a whole number"}},
    {"ExponentForInt",
     small("train_iters: 10", "train_iters: 1e3"),
     {"f.yaml:19: train.train_iters: 1e3; want a whole number (write 1000)"}},
    {"LeadingZero",
     small("hidden_size: 64", "hidden_size: 0100"),
     {"model.hidden_size: 0100; want a whole number"}},
    {"QuotedInt",
     small("hidden_size: 64", "hidden_size: \"64\""),
     {"model.hidden_size: \"64\"; want a whole number"}},
    {"Overflow",
     small("hidden_size: 64", "hidden_size: 99999999999999999999"),
     {"model.hidden_size: 99999999999999999999; does not fit into 64 bits"}},
    {"DoubleOverflow",
     small("lr: 1.0e-3", "lr: 1e999"),
     {"f.yaml:21: optim.lr: 1e999; does not fit into a double"}},
    {"NotANumber", small("lr: 1.0e-3", "lr: .nan"), {"optim.lr: .nan; want a finite number"}},
    {"Infinity", small("lr: 1.0e-3", "lr: inf"), {"optim.lr: inf; want a finite number"}},
    {"YesForBool",
     small("pre_softmax: false", "pre_softmax: no"),
     {"model.moe.router.pre_softmax: no; want true or false"}},
    {"NullForInt",
     small("hidden_size: 64", "hidden_size: null"),
     {"f.yaml:4: model.hidden_size: null; want a whole number"}},
    {"NullForText", small("{dir: runs/small}", "{dir: }"), {"f.yaml:1: run.dir: null; want text"}},
    {"NullForBlock",
     small("optim:\n  lr: 1.0e-3\n", "optim:\n"),
     {"f.yaml:20: optim: null; want a block of keys"}},
    {"ValueForBlock",
     small("optim:\n  lr: 1.0e-3\n", "optim: adamw\n"),
     {"f.yaml:20: optim: adamw; want a block of keys"}},
    {"BlockForValue",
     small("lr: 1.0e-3", "lr: {peak: 1}"),
     {"f.yaml:21: optim.lr: a block of keys; want a number"}},
    {"ListForValue", small("lr: 1.0e-3", "lr: [1]"), {"optim.lr: a list; want a number"}},
    {"TextForList",
     small("train: [{path: data/a}]", "train: data/a"),
     {"f.yaml:14: data.train: data/a; want a list"}},
    {"TextForSource",
     small("{path: data/a}", "data/a"),
     {"f.yaml:14: data.train.0: data/a; want a block with path, weight, name"}},
    {"SourceWithoutPath",
     small("{path: data/a}", "{weight: 2}"),
     {"f.yaml:14: data.train.0.path: missing"}},
    {"TextInRamp",
     small("train_iters: 10", "train_iters: 10\n  rampup_batch_size: [2, x, 3]"),
     {"f.yaml:20: train.rampup_batch_size: item 1: x; want a whole number"}},
    {"TextForCapacity",
     small("granularity: 4", "granularity: 4\n    capacity_factor: none"),
     {"f.yaml:11: model.moe.capacity_factor: none; want a finite number or null"}},
};

const Wrong kRanges[] = {
    {"ZeroWidth",
     small("hidden_size: 64", "hidden_size: 0"),
     {"f.yaml:4: model.hidden_size: 0 is out of range; want at least 1"}},
    {"NegativeLr",
     small("lr: 1.0e-3", "lr: -1"),
     {"optim.lr: -1 is out of range; want more than 0"}},
    {"BetaOne",
     small("lr: 1.0e-3", "adam_beta2: 1.0"),
     {"optim.adam_beta2: 1 is out of range; want at least 0 and less than 1"}},
    {"ZeroCapacity",
     small("granularity: 4", "granularity: 4\n    capacity_factor: 0"),
     {"model.moe.capacity_factor: 0 is out of range; want more than 0"}},
    {"ZeroWeight",
     small("{path: data/a}", "{path: data/a, weight: 0}"),
     {"f.yaml:14: data.train.0.weight: 0 is out of range; want more than 0"}},
    {"ZeroStageTwo",
     std::string(kSmall) + "parallel: {zero_stage: 2}\n",
     {"f.yaml:22: parallel.zero_stage: 2 is out of range; want at least 0 and at most 1"}},
    {"NegativeKeep",
     std::string(kSmall) + "checkpoint: {keep: -1}\n",
     {"checkpoint.keep: -1 is out of range"}},
    {"Words",
     std::string(kSmall) + "checkpoint: {resume: maybe}\n",
     {"f.yaml:22: checkpoint.resume: maybe; want one of auto, required, never"}},
    {"Device", std::string(kSmall) + "device: gpu\n", {"device: gpu; want one of auto, cpu, cuda"}},
    {"Precision",
     std::string(kSmall) + "precision: fp16\n",
     {"precision: fp16; want one of auto, fp32, bf16"}},
    {"RouterDtype",
     small("{pre_softmax: false}", "{dtype: bf16}"),
     {"model.moe.router.dtype: bf16; want fp32"}},
    {"SqrtSoftplus",
     small("{pre_softmax: false}", "{score_function: sqrt_softplus}"),
     {"sqrt_softplus; want one of softmax, sigmoid"}},
    {"EmptyPath", small("{path: data/a}", "{path: \"\"}"), {"data.train.0.path: empty"}},
    {"TooManyParameters",
     replaced(replaced(replaced(small("hidden_size: 64", "hidden_size: 1000000"),
                                "expansion_rate: 8", "expansion_rate: 8192"),
                       "intermediate_size: 256", "intermediate_size: 4000000"),
              "num_hidden_layers: 2", "num_hidden_layers: 1000"),
     {"f.yaml:4: model.hidden_size: the model would have", "more than can be counted"}},
    {"TooManyExperts",
     small("expansion_rate: 8", "expansion_rate: 65536"),
     {"f.yaml:9:", "granularity 4 * expansion_rate 65536 = 262144; want at most 65536"}},
};

const Wrong kTogether[] = {
    {"MissingKeys",
     "run: {dir: x}\n",
     {"model.num_hidden_layers: missing", "model.hidden_size: missing",
      "model.num_attention_heads: missing", "model.intermediate_size: missing",
      "model.vocab_size: missing", "data.train: missing", "data.seq_length: missing",
      "train.micro_batch_size: missing", "train.global_batch_size: missing",
      "train.train_iters: missing"},
     10},
    {"NoRunDir", without("run: {dir: runs/small}\n"), {"run.dir: missing"}},
    {"NoVocabulary",
     without("  vocab_size: 512\n"),
     {"f.yaml:3: model.vocab_size: missing; write it, or data.tokenizer"}},
    {"HeadsDoNotDivide",
     small("num_attention_heads: 4", "num_attention_heads: 5"),
     {"f.yaml:5:", "hidden_size 64 is not a multiple of num_attention_heads 5"}},
    {"GroupsDoNotDivide",
     small("num_attention_heads: 4", "num_attention_heads: 4\n  num_key_value_heads: 3"),
     {"f.yaml:6:", "num_attention_heads 4 is not a multiple of num_key_value_heads 3"}},
    {"OddHead",
     small("num_attention_heads: 4", "num_attention_heads: 4\n  head_dim: 15"),
     {"f.yaml:6: model.head_dim: 15 is odd"}},
    {"BatchDoesNotDivide",
     small("global_batch_size: 4", "global_batch_size: 5"),
     {"f.yaml:18: train.global_batch_size: 5 is not a multiple of micro_batch_size 2"}},
    {"LongSequence",
     small("vocab_size: 512", "vocab_size: 512\n  max_position_embeddings: 16"),
     {"f.yaml:16: data.seq_length: 32 is more than model.max_position_embeddings 16"}},
    {"DenseLayers",
     small("granularity: 4", "granularity: 4\n    first_k_dense_replace: 3"),
     {"f.yaml:11:", "3 is more than num_hidden_layers 2"}},
    {"WarmupTooLong",
     small("lr: 1.0e-3", "lr_warmup_iters: 11"),
     {"f.yaml:21: optim.lr_warmup_iters: 11 is more than lr_decay_iters 10"}},
    {"MinLr",
     small("lr: 1.0e-3", "lr: 1.0e-3\n  min_lr: 0.01"),
     {"f.yaml:22: optim.min_lr: 0.01 is more than lr 0.001"}},
    {"WsdWithoutDecay",
     small("lr: 1.0e-3", "lr_decay_style: wsd"),
     {"optim.lr_wsd_decay_iters: missing; lr_decay_style wsd needs"}},
    {"WsdTooLong",
     small("lr: 1.0e-3", "{lr_decay_style: wsd, lr_wsd_decay_iters: 8, lr_warmup_iters: 3}"),
     {"lr_warmup_iters 3 and lr_wsd_decay_iters 8 do not fit into lr_decay_iters 10"}},
    {"DecayWithoutWsd",
     small("lr: 1.0e-3", "lr_wsd_decay_iters: 8"),
     {"optim.lr_wsd_decay_iters: 8 has no effect with lr_decay_style cosine"}},
    {"TokensAndIters",
     small("train_iters: 10", "train_iters: 10\n  train_tokens: 1000"),
     {"f.yaml:19: train.train_iters: 10 does not agree with train_tokens 1000, which take 8"}},
    {"RampShape",
     small("train_iters: 10", "train_iters: 10\n  rampup_batch_size: [2, 2]"),
     {"f.yaml:20: train.rampup_batch_size: 2 numbers; want [start, increment, samples]"}},
    {"RampSteps",
     small("train_iters: 10", "train_iters: 10\n  rampup_batch_size: [2, 4, 8]"),
     {"global_batch_size 4 - start 2 is not a multiple of the increment 4"}},
    {"RampMicroBatch",
     small("train_iters: 10", "train_iters: 10\n  rampup_batch_size: [1, 1, 8]"),
     {"start 1 and increment 1 must be multiples of micro_batch_size 2"}},
    {"EvalOfNothing",
     small("train_iters: 10", "train_iters: 10\n  eval_interval: 5"),
     {"f.yaml:20: train.eval_interval: 5 has no effect: data.validation is empty"}},
    {"SameNames",
     small("train: [{path: data/a}]",
           "train: [{path: data/a}]\n  validation: [{path: b/c}, {path: d/c}]"),
     {"data.validation.1.name: c is also the name of source 0"}},
    {"ValidationWeight",
     small("train: [{path: data/a}]",
           "train: [{path: data/a}]\n  validation: [{path: b, weight: 2}]"),
     {"data.validation.0.weight: 2 has no effect: a validation source is read whole"}},
    {"FreshWithoutFrom",
     std::string(kSmall) + "init: {optimizer: fresh}\n",
     {"f.yaml:22: init.optimizer: fresh has no effect without init.from"}},
    {"ExpertParallelDivides",
     std::string(kSmall) + "parallel: {expert_model_parallel_size: 3}\n",
     {"f.yaml:22:", "num_experts 32 is not a multiple of 3"}},
};

INSTANTIATE_TEST_SUITE_P(Text, WrongConfig, ::testing::ValuesIn(kText), name_of);
INSTANTIATE_TEST_SUITE_P(Keys, WrongConfig, ::testing::ValuesIn(kKeys), name_of);
INSTANTIATE_TEST_SUITE_P(Types, WrongConfig, ::testing::ValuesIn(kTypes), name_of);
INSTANTIATE_TEST_SUITE_P(Ranges, WrongConfig, ::testing::ValuesIn(kRanges), name_of);
INSTANTIATE_TEST_SUITE_P(Together, WrongConfig, ::testing::ValuesIn(kTogether), name_of);

TEST(ManyProblems, AreAllReportedInTheOrderOfTheLines) {
  std::string text = small("hidden_size: 64", "hiden_size: 64");
  text = replaced(text, "seq_length: 32", "seq_length: long");
  text = replaced(text, "lr: 1.0e-3", "lr: -1\n  lr: 2");

  const std::string message = message_of(text, {"train.train_iters=x", "modell.a=1"});

  const char* want[] = {"f.yaml:3: model.hidden_size: missing",
                        "f.yaml:4: model.hiden_size: unknown key",
                        "f.yaml:15: data.seq_length: long; want",
                        "f.yaml:21: optim.lr: -1 is out of range",
                        "f.yaml:22: optim.lr: duplicate key",
                        "--set train.train_iters=x: train.train_iters: x; want",
                        "--set modell.a=1: modell"};
  std::size_t at = 0;
  for (const char* line : want) {
    const std::size_t found = message.find(line, at);
    ASSERT_NE(found, std::string::npos) << line << "\n" << message;
    at = found;
  }
  EXPECT_EQ(std::count(message.begin(), message.end(), '\n'), 6) << message;
}

TEST(ManyProblems, AreCutOffAtAHundred) {
  std::string text(kSmall);
  for (int i = 0; i < 500; ++i) text += fmt::format("key{}: 1\n", i);

  const std::string message = message_of(text);

  EXPECT_NE(message.find("and 400 more problems"), std::string::npos) << message;
}

}  // namespace
}  // namespace grist
