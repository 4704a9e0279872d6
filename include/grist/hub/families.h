#pragma once
// The families of models on the Hugging Face hub that a grist model can be: which configuration
// each expresses, its tensors' names and shapes, its config.json. One table for export and import.
// Formulas: transformers' modeling_<family>.py; docs/export.md lists what each takes.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "grist/config/config.h"
#include "grist/core/json.h"
#include "grist/core/tensor.h"

namespace grist::hub {

// The word of each is its model_type.
GRIST_WORDS(Family, llama, qwen3, mixtral, qwen3_moe, qwen2_moe, glm4_moe, granitemoeshared);

const char* architecture_of(Family family);  // "MixtralForCausalLM"

// The family that computes what this model computes. Error{config} that names the key which no
// family has.
Family family_of(const ModelConfig& model);

// ---- tensors ---------------------------------------------------------------------------------

struct Part {
  std::string name;  // grist's
  Shape shape;
};

// What a tensor without a counterpart must hold in a file: `fill`, or anything, because it is
// multiplied by zero.
enum class Constant : std::uint8_t { exact, any };

// A tensor of a file, by what it holds of grist's.
struct HubTensor {
  std::string name;
  Shape shape;
  std::vector<Part> parts;  // one behind the other; none: `fill` everywhere
  float fill = 0;
  Constant constant = Constant::exact;
  bool fp32 = false;  // stays fp32 in a bf16 file: transformers computes with it in fp32
};

// per_expert: as on the hub (granitemoeshared: its own stacks). fused: as transformers 5 has the
// experts in memory, gate_up_proj (E, 2F, D) and down_proj (E, D, F).
enum class ExpertLayout : std::uint8_t { per_expert, fused };

// All tensors of a model, in the model's order. The parts of all, together, are the model's
// parameters (nn/parameters.h) and, for glm4_moe, its selection biases.
std::vector<HubTensor> hub_tensors(Family family, const ModelConfig& model,
                                   ExpertLayout layout = ExpertLayout::per_expert);

std::string router_bias_name(std::int64_t layer);  // of grist's checkpoint; shape (E), f32

// ---- config.json -----------------------------------------------------------------------------

// Ids as config.json has them: a number, several, or null.
struct SpecialTokens {
  Json bos{}, eos{}, pad{};
};
constexpr const char *kBosKey = "bos_token_id", *kEosKey = "eos_token_id",
                     *kPadKey = "pad_token_id";
// Those of an object that has these keys; what is no id is null.
SpecialTokens special_tokens_of(const Json& object);
void set_special_tokens(Json& object, const SpecialTokens& tokens);

// Everything that a default of transformers 4 or 5 would decide otherwise is written out.
Json config_json(Family family, const ModelConfig& model, const SpecialTokens& tokens, DType dtype);
Json generation_config_json(const SpecialTokens& tokens);

struct HubModel {
  Family family = Family::mixtral;
  ModelConfig model;
};

// From a config.json of transformers 4 or 5. What grist does not compute is refused by its key, and
// so is a key that is not known: it may change the model. Error{bad_data} with all problems on one
// line that opens with `where`. glm4_moe: selection biases are on.
HubModel model_of(const Json& config, std::string_view where);

}  // namespace grist::hub
