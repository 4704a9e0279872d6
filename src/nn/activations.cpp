#include "grist/nn/activations.h"

#include <algorithm>
#include <bit>

#include "grist/core/check.h"
#include "grist/core/device.h"

namespace grist::nn {

Keep keep_for(const TrainConfig& train) {
  switch (train.recompute) {
    case Recompute::none: return Keep::everything;
    case Recompute::selective: return Keep::all_but_large;
    case Recompute::full: return Keep::layer_inputs;
  }
  return Keep::everything;
}

DType activation_dtype(const Config& config, Device device) {
  switch (config.precision) {
    case Precision::auto_: return properties(device).bf16 ? DType::bf16 : DType::f32;
    case Precision::fp32: return DType::f32;
    case Precision::bf16: return DType::bf16;
  }
  return DType::f32;
}

namespace {

using Member = TensorView LayerActivations::*;

struct Field {
  Member member;
  DType dtype;
  Shape shape;
  Keep from;  // kept by this policy and those that keep more
};

// Everything a layer writes that a later pass may read; of the rows of experts only with
// `experts_here`.
std::vector<Field> layer_fields(const ModelConfig& c, bool moe, std::int64_t N, std::int64_t B,
                                bool experts_here, DType dtype) {
  using A = LayerActivations;
  const std::int64_t D = c.hidden_size, Dh = c.head_dim, H = c.num_attention_heads,
                     Hkv = c.num_key_value_heads;
  const auto f32 = DType::f32;
  const Keep always = Keep::layer_inputs, most = Keep::all_but_large, all = Keep::everything;
  std::vector<Field> f = {
      {&A::h_in, dtype, {N, D}, always},  {&A::rstd_in, f32, {N}, most},
      {&A::n_in, dtype, {N, D}, all},     {&A::q, dtype, {N, H, Dh}, most},
      {&A::k, dtype, {N, Hkv, Dh}, most}, {&A::v, dtype, {N, Hkv, Dh}, most},
      {&A::o, dtype, {N, H, Dh}, most},   {&A::lse, f32, {N, H}, most},
      {&A::h_mid, dtype, {N, D}, most},   {&A::rstd_mid, f32, {N}, most},
      {&A::n_mid, dtype, {N, D}, all},
  };
  if (c.qk_norm) {
    f.insert(f.end(), {{&A::q_raw, dtype, {N, H, Dh}, most},
                       {&A::k_raw, dtype, {N, Hkv, Dh}, most},
                       {&A::q_rstd, f32, {N * H}, most},
                       {&A::k_rstd, f32, {N * Hkv}, most}});
  }
  if (!moe) {
    f.push_back({&A::z, dtype, {N, 2 * c.intermediate_size}, all});
    return f;
  }
  const std::int64_t E = c.moe.num_experts, K = c.moe.num_experts_per_tok, R = N * K;
  const std::int64_t S = c.moe.aux_loss_scope == AuxLossScope::sequence ? B : 1;
  if (experts_here) f.push_back({&A::z, dtype, {R, 2 * c.moe.moe_intermediate_size}, all});
  f.insert(f.end(), {{&A::logits, f32, {N, E}, always},
                     {&A::ids, DType::i32, {N, K}, always},
                     {&A::weights, f32, {N, K}, always},
                     {&A::expert_offsets, DType::i32, {E + 1}, always},
                     {&A::row_token, DType::i32, {R}, always},
                     {&A::row_weight, f32, {R}, always},
                     {&A::slot_row, DType::i32, {N, K}, always},
                     {&A::counts, DType::i64, {S, E}, always},
                     {&A::prob_sums, DType::f64, {S, E}, always},
                     {&A::fractions, f32, {S, E}, always},
                     {&A::scalars, DType::f64, {3}, always}});
  if (c.moe.shared_expert_intermediate_size > 0)
    f.push_back({&A::shared_z, dtype, {N, 2 * c.moe.shared_expert_intermediate_size}, all});
  return f;
}

// What the host wants to know of a micro-batch.
bool is_statistic(Member m) {
  using A = LayerActivations;
  return m == &A::expert_offsets || m == &A::counts || m == &A::prob_sums || m == &A::fractions ||
         m == &A::scalars;
}

struct Placed {
  TensorView* target;
  Arena* arena;
  std::size_t offset;
  DType dtype;
  Shape shape;
};

class Planner {
 public:
  void add(TensorView& target, Arena& arena, DType dtype, const Shape& shape) {
    placed_.push_back({&target, &arena, arena.reserve(dtype, shape), dtype, shape});
  }
  void at(TensorView& target, Arena& arena, std::size_t offset, DType dtype, const Shape& shape) {
    placed_.push_back({&target, &arena, offset, dtype, shape});
  }
  void bind() const {
    for (const Placed& p : placed_) *p.target = p.arena->view(p.offset, p.dtype, p.shape);
  }

