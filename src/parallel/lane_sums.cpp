#include "lane_sums.h"

#include <algorithm>
#include <bit>

#include "grist/core/check.h"
#include "grist/core/device.h"
#include "grist/ops/optimizer.h"

namespace grist::parallel {

namespace {

constexpr std::int64_t kTask =
    std::int64_t{32} * 1024;  // elements whose sums are all made while they are cached

void for_ranges(const Context& ctx, std::int64_t n,
                const std::function<void(std::int64_t, std::int64_t)>& body) {
  const std::int64_t length = properties(ctx.device).asynchronous ? n : kTask;
  parallel_for(ctx, n == 0 ? 0 : (n + length - 1) / length, [&](std::int64_t task, int /*worker*/) {
    body(task * length, std::min(n, (task + 1) * length));
  });
}

}  // namespace

LaneSums::LaneSums(const nn::Parameters& parameters, std::int64_t lanes, const Context& ctx,
                   MemoryLedger* ledger)
    : parameters_(parameters), lanes_(lanes), ctx_(ctx), arena_("lane sums", ctx.device, ledger) {
  GRIST_CHECK(lanes >= 1 && std::has_single_bit(static_cast<std::uint64_t>(lanes)), "{} lanes",
              lanes);
  const Shape all = {parameters.dense_range().size() +
                     parameters.expert_range().size() * parameters.part().gradient_sources};
  std::vector<std::size_t> offsets;
  for (std::int64_t n = lanes; n > 1; n /= 2) offsets.push_back(arena_.reserve(DType::f32, all));
  arena_.commit();
  for (const std::size_t at : offsets) sums_.push_back(arena_.view(at, DType::f32, all));
}

void LaneSums::begin_step() {
  depth_ = 0;
  kept_ = 0;
}

TensorView LaneSums::part(std::size_t k, std::int64_t begin, const TensorView& like) const {
  return rows(sums_[k], begin, begin + like.numel());
}

// Lane number i (from 0) completes as many subtrees as i has ones at its end.
void LaneSums::keep_range(const TensorView& gradients, std::int64_t begin) const {
  const int merges = std::countr_one(static_cast<std::uint64_t>(kept_));
  for_ranges(ctx_, gradients.numel(), [&](std::int64_t from, std::int64_t to) {
    const auto sum = [&](std::size_t k) { return rows(part(k, begin, gradients), from, to); };
    const TensorView lane = rows(gradients, from, to);
    if (merges == 0) {  // the tree of one
      ops::tree_add(ctx_, {.sum = sum(depth_), .parts = reshape(lane, {1, to - from})});
      return;
    }
    ops::add(ctx_, {.y = sum(depth_ - 1), .x = lane});
    for (std::size_t k = depth_ - 1; k > depth_ - static_cast<std::size_t>(merges); --k)
      ops::add(ctx_, {.y = sum(k - 1), .x = sum(k)});
  });
}

void LaneSums::keep() {
  GRIST_CHECK(kept_ + 1 < lanes_, "lane {} of {} is the last", kept_ + 1, lanes_);
  keep_range(parameters_.grad_elements(parameters_.dense_range()), 0);
  keep_range(parameters_.expert_grad_sources(parameters_.expert_range()),
             parameters_.dense_range().size());
  depth_ =
      depth_ + 1 - static_cast<std::size_t>(std::countr_one(static_cast<std::uint64_t>(kept_)));
  ++kept_;
}

void LaneSums::add_to_range(const TensorView& gradients, std::int64_t begin) const {
  for_ranges(ctx_, gradients.numel(), [&](std::int64_t from, std::int64_t to) {
    for (std::size_t k = depth_; k-- > 0;)
      ops::add(ctx_,
               {.y = rows(gradients, from, to), .x = rows(part(k, begin, gradients), from, to)});
  });
}

void LaneSums::add_to(const nn::ArenaRange& dense, const nn::ArenaRange& experts) const {
  GRIST_CHECK(kept_ + 1 == lanes_, "{} lanes of {} before the last one", kept_, lanes_);
  if (lanes_ == 1) return;
  const std::int64_t before = parameters_.dense_range().size();
  add_to_range(parameters_.grad_elements(dense), dense.begin);
  add_to_range(parameters_.expert_grad_sources(experts),
               before + (experts.begin - before) * parameters_.part().gradient_sources);
}

}  // namespace grist::parallel
