// grist export --to hf: a checkpoint, a tensor at a time, into a folder aside; proved; renamed.
#include "grist/hub/export.h"

#include <cmath>
#include <cstdlib>

#include "aside_folder.h"
#include "grist/config/load.h"
#include "grist/core/check.h"
#include "grist/core/file.h"
#include "grist/core/log.h"
#include "grist/core/progress.h"
#include "grist/core/stop.h"
#include "model_card.h"

namespace grist::hub {

namespace fs = std::filesystem;

std::uint64_t parse_size(const std::string& text) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  const std::string unit(end);
  double factor = 0;
  for (const auto& [name, bytes] : {std::pair{"", 1.0},
                                    {"KB", 1e3},
                                    {"MB", 1e6},
                                    {"GB", 1e9},
                                    {"KiB", 1024.0},
                                    {"MiB", 1048576.0},
                                    {"GiB", 1073741824.0}})
    if (unit == name) factor = bytes;
  const double bytes = value * factor;
  if (end == text.c_str() || factor == 0 || !(bytes >= 1) || bytes > 1e18)
    fail(ExitCode::usage, "size \"{}\": want a number and a unit, as 5GB, 200MB or 1GiB", text);
  return static_cast<std::uint64_t>(bytes);
}

namespace {

void stop_if_asked() {
  if (stop_signal() != 0)
    fail(ExitCode::preempted, "stopped by signal {}; nothing was written", stop_signal());
}

// The spelling of a token in tokenizer_config.json: a string, or an object with `content`.
std::optional<std::int64_t> token_of(const Json& config, const char* key,
                                     const Tokenizer& tokenizer) {
  const Json* token = config.find(key);
  if (token != nullptr && token->is_object()) token = token->find("content");
  if (token == nullptr || !token->is_string()) return std::nullopt;
  return tokenizer.token_id(token->as_string());
}

SpecialTokens special_tokens(const CheckpointReader& step) {
  SpecialTokens out;
  if (!step.has_text("tokenizer.json")) return out;
  const Tokenizer tokenizer = Tokenizer::load(step.path());
  out.bos = tokenizer.bos_id();
  out.eos = tokenizer.eos_id();
  if (step.has_text("tokenizer_config.json"))
    out.pad = token_of(Json::parse(step.text("tokenizer_config.json"), "tokenizer_config.json"),
                       "pad_token", tokenizer);
  return out;
}

// Reads parts of a step, verifying the blocks that hold them.
class StepParts {
 public:
  StepParts(const CheckpointReader& step, std::uint64_t bytes)
      : step_(step), progress_("export", bytes, "MB", 1e6) {}

  void read(std::span<const PartBuffer> wanted) {
    stop_if_asked();
    std::vector<TensorDestination> destinations;
    for (const PartBuffer& w : wanted) {
      destinations.push_back(
          whole_destination(w.part->name, TensorView{w.out.data(), DType::f32, w.part->shape}));
      done_ += w.out.size_bytes();
    }
    step_.read(destinations, {.ignore_prefixes = {""}, .touched_blocks_only = true});
    progress_.update(done_);
  }
  void finish() { progress_.finish(done_); }

