#include "global_norm.h"

#include <algorithm>
#include <cmath>
#include <tuple>

#include "grist/comm/collectives.h"
#include "grist/core/check.h"
#include "grist/core/device.h"
#include "grist/ops/optimizer.h"

namespace grist::parallel {

GlobalNorm::GlobalNorm(const ShardPlan& plan, comm::Communicator& world,
                       const std::vector<ConstTensorView>& gradients, Device device,
                       MemoryLedger* ledger)
    : world_(world),
      norm_(gradients),
      arena_("gradient norm", Device::cpu, ledger),
      device_arena_("gradient norm", device, ledger) {
  struct Slice {
    SlicePlan what;
    std::int64_t at;  // of its first partial sum
  };
  std::vector<Slice> slices;
  std::int64_t next = 0;
  for (std::int64_t rank = 0; rank < world.size(); ++rank) {
    offsets_.push_back(next);
    for (SlicePlan& s : plan.slices_of(rank)) {
      const std::int64_t chunks = (s.end - s.begin + ops::kNormChunk - 1) / ops::kNormChunk;
      slices.push_back({std::move(s), next});
      next += chunks;
    }
    ++next;  // its loss
  }
  offsets_.push_back(next);
  const auto self = static_cast<std::size_t>(world.rank());
  GRIST_CHECK(offsets_[self + 1] - offsets_[self] == norm_.num_partials() + 1,
              "{} chunks in the plan, {} here", offsets_[self + 1] - offsets_[self] - 1,
              norm_.num_partials());
  std::sort(slices.begin(), slices.end(), [](const Slice& a, const Slice& b) {
    return std::tie(a.what.name, a.what.begin) < std::tie(b.what.name, b.what.begin);
  });
  for (const Slice& s : slices)
    for (std::int64_t i = 0; i * ops::kNormChunk < s.what.end - s.what.begin; ++i)
      in_name_order_.push_back(static_cast<std::size_t>(s.at + i));
  const Shape all = {next}, chunks = {static_cast<std::int64_t>(in_name_order_.size())};
  const std::size_t gathered = arena_.reserve(DType::f64, all);
  const std::size_t partials = arena_.reserve(DType::f64, chunks);
  arena_.commit();
  gathered_ = arena_.view(gathered, DType::f64, all);
  partials_ = arena_.view(partials, DType::f64, chunks);
  own_ = rows(gathered_, offsets_[self], offsets_[self + 1] - 1);
  if (properties(device).reads_host_memory) return;
  const std::size_t at = device_arena_.reserve(DType::f64, own_.shape);
  device_arena_.commit();
  own_ = device_arena_.view(at, DType::f64, own_.shape);
}

GlobalNorm::Result GlobalNorm::find(const Context& ctx, double loss) {
  const auto self = static_cast<std::size_t>(world_.rank());
  const std::int64_t begin = offsets_[self], end = offsets_[self + 1];
  norm_.partials(ctx, own_);
  const TensorView place = rows(gathered_, begin, end - 1);
  if (own_.data != place.data) copy_out(ctx, place.data, own_);
  auto* gathered = gathered_.as<double>();
  gathered[end - 1] = loss;
  if (world_.size() > 1) comm::all_gather(world_, gathered_, offsets_).wait();
  auto* partials = partials_.as<double>();
  for (std::size_t i = 0; i < in_name_order_.size(); ++i) partials[i] = gathered[in_name_order_[i]];
  Result result{norm_of({}, partials_), loss};
  for (std::size_t rank = 0; rank + 1 < offsets_.size(); ++rank) {
    const double theirs = gathered[offsets_[rank + 1] - 1];
    if (!std::isfinite(theirs)) result.loss = theirs;
  }
  return result;
}

}  // namespace grist::parallel
