#include "grist/nn/parameters.h"

#include <algorithm>
#include <cmath>
#include <deque>

#include "grist/core/check.h"
#include "grist/ops/optimizer.h"

namespace grist::nn {

namespace {
constexpr std::int64_t kAlignElements = 16;  // 64 bytes

// Matrices that write to the residual stream start smaller, so that its variance does not grow with
// depth.
double out_std(const ModelConfig& c) {
  return c.initializer_range / std::sqrt(2.0 * static_cast<double>(c.num_hidden_layers));
}
}  // namespace

// Declares blocks and their named slices first, so that the arenas can be sized; views are filled
// in by bind().
struct Parameters::Layout {
  struct Block {
    Parameter* parameter;
    std::int64_t offset;  // within the dense part, or within the experts
    std::size_t compute_offset;
  };
  Parameters& p;
  Device device;
  DType dtype;
  std::deque<Block> blocks;
  std::int64_t dense = 0, experts_numel = 0;  // elements so far

  std::int64_t add(Parameter& param, const Shape& shape, ParameterKind kind, bool compute) {
    param.shape = shape;
    param.kind = kind;
    std::int64_t& next = kind == ParameterKind::expert ? experts_numel : dense;
    const std::int64_t offset = next;
    next += (shape.numel() + kAlignElements - 1) / kAlignElements * kAlignElements;
    std::size_t compute_offset = 0;
    if (compute) {
      const DType own = kind == ParameterKind::router ? DType::f32 : dtype;
      param.compute = {.data = nullptr, .device = device, .dtype = own, .shape = shape};
      compute_offset = p.compute_arena_.reserve_bytes(ops::weight_bytes(device, own, shape));
    }
    blocks.push_back({&param, offset, compute_offset});
    return offset;
  }

  void name(const std::string& name, const Shape& shape, ParameterKind kind, std::int64_t offset,
            double std) {
    const bool decay = kind == ParameterKind::matrix || kind == ParameterKind::expert;
    p.tensors_.push_back({.name = name,
                          .shape = shape,
                          .kind = kind,
                          .decay = decay,
                          .offset = offset,
                          .master = {},
                          .grad = {},
                          .init_std = static_cast<float>(std)});
  }

  // A block that is one tensor.
  void single(Parameter& param, const std::string& full_name, const Shape& shape,
              ParameterKind kind, double std) {
    const bool compute = kind == ParameterKind::matrix || kind == ParameterKind::router;
    name(full_name, shape, kind, add(param, shape, kind, compute), std);
  }

  // gate rows before up rows.
  void gate_up(const std::string& prefix, std::int64_t F, std::int64_t D, ParameterKind kind,
               std::int64_t offset, double std) {
    name(prefix + "gate_proj.weight", {F, D}, kind, offset, std);
    name(prefix + "up_proj.weight", {F, D}, kind, offset + F * D, std);
  }

  void ffn(std::optional<Parameter>& up, std::optional<Parameter>& down, const std::string& prefix,
           std::int64_t F, const ModelConfig& c) {
    const std::int64_t D = c.hidden_size;
    up.emplace();
    gate_up(prefix, F, D, ParameterKind::matrix, add(*up, {2 * F, D}, ParameterKind::matrix, true),
            c.initializer_range);
    single(down.emplace(), prefix + "down_proj.weight", {D, F}, ParameterKind::matrix, out_std(c));
  }

  void experts(LayerParameters& layer, const std::string& prefix, const ModelConfig& c) {
    const std::int64_t E = p.part_.num_experts, F = c.moe.moe_intermediate_size, D = c.hidden_size;
    const std::int64_t up =
        add(layer.expert_gate_up.emplace(), {E, 2 * F, D}, ParameterKind::expert, true);
    const std::int64_t down =
        add(layer.expert_down.emplace(), {E, D, F}, ParameterKind::expert, true);
    for (std::int64_t e = 0; e < E; ++e) {
      const std::string expert =
          prefix + "experts." + std::to_string(p.part_.first_expert + e) + ".";
      gate_up(expert, F, D, ParameterKind::expert, up + e * 2 * F * D, c.initializer_range);
      name(expert + "down_proj.weight", {D, F}, ParameterKind::expert, down + e * D * F,
           out_std(c));
    }
  }