 private:
  const CheckpointReader& step_;
  Progress progress_;
  std::uint64_t done_ = 0;
};

// A bias that the family has no place for must be zero: training has had them off all along.
void refuse_lost_biases(const CheckpointReader& step, Family family, const ModelConfig& c) {
  if (family == Family::glm4_moe) return;
  for (std::int64_t layer = c.first_moe_layer(); layer < c.num_hidden_layers; ++layer) {
    const std::string name = router_bias_name(layer);
    if (step.manifest().find_tensor(name) == nullptr) continue;
    std::vector<float> bias(static_cast<std::size_t>(c.moe.num_experts));
    const TensorDestination to =
        whole_destination(name, TensorView{bias.data(), DType::f32, {c.moe.num_experts}});
    step.read(std::span(&to, 1), {.ignore_prefixes = {""}, .touched_blocks_only = true});
    for (const float b : bias)
      if (b != 0)
        fail(ExitCode::config,
             "model.moe.expert_bias_update_rate: {} holds selection biases that are not zero; "
             "{} has none",
             step.path().string(), word(family));
  }
}

void write_texts(const fs::path& folder, const CheckpointReader& step, const Json& config,
                 const SpecialTokens& tokens) {
  write_text_atomically(folder / "config.json", config.dump(2) + "\n");
  write_text_atomically(folder / "generation_config.json",
                        generation_config_json(tokens).dump(2) + "\n");
  for (const char* name : {"tokenizer.json", "tokenizer_config.json"})
    if (step.has_text(name)) write_text_atomically(folder / name, step.text(name));
}

Proof proof_of(const fs::path& folder, const Json& config, std::span<const HubTensor> tensors,
               const ExportOptions& options, const fs::path& step) {
  eval::TrainedModel trained =
      eval::load_trained_model(step, {.threads = options.threads, .device = WantedDevice::cpu});
  const Proof proof = prove(HubFiles(folder), config, tensors, options.write.dtype, trained);
  if (!proof.holds())
    fail(ExitCode::numeric,
         "{}: the exported files compute other logits than the checkpoint: they differ by up to "
         "{:.3e}, {:.3e} is allowed; nothing was written (please report this)",
         step.string(), proof.difference, proof.bound());
  return proof;
}

// "input_ids" (T) i32 and "logits" (T, V) f32.
void save_logits(const Proof& p, const fs::path& path) {
  const auto T = static_cast<std::int64_t>(p.ids.size());
  const Shape shape = {T, static_cast<std::int64_t>(p.logits.size()) / T};
  write_safetensors(path,
                    std::vector<SafetensorsTensor>{
                        {.name = "input_ids", .view = {p.ids.data(), DType::i32, {T}}},
                        {.name = "logits", .view = {p.logits.data(), DType::f32, shape}}},
                    {{"format", "pt"}});
}

Exported export_step(const CheckpointReader& step, const ExportOptions& options) {
  const Config config =
      saved_config(step.text("config.yaml"), (step.path() / "config.yaml").string());
  Exported out{.folder = {},
               .checkpoint = step.path(),
               .family = family_of(config.model),
               .bytes = 0,
               .proof = {}};
  refuse_lost_biases(step, out.family, config.model);
  const SpecialTokens tokens = special_tokens(step);
  const std::vector<HubTensor> tensors = hub_tensors(out.family, config.model);
  const Json json = config_json(out.family, config.model, tokens, options.write.dtype);
  std::uint64_t bytes = 0;
  for (const HubTensor& t : tensors)
    for (const Part& p : t.parts)
      bytes += static_cast<std::uint64_t>(p.shape.numel()) * sizeof(float);
  AsideFolder folder(options.output);
  StepParts parts(step, bytes);
  out.bytes = write_hub_files(folder.path(), tensors, options.write,
                              [&](std::span<const PartBuffer> wanted) { parts.read(wanted); });
  parts.finish();
  write_texts(folder.path(), step, json, tokens);
  stop_if_asked();
  if (options.prove) out.proof = proof_of(folder.path(), json, tensors, options, step.path());
  write_text_atomically(folder.path() / "README.md",
                        model_card(step, config, out, options.write.dtype));
  if (out.proof && !options.save_logits.empty()) save_logits(*out.proof, options.save_logits);
  out.folder = folder.commit();
  return out;
}

}  // namespace

Exported export_model(const ExportOptions& options) {
  for (const StepInfo& s : resolve_steps(options.checkpoint)) {
    try {
      return export_step(CheckpointReader(s.folder), options);
    } catch (const DamagedStep& e) {
      log::warn("checkpoint {} is damaged: {}", s.folder.string(), e.damage().str());
    }
  }
  fail(ExitCode::bad_data, "{}: no usable checkpoint; `grist checkpoint verify` lists the damage",
       options.checkpoint.string());
}

}  // namespace grist::hub
