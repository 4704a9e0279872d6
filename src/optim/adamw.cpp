#include "grist/optim/adamw.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <tuple>

#include "grist/core/check.h"
#include "grist/core/device.h"
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
                     MemoryLedger* ledger, Device device)
    : config_(config),
      entries_(std::move(entries)),
      arena_("optimizer reductions", device, ledger) {
  const auto key = [](const OptimizerEntry& e) { return std::tie(e.name, e.begin); };
  std::sort(entries_.begin(), entries_.end(),
            [&](const OptimizerEntry& a, const OptimizerEntry& b) { return key(a) < key(b); });
  std::vector<ConstTensorView> gradients;
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    OptimizerEntry& e = entries_[i];
    GRIST_CHECK(i == 0 || key(entries_[i - 1]) != key(e), "two parameters are named {}", e.name);
    flatten(e);
    gradients.push_back(e.grad);
  }
  std::vector<const OptimizerEntry*> by_address;
  for (const OptimizerEntry& e : entries_) by_address.push_back(&e);
  std::sort(by_address.begin(), by_address.end(),
            [](const OptimizerEntry* a, const OptimizerEntry* b) {
              return std::less<>()(a->param.data, b->param.data);
            });
  for (const OptimizerEntry* e : by_address) add_slices(*e, device);
  norm_.emplace(gradients);
  const Shape chunks{norm_->num_partials()};
  const std::size_t partials = arena_.reserve(DType::f64, chunks);
  const std::size_t control = arena_.reserve(DType::f32, {2});
  arena_.commit();
  partials_ = arena_.view(partials, DType::f64, chunks);
  control_ = arena_.view(control, DType::f32, {2});
}

// The CPU's threads share tensors by chunks. A GPU wants few and long runs: tensors that lie behind
// each other in all four arenas become one.
void Optimizer::add_slices(const OptimizerEntry& e, Device device) {
  const std::int64_t n = e.param.numel();
  const auto slice = [&](std::int64_t begin, std::int64_t end) -> Slice {
    return {rows(e.param, begin, end),
            rows(e.m, begin, end),
            rows(e.v, begin, end),
            rows(e.grad, begin, end),
            e.decay,
            e.lr_factor};
  };
  if (device == Device::cpu) {
    for (std::int64_t begin = 0; begin < n; begin += ops::kNormChunk)
      slices_.push_back(slice(begin, std::min(n, begin + ops::kNormChunk)));
    return;
  }
  if (n == 0) return;
  const auto follows = [](const ConstTensorView& a, const ConstTensorView& b) {
    return static_cast<const std::byte*>(a.data) + a.bytes() == b.data;
  };
  Slice* last = slices_.empty() ? nullptr : &slices_.back();
  if (last != nullptr && last->decay == e.decay && last->lr_factor == e.lr_factor &&
      follows(last->param, e.param) && follows(last->m, e.m) && follows(last->v, e.v) &&
      follows(last->grad, e.grad)) {
    const Shape both = {last->param.numel() + n};
    last->param.shape = last->m.shape = last->v.shape = last->grad.shape = both;
    return;
  }
  slices_.push_back(slice(0, n));
}

void Optimizer::set_adam_steps(std::int64_t n) {
  GRIST_CHECK(n >= 0, "{} updates", n);
  adam_steps_ = n;
}

void Optimizer::apply(const Context& ctx, double lr) {
  parallel_for(ctx, static_cast<std::int64_t>(slices_.size()), [&](std::int64_t i, int /*worker*/) {
    const Slice& s = slices_[static_cast<std::size_t>(i)];
    ops::adamw(ctx, {.param = s.param,
                     .m = s.m,
                     .v = s.v,
                     .grad = s.grad,
                     .control = control_,
                     .lr = static_cast<float>(lr * s.lr_factor),
                     .beta1 = static_cast<float>(config_.adam_beta1),
                     .beta2 = static_cast<float>(config_.adam_beta2),
                     .eps = static_cast<float>(config_.adam_eps),
                     .weight_decay = s.decay ? static_cast<float>(config_.weight_decay) : 0.0F,
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
  const float control[2] = {static_cast<float>(r.clip_factor), r.applied ? 1.0F : 0.0F};
  copy_in(ctx, control_, control);
  apply(ctx, s.lr);
  if (r.applied) ++adam_steps_;
  return r;
}

}  // namespace grist
