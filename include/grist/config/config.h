#pragma once
// The configuration of a run, as plain structs. Defaults live here and nowhere else. Each struct
// has one `fields` list that serves loading, --set, printing and comparing, and says beside each
// field what its value may be. Words: architecture as Hugging Face's config.json, training as
// Megatron's, granularity as in arXiv 2402.07871 and 2506.02890. The meaning of every key, with its
// unit: docs/configuration.md.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "grist/config/words.h"

namespace grist {

// Upper ends are far beyond use; they stop products from overflowing.
inline constexpr double kBillion = 1e9;
inline constexpr double kMany = 9e15;  // exact in a double

GRIST_WORDS(ScoreFunction, softmax, sigmoid);
GRIST_WORDS(RouterDtype, fp32);

struct RouterConfig {
  ScoreFunction score_function = ScoreFunction::softmax;
  bool pre_softmax =
      false;  // softmax over all experts before the choice, instead of over the chosen k after it
  bool norm_topk_prob = false;  // divide the chosen weights by their sum
  double routed_scaling_factor = 1.0;
  RouterDtype dtype = RouterDtype::fp32;
  template <class V> void fields(V& v) {
    v("score_function", score_function);
    v("pre_softmax", pre_softmax);
    v("norm_topk_prob", norm_topk_prob);
    v("routed_scaling_factor", routed_scaling_factor, Range{0, 1e6, true});
    v("dtype", dtype);
  }
};

GRIST_WORDS(AuxLossScope, sequence, micro_batch, global_batch);
GRIST_WORDS(TokenDropPolicy, probs, position);

// granularity, expansion_rate and flops_multiplier on one side, num_experts, num_experts_per_tok
// and moe_intermediate_size on the other say the same thing; after loading all six are set and
// agree. num_experts == 0: a dense model.
struct MoeConfig {
  double expansion_rate = 0;  // expert parameters / parameters of one dense FFN; need not be whole
  std::int64_t granularity = 0;            // G = intermediate_size / expert width
  double flops_multiplier = 0;             // active expert parameters / parameters of one dense FFN
  std::int64_t num_experts = 0;            // = granularity * expansion_rate
  std::int64_t num_experts_per_tok = 0;    // = granularity * flops_multiplier
  std::int64_t moe_intermediate_size = 0;  // = intermediate_size / granularity
  std::int64_t first_k_dense_replace = 0;
  std::int64_t shared_expert_intermediate_size =
      0;  // 0: no shared expert; ungated, added to the routed sum
  RouterConfig router;
  double aux_loss_coeff = 0.01;
  AuxLossScope aux_loss_scope = AuxLossScope::micro_batch;
  double z_loss_coeff = 0.001;
  double expert_bias_update_rate = 0;     // > 0: balancing by selection bias
  std::optional<double> capacity_factor;  // null: dropless
  TokenDropPolicy token_drop_policy = TokenDropPolicy::probs;
  template <class V> void fields(V& v) {
    v("expansion_rate", expansion_rate, Range{0, 1 << 16});
    v("granularity", granularity, Range{0, 1 << 16});
    v("flops_multiplier", flops_multiplier, Range{0, 1 << 16});
    v("num_experts", num_experts, Range{0, 4096});
    v("num_experts_per_tok", num_experts_per_tok, Range{0, 4096});
    v("moe_intermediate_size", moe_intermediate_size, Range{0, 1 << 22});
    v("first_k_dense_replace", first_k_dense_replace, Range{0, 1000});
    v("shared_expert_intermediate_size", shared_expert_intermediate_size, Range{0, 1 << 22});
    v("router", router);
    v("aux_loss_coeff", aux_loss_coeff, Range{0, 1e6});
    v("aux_loss_scope", aux_loss_scope);
    v("z_loss_coeff", z_loss_coeff, Range{0, 1e6});
    v("expert_bias_update_rate", expert_bias_update_rate, Range{0, 1e3});
    v("capacity_factor", capacity_factor, Range{0, 1e6, true});
    v("token_drop_policy", token_drop_policy);
  }
};

struct ModelConfig {
  std::int64_t num_hidden_layers = 0;
  std::int64_t hidden_size = 0;
  std::int64_t num_attention_heads = 0;
  std::int64_t num_key_value_heads = 0;  // default num_attention_heads
  std::int64_t head_dim = 0;             // default hidden_size / num_attention_heads
  std::int64_t intermediate_size = 0;    // d_ff of the dense FFN that the experts are cut from
  std::int64_t vocab_size = 0;  // default: the tokenizer's, rounded up to a multiple of 128
  std::int64_t max_position_embeddings = 0;  // default data.seq_length
  double rope_theta = 10000.0;
  double rms_norm_eps = 1e-5;
  bool qk_norm = false;
  bool tie_word_embeddings = false;
  double initializer_range =
      0.02;  // std of every matrix; o_proj and down_proj divided by sqrt(2 * num_hidden_layers)
  double lm_head_z_loss_coeff = 0;  // times the mean squared logsumexp of the output logits
  MoeConfig moe;

