#include "grist/parallel/shard_plan.h"

#include <algorithm>
#include <numeric>
#include <tuple>

#include "grist/core/check.h"
#include "grist/ops/optimizer.h"

namespace grist::parallel {

namespace {

const std::string kExperts = ".experts.";

// The name of the expert tensor that lies where `name` does, `shift` experts on.
std::string shifted_expert(const std::string& name, std::int64_t shift) {
  const std::size_t at = name.find(kExperts);
  GRIST_CHECK(at != std::string::npos, "{} names no expert", name);
  const std::size_t begin = at + kExperts.size(), end = name.find('.', begin);
  const std::int64_t expert = std::stoll(name.substr(begin, end - begin)) + shift;
  return name.substr(0, begin) + std::to_string(expert) + name.substr(end);
}

// Consecutive groups that have `bucket_size` elements together.
std::vector<Bucket> make_buckets(const std::vector<nn::ParameterGroup>& groups,
                                 std::int64_t bucket_size) {
  std::vector<Bucket> buckets;
  bool open = false;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    if (!open) {
      buckets.emplace_back();
      buckets.back().dense.end = groups[g].dense.end;
      buckets.back().experts.end = groups[g].experts.end;
    }
    Bucket& b = buckets.back();
    b.last_group = g;
    b.dense.begin = groups[g].dense.begin;  // ranges descend
    b.experts.begin = groups[g].experts.begin;
    open = b.dense.size() + b.experts.size() < bucket_size;
  }
  return buckets;
}

// Cuts `size` elements into a part for each rank, at the edges nearest to where the ranks' totals
// (`loads`, of the buckets before; brought up to date) would be equal. edges: ascending, from 0 to
// size.
std::vector<std::int64_t> balanced_cuts(const std::vector<std::int64_t>& edges, std::int64_t size,
                                        std::vector<std::int64_t>& loads) {
  const std::int64_t total = std::accumulate(loads.begin(), loads.end(), size);
  const double share = static_cast<double>(total) / static_cast<double>(loads.size());
  std::vector<double> wanted;
  wanted.reserve(loads.size());
  for (const std::int64_t load : loads)
    wanted.push_back(std::max(0.0, share - static_cast<double>(load)));
  const double all = std::accumulate(wanted.begin(), wanted.end(), 0.0);
  std::vector<std::int64_t> cuts = {0};
  double sum = 0;
  for (std::size_t rank = 0; rank < loads.size(); ++rank) {
    sum += wanted[rank];
    std::int64_t cut = size;
    if (size > 0 && rank + 1 < loads.size()) {
      const auto target = static_cast<std::int64_t>(static_cast<double>(size) * (sum / all));
      const auto above = std::lower_bound(edges.begin(), edges.end() - 1, target);
      const auto below = above == edges.begin() ? above : above - 1;
      cut = target - *below <= *above - target ? *below : *above;
    }
    loads[rank] += cut - cuts.back();
    cuts.push_back(cut);
  }
  return cuts;
}

}  // namespace

OptimizedTensor described(const nn::NamedTensor& t) {
  return {.name = t.name, .shape = t.shape, .decay = t.decay};
}

ShardPlan::ShardPlan(const nn::Parameters& parameters, const Layout& layout,
                     std::int64_t bucket_size, const UpdateRule& rule)
    : parameters_(parameters),
      layout_(layout),
      by_offset_(parameters.tensors().size()),
      buckets_(make_buckets(parameters.groups(), bucket_size)) {
  const std::vector<nn::NamedTensor>& tensors = parameters_.tensors();
  std::iota(by_offset_.begin(), by_offset_.end(), std::size_t{0});
  std::sort(by_offset_.begin(), by_offset_.end(),
            [&](std::size_t a, std::size_t b) { return tensors[a].offset < tensors[b].offset; });
  std::vector<std::int64_t> dense_loads(static_cast<std::size_t>(layout.world()));
  std::vector<std::int64_t> expert_loads(static_cast<std::size_t>(layout.expert_data_parallel()));
  const auto cuts = [&](const nn::ArenaRange& range, std::vector<std::int64_t>& loads) {
    std::vector<std::int64_t> edges;
    for (const TensorPiece& p : pieces_in(range)) {
      const nn::NamedTensor& t = tensors[p.tensor];
      const bool whole = rule.cut(described(t)) == CutRule::whole;
      for (std::int64_t at = 0; at < p.end; at += whole ? p.end : ops::kNormChunk)
        edges.push_back(t.offset + at - range.begin);
    }
    edges.push_back(range.size());
    return balanced_cuts(edges, range.size(), loads);
  };
  for (Bucket& b : buckets_) {
    b.dense_cuts = cuts(b.dense, dense_loads);
    b.expert_cuts = cuts(b.experts, expert_loads);
  }
}

// In order of the arena.
std::vector<TensorPiece> ShardPlan::pieces_in(const nn::ArenaRange& range) const {
  const std::vector<nn::NamedTensor>& tensors = parameters_.tensors();
  auto next = std::partition_point(by_offset_.begin(), by_offset_.end(), [&](std::size_t t) {
    return tensors[t].offset + tensors[t].shape.numel() <= range.begin;
  });
  std::vector<TensorPiece> pieces;
  for (; next != by_offset_.end() && tensors[*next].offset < range.end; ++next) {
    const nn::NamedTensor& t = tensors[*next];
    pieces.push_back({*next, std::max<std::int64_t>(0, range.begin - t.offset),
                      std::min(t.shape.numel(), range.end - t.offset)});
  }
  return pieces;
}

std::vector<TensorPiece> ShardPlan::pieces_of(const Layout& layout) const {
  std::vector<TensorPiece> pieces;
  const auto add = [&](const nn::ArenaRange& range, const std::vector<std::int64_t>& cuts,
                       std::int64_t part) {
    const auto p = static_cast<std::size_t>(part);
    const nn::ArenaRange own = {range.begin + cuts[p], range.begin + cuts[p + 1]};
    if (own.size() == 0) return;
    const std::vector<TensorPiece> found = pieces_in(own);
    pieces.insert(pieces.end(), found.begin(), found.end());
  };
  for (const Bucket& b : buckets_) {
    add(b.dense, b.dense_cuts, layout.rank());
    add(b.experts, b.expert_cuts, layout.expert_data_parallel_index());
  }
  std::sort(pieces.begin(), pieces.end(), [](const TensorPiece& a, const TensorPiece& b) {
    return std::tie(a.tensor, a.begin) < std::tie(b.tensor, b.begin);  // tensors are in name order
  });
  return pieces;
}

std::vector<TensorPiece> ShardPlan::pieces() const {
  return pieces_of(layout_);
}

// Every rank's experts lie in its arena as ours do, under names that differ in the expert's number.
std::vector<SlicePlan> ShardPlan::slices_of(std::int64_t rank) const {
  const Layout theirs = layout_.of_rank(rank);
  const std::int64_t shift = parameters_.part().num_experts *
                             (theirs.expert_parallel_index() - layout_.expert_parallel_index());
  std::vector<SlicePlan> slices;
  for (const TensorPiece& p : pieces_of(theirs)) {
    const nn::NamedTensor& t = parameters_.tensors()[p.tensor];
    const bool expert = t.kind == nn::ParameterKind::expert;
    slices.push_back({expert ? shifted_expert(t.name, shift) : t.name, t.shape, p.begin, p.end});
  }
  std::sort(slices.begin(), slices.end(), [](const SlicePlan& a, const SlicePlan& b) {
    return std::tie(a.name, a.begin) < std::tie(b.name, b.begin);
  });
  return slices;
}

}  // namespace grist::parallel
