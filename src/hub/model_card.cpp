// The model card: what the model is, what proves the files, what it was trained on, how it fared.
#include "model_card.h"

#include <algorithm>
#include <set>

#include "grist/config/parameters.h"
#include "grist/core/check.h"
#include "grist/core/log.h"
#include "grist/record/metrics.h"

namespace grist::hub {

namespace {

std::string millions(std::int64_t n) {
  return fmt::format("{:.2f}M", static_cast<double>(n) / 1e6);
}

std::string shape_rows(const ModelConfig& c) {
  const ParameterCount count = count_parameters(c);
  std::string out = fmt::format(
      "| parameters | {}, {} active per token |\n| layers x width | {} x {} |\n"
      "| heads (query / key-value) x width | {} / {} x {} |\n| vocabulary | {} |\n"
      "| positions | {} |\n| RoPE base | {} |\n",
      millions(count.total), millions(count.active), c.num_hidden_layers, c.hidden_size,
      c.num_attention_heads, c.num_key_value_heads, c.head_dim, c.vocab_size,
      c.max_position_embeddings, c.rope_theta);
  if (c.num_moe_layers() == 0)
    return out + fmt::format("| FFN | dense, {} wide |\n", c.intermediate_size);
  const MoeConfig& e = c.moe;
  out += fmt::format("| experts | {} of width {}, {} a token (granularity {}) |\n", e.num_experts,
                     e.moe_intermediate_size, e.num_experts_per_tok, e.granularity);
  if (e.shared_expert_intermediate_size > 0)
    out += fmt::format("| shared expert | {} wide, ungated |\n", e.shared_expert_intermediate_size);
  if (c.first_moe_layer() > 0)
    out += fmt::format("| dense layers | the first {}, {} wide |\n", c.first_moe_layer(),
                       c.intermediate_size);
  out += fmt::format("| router | {}{} |\n", word(e.router.score_function),
                     e.router.score_function == ScoreFunction::sigmoid ? ""
                     : e.router.pre_softmax                            ? ", before top-k"
                                                                       : ", after top-k");
  if (e.capacity_factor)
    out += fmt::format("| capacity factor in training | {}; these files compute dropless |\n",
                       *e.capacity_factor);
  return out;
}

std::string proof_section(const Exported& x, DType dtype) {
  if (!x.proof) return "The files were not compared with the checkpoint (--no-proof).\n";
  const Proof& p = *x.proof;
  std::string out = fmt::format(
      "The written files were read back and run by a forward pass in float64 that shares no code "
      "with training, on {} fixed tokens. Largest difference of a logit to the checkpoint's model "
      "(fp32): **{:.2e}**; largest logit {:.3g}.\n",
      p.ids.size(), p.difference, p.largest_logit);
  if (dtype == DType::bf16)
    out += fmt::format(
        "That is with the weights rounded to bf16 on both sides; the rounding itself moves a logit "
        "by up to {:.2e}.\n",
        p.rounding);
  return out;
}

std::string data_section(const CheckpointReader& step) {
  const Json* data = step.state().find("data");
  const Json* sources = data == nullptr ? nullptr : data->find("sources");
  if (sources == nullptr || !sources->is_array() || sources->as_array().empty()) return "";
  std::string out =
      "## Data\n\n| source | tokens | documents | share | fingerprint |\n|---|---|---|---|---|\n";
  for (const Json& s : sources->as_array())
    out += fmt::format("| {} | {} | {} | {:.4f} | {} |\n", s.at("name").as_string(),
                       s.at("tokens").as_int(), s.at("documents").as_int(),
                       s.at("share").as_double(), s.at("fingerprint").as_string());
  if (const Json* counters = step.state().find("counters"))
    out += fmt::format("\n{} tokens were consumed in {} steps.\n",
                       counters->at("consumed_tokens").as_int(), counters->at("step").as_int());
  return out + "\n";
}

std::string routing_line(const record::StepRecord& r) {
  if (r.layers.empty()) return "";
  std::int64_t dead = 0;
  for (const record::LayerRecord& l : r.layers) dead += l.dead_experts;
  return fmt::format(
      "Routing at step {}: MaxVio {:.2f} (largest over {} layers; 0 is balance), {} experts "
      "without "
      "a token in that step, {:.2f} % of the choices dropped.\n",
      r.step, max_vio(r), r.layers.size(), dead, 100 * dropped_fraction(r));
}

std::string training_section(const CheckpointReader& step) {
  const std::filesystem::path file =
      std::filesystem::absolute(step.path()).lexically_normal().parent_path().parent_path() /
      "metrics.jsonl";
  std::error_code unreadable;
  if (!std::filesystem::exists(file, unreadable)) return "";
  std::optional<record::StepRecord> last;
  std::optional<record::ValidationRecord> validation;
  try {
    for (record::Record& r : record::read_metrics(file)) {
      if (auto* s = std::get_if<record::StepRecord>(&r); s != nullptr && s->step <= step.step())
        last = std::move(*s);
      if (auto* v = std::get_if<record::ValidationRecord>(&r);
          v != nullptr && v->step <= step.step())
        validation = std::move(*v);
    }
  } catch (const Error& e) {
    log::warn("the model card has no losses: {}", e.what());
    return "";
  }
  std::string out;
  if (last)
    out += fmt::format("Training loss at step {}: {:.4f} nats a token.\n", last->step, last->loss);
  if (validation)
    out += fmt::format("Validation loss at step {}: {:.4f} nats a token{}.\n", validation->step,
                       validation->loss,
                       validation->bits_per_byte
                           ? fmt::format(" ({:.3f} bits per byte)", *validation->bits_per_byte)
                           : "");
  if (last) out += routing_line(*last);
  return out.empty() ? "" : "## Training\n\n" + out + "\n";
}

}  // namespace

std::string model_card(const CheckpointReader& step, const Config& config, const Exported& exported,
                       DType dtype) {
  std::string out = "---\nlibrary_name: transformers\npipeline_tag: text-generation\n---\n\n";
  out += fmt::format("# {} model trained with grist\n\n", word(exported.family));
  out += fmt::format(
      "A checkpoint of step {}, written as `{}` (`model_type: {}`) in {}. It is a base model: it "
      "continues text.\n\n",
      step.step(), architecture_of(exported.family), word(exported.family),
      dtype == DType::bf16 ? "bf16" : "fp32");
  out += "## Model\n\n| | |\n|---|---|\n" + shape_rows(config.model) + "\n";
  out += "## Proof\n\n" + proof_section(exported, dtype) + "\n";
  out += training_section(step) + data_section(step);
  out += "## Origin\n\n";
  out += fmt::format("Run `{}`, seed {}, learning rate {} ({}), weight decay {}, precision {}.\n",
                     step.manifest().uuid, config.seed, config.optim.lr,
                     word(config.optim.lr_decay_style), config.optim.weight_decay,
                     word(config.precision));
  return out;
}

}  // namespace grist::hub
