// grist upcycle: experts cut from a dense checkpoint, streamed into a new one.
#include "grist/hub/upcycle.h"

#include <algorithm>
#include <cmath>
#include <list>
#include <map>
#include <optional>

#include "aside_folder.h"
#include "grist/config/load.h"
#include "grist/config/parameters.h"
#include "grist/core/file.h"
#include "grist/core/random.h"
#include "grist/hub/proof.h"
#include "start_state.h"
#include "step_source.h"

namespace grist::hub {

namespace fs = std::filesystem;

namespace {

// ---- configuration ---------------------------------------------------------------------------

LoadedConfig upcycled_config(const CheckpointReader& step, const UpcycleOptions& o) {
  std::vector<std::string> sets = {fmt::format("run.dir={}", o.output.string()),
                                   fmt::format("model.moe.granularity={}", o.granularity),
                                   fmt::format("model.moe.expansion_rate={}", o.expansion_rate),
                                   fmt::format("model.moe.flops_multiplier={}", o.flops_multiplier),
                                   "model.moe.num_experts=0",
                                   "model.moe.num_experts_per_tok=0",
                                   "model.moe.moe_intermediate_size=0"};
  sets.insert(sets.end(), o.sets.begin(), o.sets.end());
  return parse_config(step.text("config.yaml"), (step.path() / "config.yaml").string(), sets);
}

bool always_sums_to_the_same(const RouterConfig& r) {
  return r.norm_topk_prob || (r.score_function == ScoreFunction::softmax && !r.pre_softmax);
}

// With what the chosen weights of a shard's copies are multiplied together when all logits are the
// same; always, where they are divided by their sum.
double weight_of_a_shard(const ModelConfig& c, std::int64_t copies_chosen) {
  const RouterConfig& r = c.moe.router;
  const bool divided = always_sums_to_the_same(r);
  double one = 0.5;  // a sigmoid of 0
  if (divided) one = 1.0 / static_cast<double>(c.moe.num_experts_per_tok);
  if (!divided && r.score_function == ScoreFunction::softmax)
    one = 1.0 / static_cast<double>(c.moe.num_experts);
  return one * static_cast<double>(copies_chosen) * r.routed_scaling_factor;
}

void check_models(const ModelConfig& dense, const ModelConfig& model, const UpcycleOptions& o) {
  if (dense.num_moe_layers() > 0)
    fail(ExitCode::config, "model.moe.num_experts: {}: only a dense model can be upcycled",
         dense.moe.num_experts);
  if (model.moe.shared_expert_intermediate_size > 0)
    fail(ExitCode::config,
         "model.moe.shared_expert_intermediate_size: {}: the dense model has nothing for it",
         model.moe.shared_expert_intermediate_size);
  if (model.moe.capacity_factor)
    log::warn("model.moe.capacity_factor: training will drop tokens; the proof is dropless");
  if (o.flops_multiplier > o.expansion_rate)
    fail(ExitCode::usage, "--flops-multiplier {}: more than the {} copies of --expansion-rate",
         o.flops_multiplier, o.expansion_rate);
}

// ---- tensors ---------------------------------------------------------------------------------

struct Piece {
  std::string dense;        // the tensor it is cut from
  std::int64_t layer = -1;  // of a router
  std::int64_t shard = -1;  // of an FFN; -1: the whole tensor
  bool columns = false;     // down_proj is cut by columns
  double scale = 1;
};

class Source {
 public:
  Source(const CheckpointReader& step, const ModelConfig& dense, const ModelConfig& model,
         const UpcycleOptions& options, std::uint64_t seed)
      : step_(step), model_(model), options_(options), seed_(seed), routers_(model) {
    const double scale = 1.0 / weight_of_a_shard(model, options.flops_multiplier);
    // Half of it each, so that neither projection's gradients outgrow the other's.
    scale_ = std::sqrt(scale);
    for (const HubTensor& t : hub_tensors(family_of(dense), dense))
      for (const Part& p : t.parts) add_dense(p);
    for (std::int64_t i = model.first_moe_layer(); i < model.num_hidden_layers; ++i) add_experts(i);
    routers_.add(slices_, [](const std::string&) { return false; });
    std::uint64_t bytes = 0;
    for (const TensorSlice& s : slices_) bytes += static_cast<std::uint64_t>(s.part.size()) * 4;
    progress_.emplace("upcycle", bytes, "MB", 1e6);
  }