  void layer(LayerParameters& l, std::int64_t index, const ModelConfig& c) {
    const std::string prefix = "model.layers." + std::to_string(index) + ".";
    const std::int64_t D = c.hidden_size, Dh = c.head_dim, H = c.num_attention_heads,
                       Hkv = c.num_key_value_heads;
    const double std = c.initializer_range;
    single(l.input_norm, prefix + "input_layernorm.weight", {D}, ParameterKind::norm, 0);
    single(l.q, prefix + "self_attn.q_proj.weight", {H * Dh, D}, ParameterKind::matrix, std);
    single(l.k, prefix + "self_attn.k_proj.weight", {Hkv * Dh, D}, ParameterKind::matrix, std);
    single(l.v, prefix + "self_attn.v_proj.weight", {Hkv * Dh, D}, ParameterKind::matrix, std);
    if (c.qk_norm) {
      single(l.q_norm.emplace(), prefix + "self_attn.q_norm.weight", {Dh}, ParameterKind::norm, 0);
      single(l.k_norm.emplace(), prefix + "self_attn.k_norm.weight", {Dh}, ParameterKind::norm, 0);
    }
    single(l.o, prefix + "self_attn.o_proj.weight", {D, H * Dh}, ParameterKind::matrix, out_std(c));
    single(l.post_attention_norm, prefix + "post_attention_layernorm.weight", {D},
           ParameterKind::norm, 0);
    if (!c.is_moe_layer(index)) {
      ffn(l.gate_up, l.down, prefix + "mlp.", c.intermediate_size, c);
      return;
    }
    single(l.router.emplace(), prefix + "mlp.gate.weight", {c.moe.num_experts, D},
           ParameterKind::router, std);
    experts(l, prefix + "mlp.", c);
    if (c.moe.shared_expert_intermediate_size > 0) {
      ffn(l.shared_gate_up, l.shared_down, prefix + "mlp.shared_experts.",
          c.moe.shared_expert_intermediate_size, c);
    }
  }

  // Calls declare() and notes what it added as one group.
  template <class F> void group(const std::string& name, F&& declare) {
    const ArenaRange before = {dense, experts_numel};
    declare();
    p.groups_.push_back({name, {before.begin, dense}, {before.end, experts_numel}});
  }

  // The experts lie behind everything else.
  void place_experts() {
    p.dense_numel_ = dense;
    p.numel_ = dense + experts_numel;
    for (Block& b : blocks)
      if (b.parameter->kind == ParameterKind::expert) b.offset += dense;
    for (NamedTensor& t : p.tensors_)
      if (t.kind == ParameterKind::expert) t.offset += dense;
    for (ParameterGroup& g : p.groups_) {
      g.experts.begin += dense;
      g.experts.end += dense;
    }
    std::reverse(p.groups_.begin(), p.groups_.end());
  }

  TensorView gradient(const Block& b) const {
    const Shape& shape = b.parameter->shape;
    const std::int64_t sources = p.part_.gradient_sources;
    if (b.parameter->kind != ParameterKind::expert || sources == 1)
      return p.grad_arena_.view(static_cast<std::size_t>(b.offset) * sizeof(float), DType::f32,
                                shape);
    Shape by_source = shape;
    by_source[0] *= sources;
    const std::int64_t offset = (b.offset - p.dense_numel_) * sources;
    return p.source_arena_.view(static_cast<std::size_t>(offset) * sizeof(float), DType::f32,
                                by_source);
  }