  // Dense layers come first; a model without experts is dense all through.
  std::int64_t num_moe_layers() const { return num_hidden_layers - first_moe_layer(); }
  std::int64_t first_moe_layer() const {
    const bool dense = moe.num_experts == 0 || moe.first_k_dense_replace > num_hidden_layers;
    return dense ? num_hidden_layers : moe.first_k_dense_replace;
  }
  bool is_moe_layer(std::int64_t layer) const { return layer >= first_moe_layer(); }

  template <class V> void fields(V& v) {
    v("num_hidden_layers", num_hidden_layers, Range{1, 1000});
    v("hidden_size", hidden_size, Range{1, 1 << 20});
    v("num_attention_heads", num_attention_heads, Range{1, 1 << 16});
    v("num_key_value_heads", num_key_value_heads, Range{0, 1 << 16});
    v("head_dim", head_dim, Range{0, 1 << 14});
    v("intermediate_size", intermediate_size, Range{1, 1 << 22});
    v("vocab_size", vocab_size, Range{0, 1 << 24});
    v("max_position_embeddings", max_position_embeddings, Range{0, 1 << 24});
    v("rope_theta", rope_theta, Range{1, 1e12});
    v("rms_norm_eps", rms_norm_eps, Range{0, 0.1, true});
    v("qk_norm", qk_norm);
    v("tie_word_embeddings", tie_word_embeddings);
    v("initializer_range", initializer_range, Range{0, 10, true});
    v("lm_head_z_loss_coeff", lm_head_z_loss_coeff, Range{0, 1e6});
    v("moe", moe);
  }
};

struct DataSourceConfig {
  std::string path;     // without .bin/.idx
  double weight = 1.0;  // share of samples, relative to the other sources
  std::string name;     // for validation metrics; default: the last part of path
  template <class V> void fields(V& v) {
    v("path", path, Text::needed_path);
    v("weight", weight, Range{0, kMany, true});
    v("name", name, Text::any);
  }
};

struct DataConfig {
  std::string tokenizer;  // tokenizer.json; optional; checked against the data's and needed for
                          // vocab_size's default
  std::vector<DataSourceConfig> train;
  std::vector<DataSourceConfig> validation;
  std::int64_t seq_length = 0;
  bool mask_documents = true;  // attention and positions do not cross document boundaries
  template <class V> void fields(V& v) {
    v("tokenizer", tokenizer, Text::path);
    v("train", train);
    v("validation", validation);
    v("seq_length", seq_length, Range{1, 1 << 24});
    v("mask_documents", mask_documents);
  }
};

GRIST_WORDS(Recompute, none, selective, full);
GRIST_WORDS(CudaGraphs, auto_, none);
GRIST_WORDS(DenseProducts, auto_, own, cublas);

struct TrainConfig {
  std::int64_t micro_batch_size =
      0;  // sequences; the unit of capacity, drops and micro-batch aux loss
  std::int64_t global_batch_size = 0;  // sequences; a multiple of micro_batch_size
  std::int64_t train_iters = 0;        // optimizer steps; or give train_tokens
  std::int64_t train_tokens = 0;       // token budget; train_iters is derived
  std::vector<std::int64_t>
      rampup_batch_size;  // [start, increment, samples]: Megatron's batch-size ramp; empty: none
  Recompute recompute = Recompute::none;
  CudaGraphs cuda_graphs = CudaGraphs::auto_;
  DenseProducts dense_matmul = DenseProducts::auto_;  // whose bf16 products dense layers take
  std::int64_t eval_interval = 0;                     // steps; 0: only at the end
  std::int64_t eval_iters = 0;           // validation micro-batches; 0: the whole set once
  std::int64_t max_nonfinite_steps = 5;  // consecutive skipped updates before exit code 79
  double max_hours = 0;                  // wall-clock limit: save and exit 75; 0: none
  template <class V> void fields(V& v) {
    v("micro_batch_size", micro_batch_size, Range{1, 1 << 20});
    v("global_batch_size", global_batch_size, Range{1, 1 << 26});
    v("train_iters", train_iters, Range{0, kBillion});
    v("train_tokens", train_tokens, Range{0, kMany});
    v("rampup_batch_size", rampup_batch_size, Range{0, kMany});
    v("recompute", recompute);
    v("cuda_graphs", cuda_graphs);
    v("dense_matmul", dense_matmul);
    v("eval_interval", eval_interval, Range{0, kBillion});
    v("eval_iters", eval_iters, Range{0, kBillion});
    v("max_nonfinite_steps", max_nonfinite_steps, Range{1, kBillion});
    v("max_hours", max_hours, Range{0, 1e6});
  }
};

GRIST_WORDS(OptimizerName, adamw);
GRIST_WORDS(LrDecayStyle, cosine, wsd, linear, constant);

struct OptimConfig {
  OptimizerName name = OptimizerName::adamw;
  double lr = 3e-4;
  double min_lr = 0;
  LrDecayStyle lr_decay_style = LrDecayStyle::cosine;
  std::int64_t lr_warmup_iters = 0;
  std::int64_t lr_decay_iters = 0;      // default train_iters
  std::int64_t lr_wsd_decay_iters = 0;  // length of WSD's final decay (linear)
  double weight_decay = 0.1;
  double adam_beta1 = 0.9;
  double adam_beta2 = 0.95;
  double adam_eps = 1e-8;
  double clip_grad = 1.0;  // 0: no clipping
  double router_lr_factor = 1.0;
  double expert_lr_factor = 1.0;
  template <class V> void fields(V& v) {
    v("name", name);
    v("lr", lr, Range{0, 1e3, true});
    v("min_lr", min_lr, Range{0, 1e3});
    v("lr_decay_style", lr_decay_style);
    v("lr_warmup_iters", lr_warmup_iters, Range{0, kBillion});
    v("lr_decay_iters", lr_decay_iters, Range{0, kBillion});
    v("lr_wsd_decay_iters", lr_wsd_decay_iters, Range{0, kBillion});
    v("weight_decay", weight_decay, Range{0, 1e3});
    v("adam_beta1", adam_beta1, Range{0, 1, false, true});
    v("adam_beta2", adam_beta2, Range{0, 1, false, true});
    v("adam_eps", adam_eps, Range{0, 1, true});
    v("clip_grad", clip_grad, Range{0, kMany});
    v("router_lr_factor", router_lr_factor, Range{0, 1e6});
    v("expert_lr_factor", expert_lr_factor, Range{0, 1e6});
  }
};

GRIST_WORDS(Deterministic, layout, elastic);
GRIST_WORDS(WantedTransport, auto_, nccl, staged);

// What of this changes bits: nothing with deterministic: elastic; otherwise the number of ranks and
// expert_model_parallel_size change the order of gradient sums.
struct ParallelConfig {
  std::int64_t expert_model_parallel_size = 1;
  std::int64_t zero_stage = 1;                          // 0 | 1
  Deterministic deterministic = Deterministic::layout;  // same bits for one layout, or for all
  std::int64_t elastic_lanes = 8;   // runs of micro-batches that elastic sums by a fixed tree
  bool overlap_grad_reduce = true;  // reduce gradients while the backward pass goes on
  std::int64_t ddp_bucket_size = 4194304;  // elements that are reduced at once, at least
  bool overlap_expert_exchange = true;     // compute on experts while others' rows are on their way
  double expert_receive_factor = 2.0;  // rows that an expert-parallel rank has room for / balanced
  double watchdog_seconds = 30;        // without a sign of life; 0: off
  WantedTransport transport = WantedTransport::auto_;  // of tensors between GPUs
  template <class V> void fields(V& v) {
    v("expert_model_parallel_size", expert_model_parallel_size, Range{1, 1 << 16});
    v("zero_stage", zero_stage, Range{0, 1});
    v("deterministic", deterministic);
    v("elastic_lanes", elastic_lanes, Range{1, 1 << 16});
    v("overlap_grad_reduce", overlap_grad_reduce);
    v("ddp_bucket_size", ddp_bucket_size, Range{1, kMany});
    v("overlap_expert_exchange", overlap_expert_exchange);
    v("expert_receive_factor", expert_receive_factor, Range{1, 1e6});
    v("watchdog_seconds", watchdog_seconds, Range{0, 1e6});
    v("transport", transport);
  }
};

GRIST_WORDS(ResumeMode, auto_, required, never);
GRIST_WORDS(OnSaveError, continue_, stop);

struct CheckpointConfig {
  std::int64_t save_interval = 0;  // steps; 0: only at the end
  std::int64_t keep = 3;           // newest committed steps kept; 0: all
  ResumeMode resume = ResumeMode::auto_;
  std::int64_t resume_step = 0;  // go on from this step; 0: from the newest good one
  bool async_save = true;        // write while training goes on
  OnSaveError on_error = OnSaveError::continue_;  // after a save that failed
  template <class V> void fields(V& v) {
    v("save_interval", save_interval, Range{0, kBillion});
    v("keep", keep, Range{0, kBillion});
    v("resume", resume);
    v("resume_step", resume_step, Range{0, kBillion});
    v("async_save", async_save);
    v("on_error", on_error);
  }
};

GRIST_WORDS(InitOptimizer, keep, fresh);

// Continued pretraining: start from another run's checkpoint with this run's data and schedule.
struct InitConfig {
  std::string from;  // a checkpoint step folder, or a run folder (its newest verified step)
  InitOptimizer optimizer = InitOptimizer::keep;  // its state
  template <class V> void fields(V& v) {
    v("from", from, Text::path);
    v("optimizer", optimizer);
  }
};

struct LogConfig {
  std::int64_t interval = 10;  // steps
  bool tensorboard = false;    // also write event files
  template <class V> void fields(V& v) {
    v("interval", interval, Range{1, kBillion});
    v("tensorboard", tensorboard);
  }
};

struct RunConfig {
  std::string dir;  // the run folder
  template <class V> void fields(V& v) { v("dir", dir, Text::path); }
};

GRIST_WORDS(WantedDevice, auto_, cpu, cuda);
GRIST_WORDS(Precision, auto_, fp32, bf16);

struct Config {
  std::int64_t seed = 1234;
  WantedDevice device = WantedDevice::auto_;
  Precision precision = Precision::auto_;  // auto: fp32 on cpu, bf16 on cuda
  std::int64_t threads = 0;                // CPU threads of this process; 0: one per available core
  RunConfig run;
  ModelConfig model;
  DataConfig data;
  TrainConfig train;
  OptimConfig optim;
  ParallelConfig parallel;
  CheckpointConfig checkpoint;
  InitConfig init;
  LogConfig log;
  template <class V> void fields(V& v) {
    v("seed", seed, Range{0, kMany});
    v("device", device);
    v("precision", precision);
    v("threads", threads, Range{0, 4096});
    v("run", run);
    v("model", model);
    v("data", data);
    v("train", train);
    v("optim", optim);
    v("parallel", parallel);
    v("checkpoint", checkpoint);
    v("init", init);
    v("log", log);
  }
};

}  // namespace grist