  const std::vector<TensorSlice>& slices() const { return slices_; }

  void give(const std::string& name,
            const std::function<void(std::span<const std::byte>)>& append) {
    stop_if_asked();
    const Piece& p = pieces_.at(name);
    const std::span<const float> values = p.layer >= 0 ? router(p.layer) : cut(p);
    append(std::as_bytes(values));
    done_ += values.size_bytes();
    progress_->update(done_);
  }
  void finish() { progress_->finish(done_); }

 private:
  void add(const std::string& name, const Shape& shape, Piece piece) {
    slices_.push_back(whole(name, {nullptr, DType::f32, shape}));
    pieces_.emplace(name, std::move(piece));
  }

  void add_dense(const Part& p) {
    shapes_.emplace(p.name, p.shape);
    for (std::int64_t i = model_.first_moe_layer(); i < model_.num_hidden_layers; ++i)
      if (p.name.starts_with(fmt::format("model.layers.{}.mlp.", i))) return;
    add(p.name, p.shape, {.dense = p.name});
  }

  void add_experts(std::int64_t layer) {
    const std::string at = fmt::format("model.layers.{}.mlp.", layer);
    const std::int64_t D = model_.hidden_size, F = model_.moe.moe_intermediate_size;
    add(at + "gate.weight", {model_.moe.num_experts, D}, {.dense = {}, .layer = layer});
    for (std::int64_t e = 0; e < model_.moe.num_experts; ++e) {
      const std::string here = fmt::format("{}experts.{}.", at, e);
      const std::int64_t shard = e / options_.expansion_rate;
      add(here + "gate_proj.weight", {F, D}, {.dense = at + "gate_proj.weight", .shard = shard});
      add(here + "up_proj.weight", {F, D},
          {.dense = at + "up_proj.weight", .shard = shard, .scale = scale_});
      add(here + "down_proj.weight", {D, F},
          {.dense = at + "down_proj.weight", .shard = shard, .columns = true, .scale = scale_});
    }
  }

  // Row e is copy e % expansion_rate's: the same for every shard.
  std::span<const float> router(std::int64_t layer) {
    const std::int64_t D = model_.hidden_size, E = model_.moe.num_experts;
    const Random random(seed_, fmt::format("upcycle model.layers.{}.mlp.gate.weight", layer));
    piece_.resize(static_cast<std::size_t>(E * D));
    for (std::int64_t e = 0; e < E; ++e)
      for (std::int64_t d = 0; d < D; ++d) {
        const std::int64_t index = e % options_.expansion_rate * D + d;
        piece_[static_cast<std::size_t>(e * D + d)] =
            random.normal(static_cast<std::uint64_t>(index)) *
            static_cast<float>(model_.initializer_range);
      }
    return piece_;
  }

  std::span<const float> cut(const Piece& p) {
    const std::vector<float>& all = dense(p.dense);
    if (p.shard < 0) return all;
    const std::int64_t F = model_.moe.moe_intermediate_size, D = model_.hidden_size;
    piece_.resize(static_cast<std::size_t>(F * D));
    const auto scale = static_cast<float>(p.scale);
    const std::int64_t rows = p.columns ? D : F, width = p.columns ? F : D;
    const std::int64_t stride = p.columns ? shapes_.at(p.dense)[1] : D;
    const std::int64_t first = p.columns ? p.shard * F : p.shard * F * D;
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t i = 0; i < width; ++i)
        piece_[static_cast<std::size_t>(r * width + i)] =
            all[static_cast<std::size_t>(first + r * stride + i)] * scale;
    return piece_;
  }

  // The last three are kept: those of the FFN that experts are cut from.
  const std::vector<float>& dense(const std::string& name) {
    for (const auto& [held, values] : held_)
      if (held == name) return values;
    if (held_.size() == 3) held_.pop_front();
    const Shape& shape = shapes_.at(name);
    std::vector<float>& values = held_.emplace_back(name, std::vector<float>()).second;
    values.resize(static_cast<std::size_t>(shape.numel()));
    const TensorDestination to = whole_destination(name, {values.data(), DType::f32, shape});
    step_.read(std::span(&to, 1), {.ignore_prefixes = {""}, .touched_blocks_only = true});
    return values;
  }

