#include "grist/optim/adamw.h"

#include <algorithm>
#include <cmath>
#include <tuple>

#include "grist/core/check.h"
#include "grist/ops/optimizer.h"

namespace grist {

namespace {

// Checks one entry and lays its tensors out flat, as the operations take them.
void flatten(OptimizerEntry& e) {
  const std::int64_t n = e.param.numel();
  const ConstTensorView views[] = {e.param, e.m, e.v, e.grad};
  for (const ConstTensorView& v : views) {
    GRIST_CHECK(v.dtype == DType::f32 && v.numel() == n && (v || n == 0),
                "{}: param, m, v and grad must be f32 of {} elements, one has {} {}", e.name, n,
                v.numel(), name_of(v.dtype));
  }
  GRIST_CHECK(std::isfinite(e.lr_factor) && e.lr_factor >= 0, "{}: lr_factor {}", e.name,
              e.lr_factor);
  GRIST_CHECK(e.begin >= 0 && e.begin % ops::kNormChunk == 0,
              "{}: a piece that begins at {}, which is not the edge of a chunk", e.name, e.begin);
  e.param = reshape(e.param, {n});
  e.m = reshape(e.m, {n});
  e.v = reshape(e.v, {n});
  e.grad = reshape(e.grad, {n});
}

}  // namespace

Optimizer::Optimizer(const OptimConfig& config, std::vector<OptimizerEntry> entries,
                     MemoryLedger* ledger)
    : config_(config),
      entries_(std::move(entries)),
      arena_("optimizer reductions", Device::cpu, ledger) {
  if (config.name != "adamw")
    fail(ExitCode::config, "optim.name: \"{}\" is not one of adamw", config.name);
  const auto key = [](const OptimizerEntry& e) { return std::tie(e.name, e.begin); };
  std::sort(entries_.begin(), entries_.end(),
            [&](const OptimizerEntry& a, const OptimizerEntry& b) { return key(a) < key(b); });
  std::vector<ConstTensorView> gradients;
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    OptimizerEntry& e = entries_[i];
    GRIST_CHECK(i == 0 || key(entries_[i - 1]) != key(e), "two parameters are named {}", e.name);
    flatten(e);
    gradients.push_back(e.grad);
    const std::int64_t n = e.param.numel();
    for (std::int64_t begin = 0; begin < n; begin += ops::kNormChunk)
      slices_.push_back({i, begin, std::min(n, begin + ops::kNormChunk)});
  }
  norm_.emplace(gradients);
  const Shape chunks{static_cast<std::int64_t>(slices_.size())};
  const std::size_t partials = arena_.reserve(DType::f64, chunks);
  const std::size_t control = arena_.reserve(DType::f32, {2});
  arena_.commit();
  partials_ = arena_.view(partials, DType::f64, chunks);
  control_ = arena_.view(control, DType::f32, {2});
}

void Optimizer::set_adam_steps(std::int64_t n) {
  GRIST_CHECK(n >= 0, "{} updates", n);
  adam_steps_ = n;
}

void Optimizer::apply(const Context& ctx, double lr) {
  parallel_for(ctx, static_cast<std::int64_t>(slices_.size()), [&](std::int64_t i, int /*worker*/) {
    const Slice& s = slices_[static_cast<std::size_t>(i)];
    const OptimizerEntry& e = entries_[s.entry];
    ops::adamw(ctx, {.param = rows(e.param, s.begin, s.end),
                     .m = rows(e.m, s.begin, s.end),
                     .v = rows(e.v, s.begin, s.end),
                     .grad = rows(e.grad, s.begin, s.end),
                     .control = control_,
                     .lr = static_cast<float>(lr * e.lr_factor),
                     .beta1 = static_cast<float>(config_.adam_beta1),
                     .beta2 = static_cast<float>(config_.adam_beta2),
                     .eps = static_cast<float>(config_.adam_eps),
                     .weight_decay = e.decay ? static_cast<float>(config_.weight_decay) : 0.0F,
                     .step = adam_steps_ + 1});
  });
}

OptimizerResult Optimizer::step(const Context& ctx, const OptimizerStep& s) {
  norm_->partials(ctx, partials_);
  return update(ctx, s, norm_of(ctx, partials_));
}

OptimizerResult Optimizer::update(const Context& ctx, const OptimizerStep& s, double grad_norm) {
  OptimizerResult r;
  r.grad_norm = grad_norm;
  r.applied = std::isfinite(r.grad_norm) && std::isfinite(s.loss);
  if (r.applied && config_.clip_grad > 0)
    r.clip_factor = std::min(1.0, config_.clip_grad / (r.grad_norm + 1e-6));
  auto* control = control_.as<float>();
  control[0] = static_cast<float>(r.clip_factor);
  control[1] = r.applied ? 1.0F : 0.0F;
  apply(ctx, s.lr);
  if (r.applied) ++adam_steps_;
  return r;
}

}  // namespace grist
