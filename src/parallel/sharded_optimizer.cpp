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
    entries.push_back({.tensor = described(*p.tensor),
                       .part = p.part,
                       .param = p.param,
                       .grad = p.grad,
                       .state = p.state,
                       .lr_factor = factor});
  }
  return entries;
}

}  // namespace

struct ShardedOptimizer::Parts {
  Parts(ShardedOptimizer& o, const Config& config, MemoryLedger* ledger)
      : reducer(o.parameters_, o.groups_, o.plan_, config.parallel, o.ctx_, ledger),
        norm(o.plan_, o.groups_.world.host(), gradients_of(o.saves_), o.ctx_.device, ledger),
        optimizer(o.rule_, config.optim.clip_grad, entries_of(o.holds(), config.optim),
                  {.device = o.ctx_.device, .ledger = ledger}) {}
  GradientReducer reducer;
  GlobalNorm norm;
  Optimizer optimizer;
};

ShardedOptimizer::ShardedOptimizer(nn::Parameters& parameters, const Layout& layout, Groups& groups,
                                   const Config& config, const Context& ctx, const Options& options)
    : parameters_(parameters),
      groups_(groups),
      ctx_(ctx),
      stage_(config.parallel.zero_stage),
      rule_(options.rule ? options.rule : make_update_rule(config.optim)),
      plan_(parameters, layout, config.parallel.ddp_bucket_size, *rule_),
      state_("optimizer state (fp32)", ctx.device, options.ledger) {
  allocate_state();
  if (options.ledger == nullptr || !options.ledger->planning()) clear_state();
  parts_ = std::make_unique<Parts>(*this, config, options.ledger);
}

ShardedOptimizer::~ShardedOptimizer() = default;

ShardPiece ShardedOptimizer::describe(const TensorPiece& p) const {
  const nn::NamedTensor& t = parameters_.tensors()[p.tensor];
  ShardPiece piece{.tensor = &t,
                   .part = {.begin = p.begin, .end = p.end},
                   .param = slice(t.master, p.begin, p.end),
                   .grad = slice(t.grad, p.begin, p.end),
                   .state = {}};
  for (std::string& name : rule_->states(described(t)))
    piece.state.push_back({.name = std::move(name), .values = {}});
  return piece;
}

// All pieces' first states, then all second ones, each in the order in which the pieces lie in the
// parameter arena, so that pieces that are neighbours there are neighbours here.
void ShardedOptimizer::allocate_state() {
  for (const TensorPiece& p : plan_.pieces()) saves_.push_back(describe(p));
  if (stage_ == 0)
    for (std::size_t t = 0; t < parameters_.tensors().size(); ++t)
      whole_.push_back(describe({t, 0, parameters_.tensors()[t].shape.numel()}));
  std::vector<ShardPiece>& held = stage_ == 0 ? whole_ : saves_;
  std::vector<ShardPiece*> by_place;
  std::size_t most = 0;
  for (ShardPiece& p : held) {
    by_place.push_back(&p);
    most = std::max(most, p.state.size());
  }
  std::sort(by_place.begin(), by_place.end(), [](const ShardPiece* a, const ShardPiece* b) {
    return a->tensor->offset + a->part.begin < b->tensor->offset + b->part.begin;
  });
  std::vector<std::pair<TensorView*, std::size_t>> places;
  for (std::size_t number = 0; number < most; ++number)
    for (ShardPiece* p : by_place) {
      if (number >= p->state.size()) continue;
      TensorView& values = p->state[number].values;
      values.shape = {p->part.size()};
      places.emplace_back(&values, state_.reserve(DType::f32, values.shape));
    }
  state_.commit();
  for (const auto& [values, offset] : places)
    *values = state_.view(offset, DType::f32, values->shape);
  if (stage_ != 0) return;
  for (ShardPiece& p : saves_) {
    const ShardPiece& all =
        whole_[static_cast<std::size_t>(p.tensor - parameters_.tensors().data())];
    for (std::size_t i = 0; i < p.state.size(); ++i)
      p.state[i].values = slice(all.state[i].values, p.part.begin, p.part.end);
  }
}

void ShardedOptimizer::clear_state() {
  if (properties(ctx_.device).reads_host_memory) return;  // it came cleared
  const Buffer& all = state_.buffer();
  if (all.size() > 0) runtime(ctx_.device).clear(ctx_.stream, all.data(), all.size());
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

std::int64_t ShardedOptimizer::updates() const {
  return parts_->optimizer.updates();
}

void ShardedOptimizer::set_updates(std::int64_t n) {
  parts_->optimizer.set_updates(n);
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
