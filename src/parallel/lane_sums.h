#pragma once
// Sums of gradients over the lanes of one rank: a balanced binary tree, adjacent lanes first, made
// as lanes come (a binary counter), so that log2(lanes) copies of the gradients are enough. With
// the tree over ranks on top (ranks have consecutive lanes) the whole is the tree over all lanes,
// whatever the number of ranks.
#include <cstdint>
#include <vector>

#include "grist/core/memory.h"
#include "grist/nn/parameters.h"

namespace grist::parallel {

class LaneSums {
 public:
  // lanes: a power of two; 1 takes no memory, and every call returns at once. All must outlive
  // this.
  LaneSums(const nn::Parameters& parameters, std::int64_t lanes, const Context& ctx,
           MemoryLedger* ledger);
  std::int64_t lanes() const { return lanes_; }
  void begin_step();
  // The gradients are those of one more lane, not the last: keeps them, alone or added to others.
  void keep();
  // The gradients are those of the last lane: the other lanes' are added to these ranges. Expert
  // gradients by source (Parameters::expert_grad_sources) stay apart.
  void add_to(const nn::ArenaRange& dense, const nn::ArenaRange& experts) const;

 private:
  // sums_[k], elements from `begin` on, as a flat view of the length of `like`.
  TensorView part(std::size_t k, std::int64_t begin, const TensorView& like) const;
  // Range of `gradients` that starts at `begin` of a copy: into sums_.
  void keep_range(const TensorView& gradients, std::int64_t begin) const;
  void add_to_range(const TensorView& gradients, std::int64_t begin) const;

  const nn::Parameters& parameters_;
  std::int64_t lanes_;
  const Context& ctx_;
  Arena arena_;
  std::vector<TensorView> sums_;  // log2(lanes) of (n) f32: dense, then experts by source
  std::size_t depth_ = 0;         // of sums_ in use: subtrees, the largest first
  std::int64_t kept_ = 0;         // lanes so far
};

}  // namespace grist::parallel
