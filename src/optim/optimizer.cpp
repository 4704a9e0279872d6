#include "grist/optim/optimizer.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <tuple>

#include "grist/core/check.h"
#include "grist/core/device.h"
#include "grist/ops/optimizer.h"
#include "grist/optim/adamw.h"

namespace grist {

namespace {

bool lies_behind(const ConstTensorView& a, const ConstTensorView& b) {
  return static_cast<const std::byte*>(a.data) + a.bytes() == b.data;
}

void check_vector(const OptimizerEntry& e, const ConstTensorView& v) {
  const std::int64_t n = e.part.size();
  GRIST_CHECK(v.dtype == DType::f32 && v.numel() == n && (v || n == 0),
              "{}: parameter, gradient and states must be f32 of {} elements, one has {} {}",
              e.tensor.name, n, v.numel(), name_of(v.dtype));
}

}  // namespace

std::shared_ptr<const UpdateRule> make_update_rule(const OptimConfig& config) {
  switch (config.name) {
    case OptimizerName::adamw: return std::make_shared<AdamW>(config);
  }
  return std::make_shared<AdamW>(config);
}

std::string state_tensor_name(std::string_view state, std::string_view tensor) {
  return std::string(kStatePrefix) + std::string(state) + "." + std::string(tensor);
}

Optimizer::Optimizer(const OptimConfig& config, std::vector<OptimizerEntry> entries)
    : Optimizer(make_update_rule(config), config.clip_grad, std::move(entries), Place{}) {}

Optimizer::Optimizer(std::shared_ptr<const UpdateRule> rule, double clip_grad,
                     std::vector<OptimizerEntry> entries, const Place& place)
    : rule_(std::move(rule)),
      clip_grad_(clip_grad),
      entries_(std::move(entries)),
      arena_("optimizer reductions", place.device, place.ledger) {
  for (OptimizerEntry& e : entries_) check_and_flatten(e);
  sort_entries();
  make_items(place.device);
  std::vector<ConstTensorView> gradients;
  for (const OptimizerEntry& e : entries_) gradients.push_back(e.grad);
  norm_.emplace(gradients);
  const Shape chunks{norm_->num_partials()};
  const std::size_t partials = arena_.reserve(DType::f64, chunks);
  const std::size_t control = arena_.reserve(DType::f32, {2});
  arena_.commit();
  partials_ = arena_.view(partials, DType::f64, chunks);
  control_ = arena_.view(control, DType::f32, {2});
}

// Lays an entry's tensors out flat, as most rules take them.
void Optimizer::check_and_flatten(OptimizerEntry& e) const {
  const std::string& name = e.tensor.name;
  const bool at_edge = e.part.begin % ops::kNormChunk == 0;
  GRIST_CHECK(fits(e.part, e.tensor.shape) && at_edge,
              "{}: a piece that begins at {}, which is not the edge of a chunk", name,
              e.part.begin);
  GRIST_CHECK(rule_->cut(e.tensor) != CutRule::whole || is_whole(e.part, e.tensor.shape),
              "{}: is cut, and its rule needs the whole", name);
  GRIST_CHECK(std::isfinite(e.lr_factor) && e.lr_factor >= 0, "{}: lr_factor {}", name,
              e.lr_factor);
  const std::vector<std::string> states = rule_->states(e.tensor);
  GRIST_CHECK(std::equal(states.begin(), states.end(), e.state.begin(), e.state.end(),
                         [](const auto& want, const auto& s) { return want == s.name; }),
              "{}: {} states that are not its rule's {}", name, e.state.size(), states.size());
  check_vector(e, e.param);
  check_vector(e, e.grad);
  const Shape flat = {e.part.size()};
  e.param = reshape(e.param, flat);
  e.grad = reshape(e.grad, flat);
  for (OptimizerState& s : e.state) {
    check_vector(e, s.values);
    s.values = reshape(s.values, flat);
  }
}

void Optimizer::sort_entries() {
  const auto key = [](const OptimizerEntry& e) {
    return std::tie(e.tensor.name, e.part.first_column, e.part.begin);
  };
  std::sort(entries_.begin(), entries_.end(),
            [&](const OptimizerEntry& a, const OptimizerEntry& b) { return key(a) < key(b); });
  for (std::size_t i = 1; i < entries_.size(); ++i)
    GRIST_CHECK(key(entries_[i - 1]) != key(entries_[i]), "two parameters are named {}",
                entries_[i].tensor.name);
}

// The CPU's threads share tensors by chunks. A GPU wants few and long runs: tensors that lie behind
// each other in all arenas become one.
void Optimizer::make_items(Device device) {
  std::vector<const OptimizerEntry*> by_address;
  for (const OptimizerEntry& e : entries_) by_address.push_back(&e);
  std::sort(by_address.begin(), by_address.end(),
            [](const OptimizerEntry* a, const OptimizerEntry* b) {
              return std::less<>()(a->param.data, b->param.data);
            });
  for (const OptimizerEntry* e : by_address) {
    const std::int64_t n = e->part.size();
    if (rule_->cut(e->tensor) == CutRule::whole) {
      add_item(*e, 0, n);
      UpdateItem& item = items_.back();
      item.param = reshape(item.param, e->tensor.shape);
      item.grad = reshape(item.grad, e->tensor.shape);
      for (TensorView& s : item.state) s = reshape(s, e->tensor.shape);
    } else if (!properties(device).asynchronous) {
      for (std::int64_t begin = 0; begin < n; begin += ops::kNormChunk)
        add_item(*e, begin, std::min(n, begin + ops::kNormChunk));
    } else if (n > 0 && !extend_last(*e)) {
      add_item(*e, 0, n);
    }
  }
}

void Optimizer::add_item(const OptimizerEntry& e, std::int64_t begin, std::int64_t end) {
  UpdateItem item{.tensor = &e.tensor,
                  .lr_factor = e.lr_factor,
                  .param = rows(e.param, begin, end),
                  .grad = rows(e.grad, begin, end),
                  .state = {}};
  for (const OptimizerState& s : e.state) item.state.push_back(rows(s.values, begin, end));
  items_.push_back(std::move(item));
}

// Makes the last item longer by the entry when it is its continuation in memory and is treated as
// it is.
bool Optimizer::extend_last(const OptimizerEntry& e) {
  if (items_.empty()) return false;
  UpdateItem& last = items_.back();
  if (rule_->cut(*last.tensor) == CutRule::whole || last.tensor->decay != e.tensor.decay ||
      last.lr_factor != e.lr_factor || rule_->states(*last.tensor) != rule_->states(e.tensor) ||
      !lies_behind(last.param, e.param) || !lies_behind(last.grad, e.grad))
    return false;
  for (std::size_t i = 0; i < e.state.size(); ++i)
    if (!lies_behind(last.state[i], e.state[i].values)) return false;
  const Shape both = {last.param.numel() + e.part.size()};
  last.param.shape = last.grad.shape = both;
  for (TensorView& s : last.state) s.shape = both;
  return true;
}

void Optimizer::set_updates(std::int64_t n) {
  GRIST_CHECK(n >= 0, "{} updates", n);
  updates_ = n;
}

OptimizerResult Optimizer::step(const Context& ctx, const OptimizerStep& s) {
  norm_->partials(ctx, partials_);
  return update(ctx, s, norm_of(ctx, partials_));
}

OptimizerResult Optimizer::update(const Context& ctx, const OptimizerStep& s, double grad_norm) {
  OptimizerResult r;
  r.grad_norm = grad_norm;
  r.applied = std::isfinite(r.grad_norm) && std::isfinite(s.loss);
  if (r.applied && clip_grad_ > 0) r.clip_factor = std::min(1.0, clip_grad_ / (r.grad_norm + 1e-6));
  const float control[2] = {static_cast<float>(r.clip_factor), r.applied ? 1.0F : 0.0F};
  copy_in(ctx, control_, control);
  rule_->apply(ctx, items_, {.lr = s.lr, .number = updates_ + 1, .control = control_});
  if (r.applied) ++updates_;
  return r;
}

}  // namespace grist
