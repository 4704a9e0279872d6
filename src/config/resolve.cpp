#include "resolve.h"

#include <algorithm>

#include "grist/config/batch_ramp.h"
#include "grist/config/parameters.h"
#include "grist/config/zero_rate.h"

namespace grist::config {

bool Resolver::written(std::string_view key) const {
  return bound.written.find(key) != bound.written.end();
}

bool Resolver::usable(std::initializer_list<std::string_view> keys) const {
  return std::none_of(keys.begin(), keys.end(), [&](auto key) { return problems.is_bad(key); });
}

Where Resolver::where(std::string_view key) const {
  if (const auto found = bound.written.find(key); found != bound.written.end())
    return found->second.where;
  // The first written line of the block, so that a missing key points into its block.
  for (auto dot = key.rfind('.'); dot != std::string_view::npos && dot > 0;
       dot = key.rfind('.', dot - 1)) {
    const std::string block(key.substr(0, dot + 1));
    Where first;
    for (const auto& [name, w] : bound.written)
      if (name.starts_with(block) && w.where.source == 0 &&
          (first.line == 0 || w.where.line < first.line))
        first = w.where;
    if (first.line != 0) return first;
  }
  return {};
}

std::string Resolver::spelled(std::string_view key) const {
  const auto found = bound.written.find(key);
  const std::string path = found == bound.written.end() ? std::string(key) : found->second.spelled;
  return path.substr(path.rfind('.') + 1);
}

void Resolver::derive(std::string_view key, std::string from) {
  origins.insert_or_assign(std::string(key), "derived from " + std::move(from));
}

namespace {

void require(Resolver& r, std::string_view key, bool given, std::string_view what) {
  if (!given && r.usable({key})) r.problem(key, "missing; {}", what);
}

void derive_attention(Resolver& r) {
  ModelConfig& m = r.config().model;
  if (m.num_key_value_heads == 0) {
    m.num_key_value_heads = m.num_attention_heads;
    r.derive("model.num_key_value_heads", "num_attention_heads");
  }
  if (m.max_position_embeddings == 0) {
    m.max_position_embeddings = r.config().data.seq_length;
    r.derive("model.max_position_embeddings", "data.seq_length");
  }
  if (m.head_dim != 0 || m.num_attention_heads == 0) return;
  if (m.hidden_size % m.num_attention_heads != 0) {
    if (r.usable({"model.hidden_size", "model.num_attention_heads", "model.head_dim"}))
      r.problem("model.num_attention_heads",
                "hidden_size {} is not a multiple of num_attention_heads {}; write head_dim if "
                "that is meant",
                m.hidden_size, m.num_attention_heads);
    return;
  }
  m.head_dim = m.hidden_size / m.num_attention_heads;
  r.derive("model.head_dim", "hidden_size / num_attention_heads");
}

void check_batches(Resolver& r) {
  const TrainConfig& t = r.config().train;
  if (!r.usable({"train.micro_batch_size", "train.global_batch_size"})) return;
  if (t.global_batch_size % t.micro_batch_size != 0)
    r.problem("train.global_batch_size", "{} is not a multiple of micro_batch_size {}",
              t.global_batch_size, t.micro_batch_size);
  if (!r.usable({"train.rampup_batch_size"})) return;
  if (const std::string wrong = ramp_problem(t); !wrong.empty())
    r.problem("train.rampup_batch_size", "{}", wrong);
}

void derive_length(Resolver& r) {
  constexpr std::int64_t kMaxIters = 1'000'000'000;
  TrainConfig& t = r.config().train;
  const std::int64_t seq_length = r.config().data.seq_length;
  if (!r.usable({"train.train_iters", "train.train_tokens", "train.global_batch_size",
                 "train.micro_batch_size", "train.rampup_batch_size", "data.seq_length"}))
    return;
  if (t.train_tokens > 0) {
    const std::int64_t iters = iterations_for_tokens(t, seq_length);
    if (iters > kMaxIters) {
      r.problem("train.train_tokens", "{} take {} steps; want at most {}", t.train_tokens, iters,
                kMaxIters);
    } else if (t.train_iters == 0) {
      t.train_iters = iters;
      r.derive("train.train_iters", "train_tokens / (global_batch_size * data.seq_length)");
    } else if (t.train_iters != iters) {
      r.problem("train.train_iters",
                "{} does not agree with train_tokens {}, which take {} steps of {} * {} tokens",
                t.train_iters, t.train_tokens, iters, t.global_batch_size, seq_length);
    }
  }
  if (r.config().optim.lr_decay_iters == 0 && r.usable({"optim.lr_decay_iters"})) {
    r.config().optim.lr_decay_iters = t.train_iters;
    r.derive("optim.lr_decay_iters", "train.train_iters");
  }
}

void name_sources(Resolver& r, std::vector<DataSourceConfig>& sources, std::string_view list) {
  for (std::size_t i = 0; i < sources.size(); ++i) {
    DataSourceConfig& s = sources[i];
    if (!s.name.empty() || s.path.empty()) continue;
    const std::string path = s.path.substr(0, s.path.find_last_not_of('/') + 1);
    s.name = path.empty() ? s.path : path.substr(path.rfind('/') + 1);
    r.derive(fmt::format("{}.{}.name", list, i), "the last part of path");
  }
}

void require_all(Resolver& r) {
  const Config& c = r.config();
  require(r, "run.dir", !c.run.dir.empty(), "the folder that the run writes to");
  require(r, "model.num_hidden_layers", c.model.num_hidden_layers > 0, "the number of blocks");
  require(r, "model.hidden_size", c.model.hidden_size > 0, "the width of the residual stream");
  require(r, "model.num_attention_heads", c.model.num_attention_heads > 0,
          "the number of query heads");
  require(r, "model.intermediate_size", c.model.intermediate_size > 0,
          "d_ff, the width of the dense FFN that experts are cut from");
  require(r, "data.train", !c.data.train.empty(), "at least one source: [{path: ...}]");
  require(r, "data.seq_length", c.data.seq_length > 0, "tokens in one sequence");
  require(r, "train.micro_batch_size", c.train.micro_batch_size > 0,
          "sequences in one forward pass");
  require(r, "train.global_batch_size", c.train.global_batch_size > 0,
          "sequences in one optimizer step");
  if (r.usable({"train.train_tokens"}))
    require(r, "train.train_iters", c.train.train_iters > 0 || c.train.train_tokens > 0,
            "write train_iters (optimizer steps) or train_tokens");
  if (r.usable({"data.tokenizer"}))
    require(r, "model.vocab_size", c.model.vocab_size > 0 || !c.data.tokenizer.empty(),
            "write it, or data.tokenizer to take it from");
}

void check_lanes(Resolver& r) {
  const std::int64_t lanes = r.config().parallel.elastic_lanes;
  if (r.usable({"parallel.elastic_lanes"}) && (lanes & (lanes - 1)) != 0)
    r.problem("parallel.elastic_lanes", "{} is not a power of two", lanes);
}

void check_wsd(Resolver& r) {
  const OptimConfig& o = r.config().optim;
  if (!r.usable({"optim.lr_decay_style", "optim.lr_wsd_decay_iters", "optim.lr_warmup_iters",
                 "optim.lr_decay_iters"}))
    return;
  if (o.lr_decay_style != LrDecayStyle::wsd) {
    if (o.lr_wsd_decay_iters != 0)
      r.problem("optim.lr_wsd_decay_iters", "{} has no effect with lr_decay_style {}",
                o.lr_wsd_decay_iters, word(o.lr_decay_style));
  } else if (o.lr_wsd_decay_iters == 0) {
    r.problem("optim.lr_wsd_decay_iters",
              "missing; lr_decay_style wsd needs the steps of the final decay");
  } else if (o.lr_warmup_iters + o.lr_wsd_decay_iters > o.lr_decay_iters) {
    r.problem("optim.lr_wsd_decay_iters",
              "lr_warmup_iters {} and lr_wsd_decay_iters {} do not fit into lr_decay_iters {}",
              o.lr_warmup_iters, o.lr_wsd_decay_iters, o.lr_decay_iters);
  }
}

void check_schedule(Resolver& r) {
  const OptimConfig& o = r.config().optim;
  if (r.usable({"optim.lr", "optim.min_lr"}) && o.min_lr > o.lr)
    r.problem("optim.min_lr", "{} is more than lr {}", o.min_lr, o.lr);
  if (r.usable({"optim.min_lr", "optim.lr_decay_style"}) &&
      o.lr_decay_style == LrDecayStyle::constant && o.min_lr > 0)
    r.problem("optim.min_lr", "{} has no effect with lr_decay_style constant", o.min_lr);
  if (r.usable({"optim.lr_warmup_iters", "optim.lr_decay_iters", "train.train_iters"}) &&
      o.lr_decay_iters > 0 && o.lr_warmup_iters > o.lr_decay_iters)
    r.problem("optim.lr_warmup_iters", "{} is more than lr_decay_iters {}", o.lr_warmup_iters,
              o.lr_decay_iters);
  if (r.usable({"optim.lr_decay_iters", "optim.min_lr", "optim.lr_decay_style"}) &&
      r.usable({"train.train_iters", "train.train_tokens"}))
    if (const std::string wrong = zero_rate_problem(o, 0, r.config().train.train_iters);
        !wrong.empty())
      r.problem("optim.lr_decay_iters", "{}", wrong);
  check_lanes(r);
  check_wsd(r);
}

// Settings of experts that nothing would read.
void check_experts_are_used(Resolver& r) {
  const Config& c = r.config();
  if (r.usable({"model.moe.token_drop_policy", "model.moe.capacity_factor"}) &&
      c.model.moe.token_drop_policy != TokenDropPolicy::probs && !c.model.moe.capacity_factor)
    r.problem("model.moe.token_drop_policy", "{} has no effect without capacity_factor",
              word(c.model.moe.token_drop_policy));
  if (!r.usable({"model.moe.num_experts"}) || c.model.moe.num_experts != 0) return;
  for (const auto& [key, factor] : {std::pair{"optim.router_lr_factor", c.optim.router_lr_factor},
                                    std::pair{"optim.expert_lr_factor", c.optim.expert_lr_factor}})
    if (r.usable({key}) && factor != 1.0)
      r.problem(key, "{} has no effect: the model has no experts", factor);
}

// Rows are counted in 32 bits.
void check_rows(Resolver& r) {
  const Config& c = r.config();
  if (!r.usable({"train.micro_batch_size", "data.seq_length", "model.moe.num_experts_per_tok"}))
    return;
  const std::int64_t per_token = std::max<std::int64_t>(1, c.model.moe.num_experts_per_tok);
  const double rows = static_cast<double>(c.train.micro_batch_size) *
                      static_cast<double>(c.data.seq_length) * static_cast<double>(per_token);
  if (rows > 2147483647.0)
    r.problem("train.micro_batch_size",
              "{} sequences of {} tokens with {} experts each are more than 2^31 rows; lower it",
              c.train.micro_batch_size, c.data.seq_length, per_token);
}

void check_validation(Resolver& r) {
  const Config& c = r.config();
  if (c.data.validation.empty() && c.train.eval_interval > 0 &&
      r.usable({"data.validation", "train.eval_interval"}))
    r.problem("train.eval_interval", "{} has no effect: data.validation is empty",
              c.train.eval_interval);
  for (std::size_t i = 0; i < c.data.validation.size(); ++i)
    if (const std::string key = fmt::format("data.validation.{}.weight", i);
        r.usable({key}) && c.data.validation[i].weight != 1.0)
      r.problem(key, "{} has no effect: a validation source is read whole",
                c.data.validation[i].weight);
  for (std::size_t i = 0; i < c.data.validation.size(); ++i)
    for (std::size_t j = 0; j < i; ++j)
      if (!c.data.validation[i].name.empty() &&
          c.data.validation[i].name == c.data.validation[j].name)
        r.problem(fmt::format("data.validation.{}.name", i),
                  "{} is also the name of source {}; metrics need different names",
                  c.data.validation[i].name, j);
}

void check_parallel(Resolver& r) {
  const Config& c = r.config();
  const std::int64_t ep = c.parallel.expert_model_parallel_size;
  if (!r.usable({"parallel.expert_model_parallel_size", "model.moe.num_experts",
                 "model.moe.expansion_rate", "model.moe.granularity"}) ||
      ep == 1)
    return;
  if (c.model.moe.num_experts % ep != 0)
    r.problem("parallel.expert_model_parallel_size", "num_experts {} is not a multiple of {}",
              c.model.moe.num_experts, ep);
  else if (c.model.moe.num_experts == 0)
    r.problem("parallel.expert_model_parallel_size", "{}, but the model has no experts", ep);
}

}  // namespace

void derive_rest(Resolver& r) {
  require_all(r);
  derive_attention(r);
  check_batches(r);
  derive_length(r);
  name_sources(r, r.config().data.train, "data.train");
  name_sources(r, r.config().data.validation, "data.validation");
}

void check_model(Resolver& r) {
  const ModelConfig& m = r.config().model;
  if (r.usable({"model.num_attention_heads", "model.num_key_value_heads"}) &&
      m.num_attention_heads % m.num_key_value_heads != 0)
    r.problem("model.num_key_value_heads",
              "num_attention_heads {} is not a multiple of num_key_value_heads {}",
              m.num_attention_heads, m.num_key_value_heads);
  if (r.usable({"model.head_dim", "model.hidden_size", "model.num_attention_heads"}) &&
      m.head_dim % 2 != 0)
    r.problem("model.head_dim", "{} is odd; RoPE turns pairs", m.head_dim);
  if (r.usable({"data.seq_length", "model.max_position_embeddings"}) &&
      r.config().data.seq_length > m.max_position_embeddings)
    r.problem("data.seq_length", "{} is more than model.max_position_embeddings {}",
              r.config().data.seq_length, m.max_position_embeddings);
  if (r.usable({"model.num_hidden_layers", "model.moe.first_k_dense_replace"}) &&
      m.moe.first_k_dense_replace > m.num_hidden_layers)
    r.problem("model.moe.first_k_dense_replace", "{} is more than num_hidden_layers {}",
              m.moe.first_k_dense_replace, m.num_hidden_layers);
  constexpr double kCountable = 4e18;
  if (r.problems.empty() && estimate_parameters(m) > kCountable)
    r.problem("model.hidden_size",
              "the model would have {:.1e} parameters; more than can be "
              "counted",
              estimate_parameters(m));
}

void check_training(Resolver& r) {
  check_schedule(r);
  check_validation(r);
  check_experts_are_used(r);
  check_rows(r);
  check_parallel(r);
  const CheckpointConfig& checkpoint = r.config().checkpoint;
  if (checkpoint.resume == ResumeMode::never && checkpoint.resume_step > 0 &&
      r.usable({"checkpoint.resume", "checkpoint.resume_step"}))
    r.problem("checkpoint.resume_step", "{} has no effect with resume never",
              checkpoint.resume_step);
  const InitConfig& init = r.config().init;
  if (init.from.empty() && init.optimizer != InitOptimizer::keep &&
      r.usable({"init.optimizer", "init.from"}))
    r.problem("init.optimizer", "{} has no effect without init.from", word(init.optimizer));
}

}  // namespace grist::config
