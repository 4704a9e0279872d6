#pragma once
// piece -> ids for short pieces: most words of a text have been seen before. Fixed size, two
// entries a cache line; a new piece takes the first place and pushes the second out.
#include <array>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

namespace grist {

class PieceCache {
 public:
  static constexpr std::size_t kMaxPiece = 15;  // bytes
  static constexpr std::size_t kMaxIds = 3;     // held in place; longer answers live in a pool

  struct Key {
    std::uint64_t low = 0, high = 0;  // bytes, zero-filled; the length in the top byte
    bool operator==(const Key&) const = default;
  };
  struct Entry {
    Key key;
    std::int32_t ids[kMaxIds] = {};  // or ids[0] an offset in the pool
    std::uint32_t count = 0;
  };

  PieceCache() : entries_(kLines * 2) {}

  // `end` is the end of the memory that the piece lies in.
  static Key key_of(const char* p, std::size_t size, const char* end) {
    Key k;
    if (end - p >= 16) [[likely]] {
      std::memcpy(&k.low, p, 8);
      std::memcpy(&k.high, p + 8, 8);
      if (size < 8) {
        k.low &= (1ULL << (size * 8)) - 1;
        k.high = 0;
      } else {
        k.high &= (1ULL << ((size - 8) * 8)) - 1;
      }
    } else {
      std::array<char, 16> bytes{};
      std::memcpy(bytes.data(), p, size);
      std::memcpy(&k.low, bytes.data(), 8);
      std::memcpy(&k.high, bytes.data() + 8, 8);
    }
    k.high |= static_cast<std::uint64_t>(size) << 56U;
    return k;
  }

  // Appends the ids and returns true if the piece is known.
  bool lookup(const Key& key, std::vector<std::int32_t>& out) const {
    const Entry* line = entries_.data() + line_of(key);
    const Entry* e = line[0].key == key ? line : line[1].key == key ? line + 1 : nullptr;
    if (e == nullptr) return false;
    if (e->count == 1) [[likely]] {
      out.push_back(e->ids[0]);
    } else {
      const std::int32_t* ids = e->count <= kMaxIds ? e->ids : pool_.data() + e->ids[0];
      out.insert(out.end(), ids, ids + e->count);
    }
    return true;
  }

  void insert(const Key& key, std::span<const std::int32_t> ids) {
    Entry e{.key = key, .count = static_cast<std::uint32_t>(ids.size())};
    if (ids.size() <= kMaxIds) {
      for (std::size_t i = 0; i < ids.size(); ++i) e.ids[i] = ids[i];
    } else {
      if (pool_.size() + ids.size() > kPoolIds) {  // forget everything rather than grow
        pool_.clear();
        entries_.assign(entries_.size(), Entry{});
      }
      e.ids[0] = static_cast<std::int32_t>(pool_.size());
      pool_.insert(pool_.end(), ids.begin(), ids.end());
    }
    Entry* line = entries_.data() + line_of(key);
    line[1] = line[0];
    line[0] = e;
  }

 private:
  static constexpr std::size_t kLineBits = 16;
  static constexpr std::size_t kLines = 1U << kLineBits;
  static constexpr std::size_t kPoolIds = 256U << 10U;

  static std::size_t line_of(const Key& key) {
    const std::uint64_t h = (key.low ^ (key.high * 0xC2B2AE3D27D4EB4FULL)) * 0x9E3779B97F4A7C15ULL;
    return static_cast<std::size_t>((h ^ (h << 29U)) >> (64U - kLineBits)) * 2;
  }

  std::vector<Entry> entries_;  // an empty key has length 0: no piece's
  std::vector<std::int32_t> pool_;
};

}  // namespace grist