  const CheckpointReader& step_;
  const ModelConfig& model_;
  const UpcycleOptions& options_;
  std::uint64_t seed_;
  double scale_ = 1;
  std::map<std::string, Shape> shapes_;  // of the dense tensors
  std::map<std::string, Piece> pieces_;
  std::vector<TensorSlice> slices_;
  StartOfRouters routers_;
  std::list<std::pair<std::string, std::vector<float>>> held_;
  std::vector<float> piece_;
  std::optional<Progress> progress_;
  std::uint64_t done_ = 0;
};

// ---- proof -----------------------------------------------------------------------------------

double mean_loss(std::span<const float> logits, std::span<const std::int32_t> ids) {
  const std::size_t V = logits.size() / ids.size();
  double sum = 0;
  for (std::size_t t = 0; t + 1 < ids.size(); ++t) {
    const auto row = logits.subspan(t * V, V);
    const double top = *std::ranges::max_element(row);
    double mass = 0;
    for (const float x : row) mass += std::exp(x - top);
    sum += top + std::log(mass) - row[static_cast<std::size_t>(ids[t + 1])];
  }
  return sum / static_cast<double>(ids.size() - 1);
}

void compare(Upcycled& out, const fs::path& step, const fs::path& run, int threads) {
  const auto logits = [&](const fs::path& path, std::vector<std::int32_t>& ids) {
    const eval::TrainedModel trained =
        eval::load_trained_model(path, {.threads = threads, .device = WantedDevice::cpu});
    ids = fixed_tokens(trained.config.model, 0);
    return logits_of(trained, ids);
  };
  std::vector<std::int32_t> ids;
  const std::vector<float> dense = logits(step, ids), experts = logits(run, ids);
  out.proved = true;
  out.difference = largest_difference(dense, experts);
  out.largest_logit = largest_difference(dense, std::vector<float>(dense.size(), 0.0F));
  out.dense_loss = mean_loss(dense, ids);
  out.loss = mean_loss(experts, ids);
  const double allowed = 1e-4 * std::max(1.0, out.largest_logit);
  if (out.exact && !(out.difference <= allowed))
    fail(ExitCode::numeric,
         "{}: the experts compute other logits than the dense model: they differ by up to {:.3e}, "
         "{:.3e} is allowed; nothing was written (please report this)",
         step.string(), out.difference, allowed);
}

Upcycled upcycle_step(const CheckpointReader& step, const UpcycleOptions& options) {
  const Config dense =
      saved_config(step.text("config.yaml"), (step.path() / "config.yaml").string());
  const LoadedConfig loaded = upcycled_config(step, options);
  const ModelConfig& model = loaded.config.model;
  check_models(dense.model, model, options);
  const ParameterCount count = count_parameters(model);
  Upcycled out{.folder = {},
               .checkpoint = step.path(),
               .parameters = count.total,
               .active_parameters = count.active,
               .dense_parameters = count_parameters(dense.model).total,
               .exact = always_sums_to_the_same(model.moe.router)};
  AsideFolder folder(options.output);
  Source source(step, dense.model, model, options, static_cast<std::uint64_t>(loaded.config.seed));
  const Json* tokenizer = step.state().find("tokenizer");
  Json state = initial_state(tokenizer == nullptr ? "" : tokenizer->as_string());
  Json from = Json::object();
  from.set("path", fs::absolute(step.path()).lexically_normal().string());
  state.set("upcycled", std::move(from));
  const std::string yaml = to_yaml(loaded);
  std::vector<TextFile> texts = {{"config.yaml", yaml}};
  for (const char* name : {"tokenizer.json", "tokenizer_config.json"})
    if (step.has_text(name)) texts.push_back({name, step.text(name)});
  save_first_step(folder.path(), {.state = std::move(state),
                                  .slices = source.slices(),
                                  .texts = std::move(texts),
                                  .source = [&](const std::string& name, const auto& append) {
                                    source.give(name, append);
                                  }});
  source.finish();
  if (options.prove) compare(out, step.path(), folder.path(), options.threads);
  write_text_atomically(folder.path() / "config.yaml", yaml);
  out.folder = folder.commit();
  return out;
}

}  // namespace

Upcycled upcycle(const UpcycleOptions& options) {
  return with_newest_good(options.checkpoint, [&](const CheckpointReader& step) {
    return upcycle_step(step, options);
  });
}

}  // namespace grist::hub
