// Logits of the files against logits of the checkpoint.
#include "grist/hub/proof.h"

#include <algorithm>
#include <cmath>
#include <unordered_set>
#include <utility>

#include "grist/core/check.h"
#include "grist/core/random.h"
#include "grist/hub/reference_forward.h"
#include "grist/nn/decoder.h"

namespace grist::hub {

namespace {

constexpr std::int64_t kTokens = 32;
constexpr int kTries = 4;
constexpr double kCloseChoice = 1e-4;

}  // namespace

std::vector<std::int32_t> fixed_tokens(const ModelConfig& c, int attempt) {
  const Random random(static_cast<std::uint64_t>(attempt), "hub proof");
  std::vector<std::int32_t> out(
      static_cast<std::size_t>(std::min(kTokens, c.max_position_embeddings)));
  for (std::size_t i = 0; i < out.size(); ++i)
    out[i] = static_cast<std::int32_t>(random.below(i, static_cast<std::uint64_t>(c.vocab_size)));
  return out;
}

std::vector<float> logits_of(const eval::TrainedModel& trained,
                             std::span<const std::int32_t> tokens) {
  nn::Decoder decoder(*trained.model, static_cast<std::int64_t>(tokens.size()));
  std::vector<float> out;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const std::span<const float> logits = decoder.feed(trained.context(), tokens.subspan(i, 1));
    out.insert(out.end(), logits.begin(), logits.end());
  }
  return out;
}

double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  GRIST_CHECK(a.size() == b.size(), "{} and {} logits", a.size(), b.size());
  double most = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double d = std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    if (!(d <= most)) most = d;
    if (!std::isfinite(most)) break;
  }
  return most;
}

namespace {

void round_weights(std::span<const HubTensor> tensors, eval::TrainedModel& trained) {
  std::unordered_set<std::string_view> kept;
  for (const HubTensor& t : tensors)
    for (const Part& p : t.parts)
      if (t.fp32) kept.insert(p.name);
  for (const nn::NamedTensor& t : trained.model->parameters().tensors()) {
    if (kept.contains(t.name)) continue;
    auto* x = t.master.as<float>();
    std::transform(x, x + t.master.numel(), x, [](float v) { return from_bf16(to_bf16(v)); });
  }
  trained.model->parameters().refresh(trained.context());
}

}  // namespace

double Proof::bound() const {
  return 1e-4 * std::max(1.0, largest_logit);
}

bool Proof::holds() const {
  return difference <= bound();
}

Proof prove(const HubFiles& files, const Json& config, std::span<const HubTensor> tensors,
            DType dtype, eval::TrainedModel& trained) {
  Proof proof;
  std::vector<std::vector<float>> before;
  if (dtype == DType::bf16) {
    for (int i = 0; i < kTries; ++i)
      before.push_back(logits_of(trained, fixed_tokens(trained.config.model, i)));
    round_weights(tensors, trained);
  }
  for (int attempt = 0; attempt < kTries; ++attempt) {
    proof.ids = fixed_tokens(trained.config.model, attempt);
    const ReferenceLogits reference = reference_logits(files, config, proof.ids);
    proof.logits = logits_of(trained, proof.ids);
    proof.difference = largest_difference(proof.logits, reference.logits);
    proof.smallest_gap = reference.smallest_gap;
    proof.largest_logit =
        largest_difference(proof.logits, std::vector<float>(proof.logits.size(), 0.0F));
    if (!before.empty())
      proof.rounding =
          largest_difference(before[static_cast<std::size_t>(attempt)], reference.logits);
    if (proof.holds() || proof.smallest_gap > kCloseChoice) break;
  }
  return proof;
}

}  // namespace grist::hub
