// grist export --to hf: a checkpoint, a tensor at a time, into a folder aside; proved; renamed.
#include "grist/hub/export.h"

#include <cmath>
#include <cstdlib>

#include "aside_folder.h"
#include "grist/config/load.h"
#include "grist/core/check.h"
#include "grist/core/file.h"
#include "grist/core/log.h"
#include "model_card.h"
#include "step_source.h"

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
  return with_newest_good(options.checkpoint,
                          [&](const CheckpointReader& step) { return export_step(step, options); });
}

}  // namespace grist::hub
