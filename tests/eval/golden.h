#pragma once
// The tiny model of tests/golden/eval as if it had been loaded from a checkpoint.
#include <array>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>

#include "grist/ckpt/safetensors.h"
#include "grist/core/file.h"
#include "grist/core/json.h"
#include "grist/eval/trained_model.h"

namespace grist::test {

inline std::filesystem::path golden_folder() {
  return std::filesystem::path(GRIST_TESTS_DIR) / "golden" / "eval";
}

inline const Json& golden_expected() {
  static const Json json =
      Json::parse(read_text(golden_folder() / "expected.json"), "expected.json");
  return json;
}

inline ModelConfig golden_config() {
  const Json& c = golden_expected().at("config");
  const Json& moe = c.at("moe");
  ModelConfig m;
  m.num_hidden_layers = c.at("num_hidden_layers").as_int();
  m.hidden_size = c.at("hidden_size").as_int();
  m.num_attention_heads = c.at("num_attention_heads").as_int();
  m.num_key_value_heads = c.at("num_key_value_heads").as_int();
  m.head_dim = c.at("head_dim").as_int();
  m.vocab_size = c.at("vocab_size").as_int();
  m.intermediate_size = c.at("intermediate_size").as_int();
  m.max_position_embeddings = c.at("max_position_embeddings").as_int();
  m.rope_theta = c.at("rope_theta").as_double();
  m.rms_norm_eps = c.at("rms_norm_eps").as_double();
  m.moe.num_experts = moe.at("num_experts").as_int();
  m.moe.num_experts_per_tok = moe.at("num_experts_per_tok").as_int();
  m.moe.moe_intermediate_size = moe.at("moe_intermediate_size").as_int();
  m.moe.router.score_function = ScoreFunction::softmax;
  m.moe.router.pre_softmax = moe.at("router").at("pre_softmax").as_bool();
  m.moe.router.norm_topk_prob = moe.at("router").at("norm_topk_prob").as_bool();
  return m;
}

// Mixtral calls the expert matrices w1 (gate), w3 (up), w2 (down).
inline std::string mixtral_name(std::string name) {
  constexpr std::array<std::pair<const char*, const char*>, 4> kWords = {
      {{".mlp.", ".block_sparse_moe."},
       {"gate_proj", "w1"},
       {"up_proj", "w3"},
       {"down_proj", "w2"}}};
  for (const auto& [ours, theirs] : kWords) {
    const std::size_t at = name.find(ours);
    if (at != std::string::npos) name.replace(at, std::string(ours).size(), theirs);
  }
  return name;
}

inline eval::TrainedModel golden_model(int threads = 2) {
  eval::TrainedModel out;
  out.checkpoint = golden_folder();
  out.config.model = golden_config();
  out.device = std::make_unique<ComputeDevice>(Device::cpu, threads, nullptr, nullptr);
  out.model = std::make_unique<nn::Model>(out.config.model, Device::cpu, false, nullptr);
  const SafetensorsReader file(golden_folder() / "model.safetensors");
  for (const nn::NamedTensor& t : out.model->parameters().tensors())
    file.read(mixtral_name(t.name), t.master);
  out.model->parameters().refresh(out.context());
  out.tokenizer = Tokenizer::load(golden_folder());
  return out;
}

}  // namespace grist::test
