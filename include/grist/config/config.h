#pragma once
// The configuration of a run, as plain structs. Defaults live here and nowhere else. Each struct
// has one `fields` list that serves loading, --set, printing and comparing. Words: architecture as
// Hugging Face's config.json, training as Megatron's, granularity as in arXiv 2402.07871 and
// 2506.02890. The meaning of every key, with its unit: docs/configuration.md.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace grist {

struct RouterConfig {
  std::string score_function = "softmax";  // softmax | sigmoid
  bool pre_softmax =
      false;  // softmax over all experts before the choice, instead of over the chosen k after it
  bool norm_topk_prob = false;  // divide the chosen weights by their sum
  double routed_scaling_factor = 1.0;
  std::string dtype = "fp32";  // fp32 only
  template <class V> void fields(V& v) {
    v("score_function", score_function);
    v("pre_softmax", pre_softmax);
    v("norm_topk_prob", norm_topk_prob);
    v("routed_scaling_factor", routed_scaling_factor);
    v("dtype", dtype);
  }
};

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
  std::string aux_loss_scope = "micro_batch";  // sequence | micro_batch | global_batch
  double z_loss_coeff = 0.001;
  double expert_bias_update_rate = 0;       // > 0: balancing by selection bias
  std::optional<double> capacity_factor;    // null: dropless
  std::string token_drop_policy = "probs";  // probs | position
  template <class V> void fields(V& v) {
    v("expansion_rate", expansion_rate);
    v("granularity", granularity);
    v("flops_multiplier", flops_multiplier);
    v("num_experts", num_experts);
    v("num_experts_per_tok", num_experts_per_tok);
    v("moe_intermediate_size", moe_intermediate_size);
    v("first_k_dense_replace", first_k_dense_replace);
    v("shared_expert_intermediate_size", shared_expert_intermediate_size);
    v("router", router);
    v("aux_loss_coeff", aux_loss_coeff);
    v("aux_loss_scope", aux_loss_scope);
    v("z_loss_coeff", z_loss_coeff);
    v("expert_bias_update_rate", expert_bias_update_rate);
    v("capacity_factor", capacity_factor);
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
  template <class V> void fields(V& v) {
    v("num_hidden_layers", num_hidden_layers);
    v("hidden_size", hidden_size);
    v("num_attention_heads", num_attention_heads);
    v("num_key_value_heads", num_key_value_heads);
    v("head_dim", head_dim);
    v("intermediate_size", intermediate_size);
    v("vocab_size", vocab_size);
    v("max_position_embeddings", max_position_embeddings);
    v("rope_theta", rope_theta);
    v("rms_norm_eps", rms_norm_eps);
    v("qk_norm", qk_norm);
    v("tie_word_embeddings", tie_word_embeddings);
    v("initializer_range", initializer_range);
    v("lm_head_z_loss_coeff", lm_head_z_loss_coeff);
    v("moe", moe);
  }
};

struct DataSourceConfig {
  std::string path;     // without .bin/.idx
  double weight = 1.0;  // share of samples, relative to the other sources
  std::string name;     // for validation metrics; default: the last part of path
  template <class V> void fields(V& v) {
    v("path", path);
    v("weight", weight);
    v("name", name);
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
    v("tokenizer", tokenizer);
    v("train", train);
    v("validation", validation);
    v("seq_length", seq_length);
    v("mask_documents", mask_documents);
  }
};

struct TrainConfig {
  std::int64_t micro_batch_size =
      0;  // sequences; the unit of capacity, drops and micro-batch aux loss
  std::int64_t global_batch_size = 0;  // sequences; a multiple of micro_batch_size
  std::int64_t train_iters = 0;        // optimizer steps; or give train_tokens
  std::int64_t train_tokens = 0;       // token budget; train_iters is derived
  std::vector<std::int64_t>
      rampup_batch_size;  // [start, increment, samples]: Megatron's batch-size ramp; empty: none
  std::string recompute = "none";        // none | selective | full
  std::string cuda_graphs = "auto";      // auto | none
  std::int64_t eval_interval = 0;        // steps; 0: only at the end
  std::int64_t eval_iters = 0;           // validation micro-batches; 0: the whole set once
  std::int64_t max_nonfinite_steps = 5;  // consecutive skipped updates before exit code 79
  double max_hours = 0;                  // wall-clock limit: save and exit 75; 0: none
  template <class V> void fields(V& v) {
    v("micro_batch_size", micro_batch_size);
    v("global_batch_size", global_batch_size);
    v("train_iters", train_iters);
    v("train_tokens", train_tokens);
    v("rampup_batch_size", rampup_batch_size);
    v("recompute", recompute);
    v("cuda_graphs", cuda_graphs);
    v("eval_interval", eval_interval);
    v("eval_iters", eval_iters);
    v("max_nonfinite_steps", max_nonfinite_steps);
    v("max_hours", max_hours);
  }
};

