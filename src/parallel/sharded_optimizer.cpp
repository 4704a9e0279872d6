#include "grist/parallel/sharded_optimizer.h"

#include <algorithm>
#include <deque>

#include "global_norm.h"
#include "gradient_reducer.h"
#include "grist/comm/collectives.h"
#include "grist/core/check.h"
#include "grist/core/device.h"

namespace grist::parallel {

namespace {

TensorView slice(const TensorView& tensor, std::int64_t begin, std::int64_t end) {
  return rows(reshape(tensor, {tensor.numel()}), begin, end);
}

std::vector<ConstTensorView> gradients_of(const std::vector<ShardPiece>& pieces) {
  std::vector<ConstTensorView> gradients;
  gradients.reserve(pieces.size());
  for (const ShardPiece& p : pieces) gradients.emplace_back(p.grad);
  return gradients;
}

std::vector<OptimizerEntry> entries_of(const std::vector<ShardPiece>& pieces,
                                       const OptimConfig& config) {
  std::vector<OptimizerEntry> entries;
  for (const ShardPiece& p : pieces) {
    double factor = 1.0;
    if (p.tensor->kind == nn::ParameterKind::router) factor = config.router_lr_factor;
    if (p.tensor->kind == nn::ParameterKind::expert) factor = config.expert_lr_factor;
    entries.push_back({.name = p.tensor->name,
                       .param = p.param,
                       .m = p.m,
                       .v = p.v,
                       .grad = p.grad,
                       .decay = p.tensor->decay,
                       .lr_factor = factor,
                       .begin = p.begin});
  }
  return entries;
}

}  // namespace

struct ShardedOptimizer::Parts {
  Parts(ShardedOptimizer& o, const Config& config, MemoryLedger* ledger)
      : reducer(o.parameters_, o.groups_, o.plan_, config.parallel, o.ctx_, ledger),
        norm(o.plan_, o.groups_.world.host(), gradients_of(o.saves_), o.ctx_.device, ledger),
        optimizer(config.optim, entries_of(o.holds(), config.optim), ledger, o.ctx_.device) {}
  GradientReducer reducer;
  GlobalNorm norm;
  Optimizer optimizer;
};

ShardedOptimizer::ShardedOptimizer(nn::Parameters& parameters, const Layout& layout, Groups& groups,
                                   const Config& config, const Context& ctx, MemoryLedger* ledger)
    : parameters_(parameters),
      groups_(groups),
      ctx_(ctx),
      stage_(config.parallel.zero_stage),
      plan_(parameters, layout, config.parallel.ddp_bucket_size),
      moments_("optimizer state (fp32)", ctx.device, ledger) {
  allocate_moments();
  parts_ = std::make_unique<Parts>(*this, config, ledger);
}

ShardedOptimizer::~ShardedOptimizer() = default;

// All m, then all v, each in the order in which the pieces lie in the parameter arena, so that
// pieces that are neighbours there are neighbours here.
void ShardedOptimizer::allocate_moments() {
  const auto describe = [&](const TensorPiece& p) {
    const nn::NamedTensor& t = parameters_.tensors()[p.tensor];
    return ShardPiece{.tensor = &t,
                      .begin = p.begin,
                      .end = p.end,
                      .param = slice(t.master, p.begin, p.end),
                      .grad = slice(t.grad, p.begin, p.end),
                      .m = {},
                      .v = {}};
  };
  for (const TensorPiece& p : plan_.pieces()) saves_.push_back(describe(p));
  if (stage_ == 0)
    for (std::size_t t = 0; t < parameters_.tensors().size(); ++t)
      whole_.push_back(describe({t, 0, parameters_.tensors()[t].shape.numel()}));
  std::vector<ShardPiece>& held = stage_ == 0 ? whole_ : saves_;
  std::vector<ShardPiece*> by_place;
  for (ShardPiece& p : held) by_place.push_back(&p);
  std::sort(by_place.begin(), by_place.end(), [](const ShardPiece* a, const ShardPiece* b) {
    return a->tensor->offset + a->begin < b->tensor->offset + b->begin;
  });
  std::vector<std::size_t> offsets;
  for (int moment = 0; moment < 2; ++moment)
    for (const ShardPiece* p : by_place)
      offsets.push_back(moments_.reserve(DType::f32, {p->end - p->begin}));
  moments_.commit();
  for (std::size_t i = 0; i < by_place.size(); ++i) {
    ShardPiece& p = *by_place[i];
    const Shape n = {p.end - p.begin};
    p.m = moments_.view(offsets[i], DType::f32, n);
    p.v = moments_.view(offsets[by_place.size() + i], DType::f32, n);
  }
  clear_moments();
  if (stage_ != 0) return;
  for (ShardPiece& p : saves_) {
    const auto index = static_cast<std::size_t>(p.tensor - parameters_.tensors().data());
    p.m = slice(whole_[index].m, p.begin, p.end);
    p.v = slice(whole_[index].v, p.begin, p.end);
  }
}

void ShardedOptimizer::clear_moments() {
  if (ctx_.device == Device::cpu) return;  // zero already
  const Buffer& all = moments_.buffer();
  if (all.size() > 0) cuda_device().clear(ctx_.stream, all.data(), all.size());
}

int ShardedOptimizer::lanes() const {
  return static_cast<int>(parts_->reducer.lanes());
}

void ShardedOptimizer::begin_step() {
  parts_->reducer.begin_step();
}

void ShardedOptimizer::lane_done() {
  parts_->reducer.lane_done();
}

void ShardedOptimizer::ready(std::size_t group) {
  parts_->reducer.ready(group);
}

std::int64_t ShardedOptimizer::adam_steps() const {
  return parts_->optimizer.adam_steps();
}

void ShardedOptimizer::set_adam_steps(std::int64_t n) {
  parts_->optimizer.set_adam_steps(n);
}

OptimizerResult ShardedOptimizer::step(double lr, double loss) {
  parts_->reducer.finish();
  const GlobalNorm::Result found = parts_->norm.find(ctx_, loss);
  if (stage_ == 0) gather(Values::gradients);
  const OptimizerResult result =
      parts_->optimizer.update(ctx_, {.lr = lr, .loss = found.loss}, found.norm);
  if (stage_ != 0 && result.applied) gather(Values::masters);
  return result;
}

// All parts of all buckets, in place. A large model has dozens of buckets, and each is a message
// to and from every rank: a few are on their way at a time.
void ShardedOptimizer::gather(Values what) {
  constexpr std::size_t kOnTheirWay = 8;
  const auto elements = [&](const nn::ArenaRange& range) {
    return what == Values::masters ? parameters_.master_elements(range)
                                   : parameters_.grad_elements(range);
  };
  std::deque<comm::Pending> arriving;
  const auto start = [&](comm::Communicator& c, const nn::ArenaRange& range,
                         const std::vector<std::int64_t>& cuts) {
    if (c.size() == 1) return;
    if (arriving.size() == kOnTheirWay) {
      arriving.front().wait();
      arriving.pop_front();
    }
    arriving.push_back(comm::all_gather(c, elements(range), cuts));
  };
  for (const Bucket& b : plan_.buckets()) {
    start(groups_.world.tensors(), b.dense, b.dense_cuts);
    start(groups_.expert_data_parallel.tensors(), b.experts, b.expert_cuts);
  }
  for (comm::Pending& p : arriving) p.wait();
}

}  // namespace grist::parallel