 private:
  std::vector<Placed> placed_;
};

// Everything that lives within one layer or behind the last one.
void plan_workspace(Planner& plan, Arena& arena, Activations& act, const ModelConfig& c,
                    DType dtype) {
  Workspace& w = act.work;
  const std::int64_t N = act.tokens();
  const bool backward = act.keep() != Keep::nothing, experts_here = act.exchange() == nullptr;
  const std::int64_t D = c.hidden_size, Dh = c.head_dim, H = c.num_attention_heads,
                     Hkv = c.num_key_value_heads;
  const std::int64_t E = c.moe.num_experts, Fs = c.moe.shared_expert_intermediate_size;
  const bool has_moe = c.num_moe_layers() > 0, has_dense = c.first_moe_layer() > 0;
  const std::int64_t R = has_moe ? N * c.moe.num_experts_per_tok : 0,
                     Fe = c.moe.moe_intermediate_size;
  const std::int64_t dense = has_dense ? N * c.intermediate_size : 0;
  const std::int64_t activated = std::max(experts_here ? R * Fe : 0, dense);
  const auto f32 = DType::f32;
  plan.add(w.a, arena, dtype, {activated});
  plan.add(w.shared_a, arena, dtype, {N * Fs});
  plan.add(w.rows, arena, dtype, {R, D});
  plan.add(w.out, arena, dtype, {N, D});
  plan.add(act.h_final, arena, dtype, {N, D});
  plan.add(act.rstd_final, arena, f32, {N});
  plan.add(act.n_final, arena, dtype, {N, D});
  plan.add(act.losses, arena, f32, {N});
  if (!backward) {
    plan.add(act.loss_sum, arena, DType::f64, {1});
    return;
  }
  plan.add(act.dn_final, arena, dtype, {N, D});
  if (c.lm_head_z_loss_coeff != 0) plan.add(act.head_z, arena, f32, {N});
  plan.add(w.dz, arena, dtype, {2 * activated});
  plan.add(w.shared_dz, arena, dtype, {N, 2 * Fs});
  plan.add(w.da, arena, dtype, {std::max(dense, N * Fs)});
  plan.add(w.drow_weight, arena, f32, {R});
  plan.add(w.dlogits, arena, f32, {N, has_moe ? E : 0});
  plan.add(w.dh, arena, dtype, {N, D});
  plan.add(w.dn, arena, dtype, {N, D});
  plan.add(w.dq, arena, dtype, {N, H, Dh});
  plan.add(w.dk, arena, dtype, {N, Hkv, Dh});
  plan.add(w.dv, arena, dtype, {N, Hkv, Dh});
  plan.add(w.d_o, arena, dtype, {N, H, Dh});
}

void plan_batch(Planner& plan, Arena& arena, Activations& act) {
  for (TensorView* v : {&act.ids, &act.targets, &act.positions})
    plan.add(*v, arena, DType::i32, {act.tokens()});
  const auto most = static_cast<std::int64_t>(
      std::bit_ceil(static_cast<std::uint64_t>(std::max<std::int64_t>(act.tokens(), 1))));
  plan.add(act.cu_seqlens, arena, DType::i32, {most + 1});  // padded: nn/model.cpp
  plan.add(act.loss_scale, arena, DType::f32, {1});
}

// Of one round: the above and the routers' values.
std::size_t upload_bytes(const Activations& act, const ModelConfig& c) {
  std::size_t bytes =
      static_cast<std::size_t>(2 * c.num_hidden_layers * c.moe.num_experts) * sizeof(float);
  for (const TensorView& v : {act.ids, act.targets, act.positions, act.cu_seqlens, act.loss_scale})
    bytes += v.bytes() + Uploads::kAlign;
  return bytes + Uploads::kAlign;
}

}  // namespace

Activations::Activations(const ModelConfig& c, std::int64_t tokens, std::int64_t sequences,
                         Keep keep, Device device, MemoryLedger* ledger,
                         std::unique_ptr<ExpertExchange> exchange, DType dtype)
    : layers(static_cast<std::size_t>(c.num_hidden_layers)),
      tokens_(tokens),
      keep_(keep),
      exchange_(std::move(exchange)),
      kept_("activations kept for backward", device, ledger),
      shared_(keep == Keep::nothing ? "activations (evaluation)" : "activations (one layer)",
              device, ledger) {
  GRIST_CHECK(sequences > 0 && tokens % sequences == 0, "{} tokens in {} sequences", tokens,
              sequences);
  Planner plan;
  std::vector<std::pair<Member, std::size_t>> shared_bytes;  // the largest layer decides
  const auto is_moe = [&](std::size_t i) { return c.is_moe_layer(static_cast<std::int64_t>(i)); };
  const auto shared_entry = [&](Member m) -> std::size_t& {
    for (auto& [member, bytes] : shared_bytes) {
      if (member == m) return bytes;
    }
    return shared_bytes.emplace_back(m, 0).second;
  };
  const bool experts_here = exchange_ == nullptr;
  const auto fields = [&](std::size_t i) {
    return layer_fields(c, is_moe(i), tokens, sequences, experts_here, dtype);
  };
  const bool backward = keep != Keep::nothing;
  if (backward) {  // first, and so in one stretch
    plan.add(loss_sum, kept_, DType::f64, {1});
    if (c.lm_head_z_loss_coeff != 0) plan.add(head_z_sum, kept_, DType::f64, {1});
    for (std::size_t i = 0; i < layers.size(); ++i)
      for (const Field& f : fields(i))
        if (is_statistic(f.member)) plan.add(layers[i].*f.member, kept_, f.dtype, f.shape);
    plan.at(statistics, kept_, 0, DType::i64, {static_cast<std::int64_t>(kept_.size() / 8)});
  }
  for (std::size_t i = 0; i < layers.size(); ++i) {
    for (const Field& f : fields(i)) {
      if (backward && is_statistic(f.member)) continue;
      if (keep >= f.from) {
        plan.add(layers[i].*f.member, kept_, f.dtype, f.shape);
      } else {
        std::size_t& bytes = shared_entry(f.member);
        bytes = std::max(bytes, static_cast<std::size_t>(f.shape.numel()) * size_of(f.dtype));
      }
    }
  }
  std::vector<std::size_t> shared_offsets;
  for (const auto& [member, bytes] : shared_bytes)
    shared_offsets.push_back(shared_.reserve_bytes(bytes));
  for (std::size_t i = 0; i < layers.size(); ++i) {
    for (const Field& f : fields(i)) {
      if (keep >= f.from) continue;
      for (std::size_t s = 0; s < shared_bytes.size(); ++s) {
        if (shared_bytes[s].first == f.member)
          plan.at(layers[i].*f.member, shared_, shared_offsets[s], f.dtype, f.shape);
      }
    }
  }
  plan_workspace(plan, shared_, *this, c, dtype);
  const bool copies = !properties(device).reads_host_memory;
  if (copies) plan_batch(plan, shared_, *this);
  kept_.commit();
  shared_.commit();
  plan.bind();
  if (copies) uploads = std::make_unique<Uploads>(device, upload_bytes(*this, c), ledger);
}

}  // namespace grist::nn
