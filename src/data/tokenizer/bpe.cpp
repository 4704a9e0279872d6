#include "bpe.h"

#include <algorithm>
#include <bit>
#include <functional>

namespace grist {

namespace {

// Up to here the quadratic loop over a few cache lines is faster than a heap.
constexpr std::size_t kShortPiece = 96;

}  // namespace

MergeTable::MergeTable(std::span<const Merge> merges) {
  const std::size_t slots = std::bit_ceil(std::max<std::size_t>(16, merges.size() * 2));
  slots_.resize(slots);
  mask_ = slots - 1;
  shift_ = 64U - static_cast<unsigned>(std::countr_zero(slots));
  for (std::size_t rank = 0; rank < merges.size(); ++rank) {
    const std::uint64_t key = key_of(merges[rank].left, merges[rank].right);
    std::size_t i = slot_of(key);
    while (slots_[i].key != kEmpty && slots_[i].key != key) i = (i + 1) & mask_;
    slots_[i] = {key, {static_cast<std::uint32_t>(rank), merges[rank].result}};
  }
}

void BpeScratch::merge(const MergeTable& table, const std::array<std::int32_t, 256>& byte_ids,
                       std::string_view piece, std::vector<std::int32_t>& out) {
  ids_.resize(piece.size());
  for (std::size_t i = 0; i < piece.size(); ++i)
    ids_[i] = byte_ids[static_cast<unsigned char>(piece[i])];
  hits_.resize(piece.size());
  for (std::size_t i = 0; i + 1 < piece.size(); ++i) hits_[i] = table.find(ids_[i], ids_[i + 1]);
  if (!hits_.empty()) hits_.back() = {};
  if (piece.size() <= kShortPiece)
    merge_short(table, out);
  else
    merge_long(table, out);
}

void BpeScratch::merge_short(const MergeTable& table, std::vector<std::int32_t>& out) {
  std::int32_t* ids = ids_.data();
  MergeTable::Hit* hits = hits_.data();
  std::size_t n = ids_.size();
  while (n > 1) {
    std::size_t best = 0;
    for (std::size_t i = 1; i + 1 < n; ++i)
      if (hits[i].rank < hits[best].rank) best = i;
    if (hits[best].rank == MergeTable::kNoRank) break;
    ids[best] = hits[best].result;
    for (std::size_t i = best + 1; i + 1 < n; ++i) {
      ids[i] = ids[i + 1];
      hits[i] = hits[i + 1];
    }
    --n;
    hits[best] = best + 1 < n ? table.find(ids[best], ids[best + 1]) : MergeTable::Hit{};
    if (best > 0) hits[best - 1] = table.find(ids[best - 1], ids[best]);
  }
  out.insert(out.end(), ids, ids + n);
}

// A linked list of tokens and a heap of candidate merges. An entry is stale when the pair at its
// position has another rank by now.
void BpeScratch::merge_long(const MergeTable& table, std::vector<std::int32_t>& out) {
  const auto n = static_cast<std::int32_t>(ids_.size());
  previous_.resize(ids_.size());
  next_.resize(ids_.size());
  heap_.clear();
  const auto entry = [this](std::int32_t i) {
    return (static_cast<std::uint64_t>(hits_[i].rank) << 32U) | static_cast<std::uint32_t>(i);
  };
  for (std::int32_t i = 0; i < n; ++i) {
    previous_[i] = i - 1;
    next_[i] = i + 1 < n ? i + 1 : -1;
    if (hits_[i].rank != MergeTable::kNoRank) heap_.push_back(entry(i));
  }
  std::make_heap(heap_.begin(), heap_.end(), std::greater<>{});
  const auto refresh = [&](std::int32_t i) {
    hits_[i] = next_[i] < 0 ? MergeTable::Hit{} : table.find(ids_[i], ids_[next_[i]]);
    if (hits_[i].rank == MergeTable::kNoRank) return;
    heap_.push_back(entry(i));
    std::push_heap(heap_.begin(), heap_.end(), std::greater<>{});
  };
  while (!heap_.empty()) {
    std::pop_heap(heap_.begin(), heap_.end(), std::greater<>{});
    const std::uint64_t top = heap_.back();
    heap_.pop_back();
    const auto at = static_cast<std::int32_t>(top & 0xFFFFFFFFU);
    if (hits_[at].rank != static_cast<std::uint32_t>(top >> 32U)) continue;
    const std::int32_t gone = next_[at];
    ids_[at] = hits_[at].result;
    next_[at] = next_[gone];
    if (next_[at] >= 0) previous_[next_[at]] = at;
    hits_[gone] = {};
    refresh(at);
    if (previous_[at] >= 0) refresh(previous_[at]);
  }
  for (std::int32_t i = 0; i >= 0; i = next_[i]) out.push_back(ids_[i]);
}

}  // namespace grist
