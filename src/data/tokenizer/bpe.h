#pragma once
// Byte-pair merging of one piece: the pair with the lowest rank first, the leftmost of equals.
#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace grist {

struct Merge {
  std::int32_t left = 0, right = 0, result = 0;
  bool operator==(const Merge&) const = default;
};

// A pair of ids as one number; of ids that are not negative, in the order of the pairs.
inline std::uint64_t key_of(std::int32_t left, std::int32_t right) {
  return (static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32U) |
         static_cast<std::uint32_t>(right);
}

// (left, right) -> rank and result. Open addressing, at most half full.
class MergeTable {
 public:
  static constexpr std::uint32_t kNoRank = 0xFFFFFFFFU;
  struct Hit {
    std::uint32_t rank = kNoRank;
    std::int32_t result = 0;
  };

  MergeTable() : MergeTable(std::span<const Merge>{}) {}
  // A merge's rank is its index; of equal pairs the last one counts.
  explicit MergeTable(std::span<const Merge> merges);
  Hit find(std::int32_t left, std::int32_t right) const {
    const std::uint64_t key = key_of(left, right);
    for (std::size_t i = slot_of(key);; i = (i + 1) & mask_) {
      const Slot& s = slots_[i];
      if (s.key == key) return s.hit;
      if (s.key == kEmpty) return {};
    }
  }

 private:
  static constexpr std::uint64_t kEmpty = ~0ULL;  // ids are not negative, so no pair's key
  struct Slot {
    std::uint64_t key = kEmpty;
    Hit hit;
  };
  std::size_t slot_of(std::uint64_t key) const {
    return static_cast<std::size_t>((key * 0x9E3779B97F4A7C15ULL) >> shift_);
  }
  std::vector<Slot> slots_;
  std::size_t mask_ = 0;
  unsigned shift_ = 0;
};

// Working memory of one thread.
class BpeScratch {
 public:
  // Appends the ids of `piece` to `out`. Long pieces take n log n.
  void merge(const MergeTable& table, const std::array<std::int32_t, 256>& byte_ids,
             std::string_view piece, std::vector<std::int32_t>& out);

 private:
  void merge_short(const MergeTable& table, std::vector<std::int32_t>& out);
  void merge_long(const MergeTable& table, std::vector<std::int32_t>& out);
  std::vector<std::int32_t> ids_;
  std::vector<MergeTable::Hit> hits_;  // of the pair that begins here
  std::vector<std::int32_t> previous_, next_;
  std::vector<std::uint64_t> heap_;  // rank << 32 | position
};

}  // namespace grist