struct OptimConfig {
  std::string name = "adamw";
  double lr = 3e-4;
  double min_lr = 0;
  std::string lr_decay_style = "cosine";  // cosine | wsd | linear | constant
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
    v("lr", lr);
    v("min_lr", min_lr);
    v("lr_decay_style", lr_decay_style);
    v("lr_warmup_iters", lr_warmup_iters);
    v("lr_decay_iters", lr_decay_iters);
    v("lr_wsd_decay_iters", lr_wsd_decay_iters);
    v("weight_decay", weight_decay);
    v("adam_beta1", adam_beta1);
    v("adam_beta2", adam_beta2);
    v("adam_eps", adam_eps);
    v("clip_grad", clip_grad);
    v("router_lr_factor", router_lr_factor);
    v("expert_lr_factor", expert_lr_factor);
  }
};

// What of this changes bits: nothing with deterministic: elastic; otherwise the number of ranks and
// expert_model_parallel_size change the order of gradient sums.
struct ParallelConfig {
  std::int64_t expert_model_parallel_size = 1;
  std::int64_t zero_stage = 1;           // 0 | 1
  std::string deterministic = "layout";  // layout | elastic: same bits for one layout, or for all
  std::int64_t elastic_lanes = 8;        // runs of micro-batches that elastic sums by a fixed tree
  bool overlap_grad_reduce = true;       // reduce gradients while the backward pass goes on
  std::int64_t ddp_bucket_size = 4194304;  // elements that are reduced at once, at least
  bool overlap_expert_exchange = true;     // compute on experts while others' rows are on their way
  double expert_receive_factor = 2.0;  // rows that an expert-parallel rank has room for / balanced
  double watchdog_seconds = 30;        // without a sign of life; 0: off
  std::string transport = "auto";      // of tensors between GPUs: auto | nccl | staged
  template <class V> void fields(V& v) {
    v("expert_model_parallel_size", expert_model_parallel_size);
    v("zero_stage", zero_stage);
    v("deterministic", deterministic);
    v("elastic_lanes", elastic_lanes);
    v("overlap_grad_reduce", overlap_grad_reduce);
    v("ddp_bucket_size", ddp_bucket_size);
    v("overlap_expert_exchange", overlap_expert_exchange);
    v("expert_receive_factor", expert_receive_factor);
    v("watchdog_seconds", watchdog_seconds);
    v("transport", transport);
  }
};

struct CheckpointConfig {
  std::int64_t save_interval = 0;     // steps; 0: only at the end
  std::int64_t keep = 3;              // newest committed steps kept; 0: all
  std::string resume = "auto";        // auto | required | never
  bool async_save = true;             // write while training goes on
  std::string on_error = "continue";  // continue | stop: after a save that failed
  template <class V> void fields(V& v) {
    v("save_interval", save_interval);
    v("keep", keep);
    v("resume", resume);
    v("async_save", async_save);
    v("on_error", on_error);
  }
};

// Continued pretraining: start from another run's checkpoint with this run's data and schedule.
struct InitConfig {
  std::string from;  // a checkpoint step folder, or a run folder (its newest verified step)
  std::string optimizer = "keep";  // keep | fresh: the moments
  template <class V> void fields(V& v) {
    v("from", from);
    v("optimizer", optimizer);
  }
};

struct LogConfig {
  std::int64_t interval = 10;  // steps
  bool tensorboard = false;    // also write event files
  template <class V> void fields(V& v) {
    v("interval", interval);
    v("tensorboard", tensorboard);
  }
};

struct RunConfig {
  std::string dir;  // the run folder
  template <class V> void fields(V& v) { v("dir", dir); }
};

struct Config {
  std::int64_t seed = 1234;
  std::string device = "auto";     // auto | cpu | cuda
  std::string precision = "auto";  // auto (cpu: fp32, cuda: bf16) | fp32 | bf16
  std::int64_t threads = 0;        // CPU threads of this process; 0: one per available core
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
    v("seed", seed);
    v("device", device);
    v("precision", precision);
    v("threads", threads);
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