  void bind(bool with_gradients) {
    for (const Block& b : blocks) {
      const std::size_t bytes = static_cast<std::size_t>(b.offset) * sizeof(float);
      b.parameter->master = p.master_arena_.view(bytes, DType::f32, b.parameter->shape);
      if (with_gradients) b.parameter->grad = gradient(b);
      if (b.parameter->compute.shape.rank() > 0)
        b.parameter->compute.data = p.compute_arena_.buffer().data() + b.compute_offset;
    }
    for (NamedTensor& t : p.tensors_) {
      const std::size_t bytes = static_cast<std::size_t>(t.offset) * sizeof(float);
      t.master = p.master_arena_.view(bytes, DType::f32, t.shape);
      if (with_gradients) t.grad = p.grad_arena_.view(bytes, DType::f32, t.shape);
    }
    std::sort(p.tensors_.begin(), p.tensors_.end(),
              [](const auto& a, const auto& b) { return a.name < b.name; });
  }
};

Parameters::Parameters(const ModelConfig& config, Device device, bool with_gradients,
                       MemoryLedger* ledger, const ModelPart& part, DType dtype)
    : layers(static_cast<std::size_t>(config.num_hidden_layers)),
      part_(part),
      master_arena_("parameters (fp32)", device, ledger),
      grad_arena_("gradients (fp32)", device, ledger),
      source_arena_("expert gradients by source (fp32)", device, ledger),
      compute_arena_("compute weights", device, ledger) {
  if (part_.num_experts < 0) part_.num_experts = config.moe.num_experts;
  GRIST_CHECK(
      part_.first_expert >= 0 && part_.first_expert + part_.num_experts <= config.moe.num_experts,
      "experts [{}, {}) of {}", part_.first_expert, part_.first_expert + part_.num_experts,
      config.moe.num_experts);
  Layout layout{*this, device, dtype, {}};
  const Shape table = {config.vocab_size, config.hidden_size};
  layout.group("embedding", [&] {
    const std::int64_t at =
        layout.add(embedding, table, ParameterKind::embedding, config.tie_word_embeddings);
    layout.name("model.embed_tokens.weight", table, ParameterKind::embedding, at,
                config.initializer_range);
  });
  for (std::size_t i = 0; i < layers.size(); ++i)
    layout.group("layer " + std::to_string(i),
                 [&] { layout.layer(layers[i], static_cast<std::int64_t>(i), config); });
  layout.group("output", [&] {
    layout.single(final_norm, "model.norm.weight", {config.hidden_size}, ParameterKind::norm, 0);
    if (!config.tie_word_embeddings) {
      layout.single(head.emplace(), "lm_head.weight", table, ParameterKind::matrix,
                    config.initializer_range);
    }
  });
  layout.place_experts();
  master_arena_.reserve(DType::f32, {numel_});
  master_arena_.commit();
  if (with_gradients) {
    grad_arena_.reserve(DType::f32, {numel_});
    grad_arena_.commit();
    if (part_.gradient_sources > 1) {
      source_arena_.reserve(DType::f32, {expert_range().size() * part_.gradient_sources});
      source_arena_.commit();
    }
  }
  compute_arena_.commit();
  layout.bind(with_gradients);
}

TensorView Parameters::master_elements(const ArenaRange& range) const {
  return master_arena_.view(static_cast<std::size_t>(range.begin) * sizeof(float), DType::f32,
                            {range.size()});
}

TensorView Parameters::grad_elements(const ArenaRange& range) const {
  return grad_arena_.view(static_cast<std::size_t>(range.begin) * sizeof(float), DType::f32,
                          {range.size()});
}

TensorView Parameters::expert_grad_sources(const ArenaRange& range) const {
  const std::int64_t sources = part_.gradient_sources;
  if (sources == 1) return grad_elements(range);
  const std::int64_t begin = (range.begin - dense_numel_) * sources;
  return source_arena_.view(static_cast<std::size_t>(begin) * sizeof(float), DType::f32,
                            {range.size() * sources});
}

void Parameters::initialize(const Context& ctx, std::uint64_t seed) {
  for (const NamedTensor& t : tensors_) {
    const TensorView flat = reshape(t.master, {t.shape.numel()});
    if (t.init_std == 0.0F) {
      ops::fill(ctx, {.x = flat, .value = 1.0F});
    } else {
      ops::normal_init(ctx, {.x = flat,
                             .part = whole_part(t.shape),
                             .shape = t.shape,
                             .std = t.init_std,
                             .seed = seed,
                             .name = t.name.c_str()});
    }
  }
}

template <class F> void Parameters::for_each_compute(F&& f) {
  const auto visit = [&](Parameter& p) {
    if (p.compute) f(p);
  };
  const auto maybe = [&](std::optional<Parameter>& p) {
    if (p) visit(*p);
  };
  visit(embedding);
  for (LayerParameters& l : layers) {
    for (Parameter* p : {&l.q, &l.k, &l.v, &l.o}) visit(*p);
    for (auto* p : {&l.gate_up, &l.down, &l.router, &l.expert_gate_up, &l.expert_down,
                    &l.shared_gate_up, &l.shared_down})
      maybe(*p);
  }
  maybe(head);
}

void Parameters::refresh(const Context& ctx) {
  for_each_compute(
      [&](Parameter& p) { ops::refresh_weight(ctx, {.out = p.compute, .master = p.master}); });
}

}  // namespace grist::nn
