// What the host wants to know of micro-batches, from the memory that a pass left.
#include "grist/core/check.h"
#include "grist/nn/model.h"

namespace grist::nn {

void StepStatistics::reset() {
  loss_sum = 0;
  for (LayerStatistics& l : layers) {
    l.counts.assign(l.counts.size(), 0);
    l.tokens = l.dropped = 0;
    l.aux_loss = l.z_loss = l.entropy_sum = l.top1_share_sum = 0;
  }
}

double StepStatistics::aux_loss() const {
  double sum = 0;
  for (const LayerStatistics& l : layers) sum += l.aux_loss;
  return sum;
}

double StepStatistics::z_loss() const {
  double sum = 0;
  for (const LayerStatistics& l : layers) sum += l.z_loss;
  return sum;
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
  const auto* fractions =
      moe.aux_loss_scope == "global_batch" ? global_fractions.data() : sums.of<float>(a.fractions);
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
  for (std::size_t i = 0; i < moe_layers; ++i)
    collect_layer(config_.moe, scale, act.tokens(), act.layers[act.layers.size() - moe_layers + i],
                  sums, router_state_.load_fraction[i], out.layers[i]);
}

}  // namespace grist::nn
