// What the files hold against what they should hold.
#include "import_source.h"

#include <unordered_map>

#include "grist/core/file.h"

namespace grist::hub {

namespace {

constexpr std::uint64_t kMaxConfig = 1 << 20;

// "3 missing: a, b, c"; the first few names.
void list_names(std::string& out, const char* what, const std::vector<std::string>& names) {
  constexpr std::size_t kNamed = 6;
  if (names.empty()) return;
  out += fmt::format("{}{} {}: ", out.empty() ? "" : "; ", names.size(), what);
  for (std::size_t i = 0; i < std::min(names.size(), kNamed); ++i)
    out += (i > 0 ? ", " : "") + names[i];
  if (names.size() > kNamed) out += ", ...";
}

ExpertLayout layout_of(const std::vector<std::string>& names) {
  const auto fused = [](const std::string& n) { return n.ends_with("experts.gate_up_proj"); };
  return std::any_of(names.begin(), names.end(), fused) ? ExpertLayout::fused
                                                        : ExpertLayout::per_expert;
}

// Old files carry what transformers computes itself.
bool is_left_out(const std::string& name) {
  return name.ends_with(".rotary_emb.inv_freq");
}

}  // namespace

Source::Source(const fs::path& folder)
    : files_(folder), config_path_(folder / "config.json"), names_(files_.names()) {
  config_ = Json::parse(read_text(config_path_, kMaxConfig), config_path_.string());
  model_ = model_of(config_, config_path_.string());
  check_size();
  make_table();
  check_tensors();
  leave_out_dead_experts();
  check_constants();
  settle_biases();
}

// The list of tensors is as long as config.json says: it must be a list that the files can hold.
void Source::check_size() const {
  const ModelConfig& c = model_.model;
  const auto number = [](std::int64_t n) { return static_cast<double>(n); };
  const double experts = number(c.num_moe_layers()) * number(c.moe.num_experts) *
                         number(c.moe.moe_intermediate_size) * number(c.hidden_size);
  const double held = number(static_cast<std::int64_t>(files_.bytes()));
  if (number(c.num_hidden_layers) <= number(static_cast<std::int64_t>(names_.size())) &&
      experts <= held)
    return;
  fail(ExitCode::bad_data,
       "{}: num_hidden_layers {} with {} experts of {} x {} cannot be in {} tensors of {} bytes",
       config_path_.string(), c.num_hidden_layers, c.moe.num_experts, c.moe.moe_intermediate_size,
       c.hidden_size, names_.size(), files_.bytes());
}

void Source::make_table() {
  tensors_ = hub_tensors(model_.family, model_.model, layout_of(names_));
}

void Source::check_tensors() const {
  std::unordered_map<std::string_view, const HubTensor*> wanted;
  for (const HubTensor& t : tensors_) wanted.emplace(t.name, &t);
  std::vector<std::string> missing, unexpected, misshapen, wrong_type;
  for (const std::string& name : names_) {
    const SafetensorsEntry& e = *files_.find(name);
    const auto at = wanted.find(name);
    if (at == wanted.end()) {
      if (!is_left_out(name) && !is_tied_copy(name)) unexpected.push_back(name);
      continue;
    }
    if (!(e.shape == at->second->shape))
      misshapen.push_back(
          fmt::format("{} is {}, want {}", name, e.shape.str(), at->second->shape.str()));
    if (e.type != "F32" && e.type != "BF16" && e.type != "F16")
      wrong_type.push_back(fmt::format("{} is {}", name, e.type));
  }
  for (const HubTensor& t : tensors_)
    if (files_.find(t.name) == nullptr) missing.push_back(t.name);
  std::string problems;
  list_names(problems, "missing", missing);
  list_names(problems, "unexpected", unexpected);
  list_names(problems, "of another shape", misshapen);
  list_names(problems, "not F32, BF16 or F16", wrong_type);
  if (!problems.empty())
    fail(ExitCode::bad_data, "{}: not the tensors of this {} model: {}", files_.folder().string(),
         word(model_.family), problems);
}

bool Source::is_tied_copy(const std::string& name) const {
  if (name != "lm_head.weight" || !model_.model.tie_word_embeddings) return false;
  const SafetensorsEntry& head = *files_.find(name);
  const SafetensorsEntry* table = files_.find("model.embed_tokens.weight");
  if (table == nullptr || !(table->shape == head.shape) || head.type != table->type) return false;
  std::vector<float> a(static_cast<std::size_t>(std::min(kPiece, head.shape.numel())));
  std::vector<float> b(a.size());
  for (std::int64_t i = 0; i < head.shape.numel(); i += kPiece) {
    const auto n = static_cast<std::size_t>(std::min(kPiece, head.shape.numel() - i));
    files_.read(name, i, std::span(a).first(n));
    files_.read("model.embed_tokens.weight", i, std::span(b).first(n));
    if (!std::equal(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(n), b.begin()))
      fail(ExitCode::bad_data,
           "{}: lm_head.weight is not model.embed_tokens.weight, but config.json says "
           "tie_word_embeddings true; which is meant?",
           files_.folder().string());
  }
  return true;
}

bool Source::holds_only(const HubTensor& t, float value) const {
  bool same = true;
  each_piece(t.name, 0, t.shape.numel(), [&](std::span<const float> piece) {
    same = same && std::all_of(piece.begin(), piece.end(), [&](float v) { return v == value; });
  });
  return same;
}

void Source::leave_out_dead_experts() {
  ModelConfig& c = model_.model;
  if (model_.family != Family::glm4_moe ||
      c.moe.shared_expert_intermediate_size != c.moe.moe_intermediate_size ||
      c.num_moe_layers() == 0)
    return;
  for (const HubTensor& t : tensors_)
    if (t.name.ends_with("shared_experts.down_proj.weight") && !holds_only(t, 0)) return;
  c.moe.shared_expert_intermediate_size = 0;
  make_table();
}

void Source::check_constants() const {
  for (const HubTensor& t : tensors_) {
    if (!t.parts.empty() || t.constant == Constant::any || holds_only(t, t.fill)) continue;
    fail(ExitCode::bad_data, "{}: tensor \"{}\" is not all {}, and grist has no place for it: {}",
         files_.folder().string(), t.name, t.fill,
         t.name.ends_with(".bias") ? "its projections have no bias"
                                   : "its shared expert has no gate of its own");
  }
}

void Source::settle_biases() {
  if (model_.family != Family::glm4_moe) return;
  for (const HubTensor& t : tensors_)
    if (t.name.ends_with(".e_score_correction_bias") && !holds_only(t, 0)) return;
  model_.model.moe.expert_bias_update_rate = 0;
}

}  // namespace grist::hub
