// What the host wants to know of micro-batches, from the memory that a pass left; and what is said
// of a step.
#include <algorithm>
#include <iterator>

#include "grist/core/check.h"
#include "grist/nn/model.h"

namespace grist::nn {

static_assert(sizeof(LayerStatistics) == sizeof(std::vector<std::int64_t>) +
                                             2 * sizeof(std::int64_t) +
                                             std::size(kLayerSums) * sizeof(double),
              "a sum of a layer has no entry in kLayerSums");
static_assert(sizeof(StepStatistics) ==
                  sizeof(std::vector<LayerStatistics>) + std::size(kModelSums) * sizeof(double),
              "a sum of the model has no entry in kModelSums");

void StepStatistics::reset() {
  for_each_sum(*this, [](double& sum) { sum = 0; });
  for_each_count(*this, [](std::int64_t& n) { n = 0; });
}

std::vector<LossTerm> loss_terms(const ModelConfig& config, const StepStatistics& statistics) {
  std::vector<LossTerm> terms;
  for (const auto& entry : kLayerSums) {
    if (entry.kind != SumKind::loss_term || !entry.in_use(config)) continue;
    double sum = 0;
    for (const LayerStatistics& l : statistics.layers) sum += l.*entry.field;
    terms.push_back({entry.name, entry.console, sum, true});
  }
  for (const auto& entry : kModelSums)
    if (entry.kind == SumKind::loss_term && entry.in_use(config))
      terms.push_back({entry.name, entry.console, statistics.*entry.field, false});
  return terms;
}

std::vector<TokenMean> token_means(const LayerStatistics& layer) {
  std::vector<TokenMean> means;
  const auto tokens = static_cast<double>(std::max<std::int64_t>(layer.tokens, 1));
  for (const auto& entry : kLayerSums)
    if (entry.kind == SumKind::token_mean)
      means.push_back({entry.name, layer.*entry.field / tokens});
  return means;
}

namespace {

// One micro-batch's sums: those of `act`, as they lie in a copy of act.statistics.
class MicroBatchSums {
 public:
  MicroBatchSums(const Activations& act, const std::byte* copy) : act_(act), copy_(copy) {}
  template <class T> const T* of(const ConstTensorView& v) const {
    v.as<T>();  // checks the type
    const auto* begin = static_cast<const std::byte*>(act_.statistics.data);
    const std::ptrdiff_t offset = static_cast<const std::byte*>(v.data) - begin;
    return reinterpret_cast<const T*>(copy_ + offset);
  }

 private:
  const Activations& act_;
  const std::byte* copy_;
};

// `global_fractions`: the router state's, for that scope of balancing.
void collect_layer(const MoeConfig& moe, const StepScale& scale, std::int64_t tokens,
                   const LayerActivations& a, const MicroBatchSums& sums,
                   const std::vector<float>& global_fractions, LayerStatistics& s) {
  const std::int64_t E = moe.num_experts, S = a.counts.shape[0];
  const auto* counts = sums.of<std::int64_t>(a.counts);
  const auto* probs = sums.of<double>(a.prob_sums);
  const auto* scalars = sums.of<double>(a.scalars);
  const auto* fractions = moe.aux_loss_scope == AuxLossScope::global_batch
                              ? global_fractions.data()
                              : sums.of<float>(a.fractions);
  const double segment_tokens = static_cast<double>(tokens) / static_cast<double>(S);
  double f_times_p = 0;
  for (std::int64_t j = 0; j < S * E; ++j) {
    s.counts[static_cast<std::size_t>(j % E)] += counts[j];
    if (moe.aux_loss_coeff != 0)
      f_times_p += static_cast<double>(fractions[j]) * probs[j] / segment_tokens;
  }
  const double weight = scale.micro_batch_weight;
  s.aux_loss +=
      weight * moe.aux_loss_coeff * static_cast<double>(E) * f_times_p / static_cast<double>(S);
  s.z_loss += weight * moe.z_loss_coeff * scalars[0] / static_cast<double>(tokens);
  s.entropy_sum += scalars[1];
  s.top1_share_sum += scalars[2];
  s.tokens += tokens;
  s.dropped += a.row_token.numel() - sums.of<std::int32_t>(a.expert_offsets)[E];
}

}  // namespace

void Model::collect(const Activations& act, const StepScale& scale, const std::byte* statistics,
                    StepStatistics& out) const {
  const std::size_t moe_layers = router_state_.bias.size();
  if (out.layers.size() != moe_layers) {
    out.layers.resize(moe_layers);
    for (LayerStatistics& l : out.layers)
      l.counts.assign(static_cast<std::size_t>(config_.moe.num_experts), 0);
  }
  const MicroBatchSums sums(act, statistics);
  out.loss_sum += *sums.of<double>(act.loss_sum);
  if (act.head_z_sum)
    out.lm_head_z_loss +=
        config_.lm_head_z_loss_coeff * scale.loss_scale * *sums.of<double>(act.head_z_sum);
  for (std::size_t i = 0; i < moe_layers; ++i)
    collect_layer(config_.moe, scale, act.tokens(), act.layers[act.layers.size() - moe_layers + i],
                  sums, router_state_.load_fraction[i], out.layers[i]);
}

}  // namespace grist::nn
