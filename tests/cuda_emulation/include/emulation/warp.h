#pragma once
// Shuffles, votes, matches and reductions of a warp.
#include <cstring>
#include <type_traits>

#include "emulation/engine.h"

namespace grist::emu {

enum class Shuffle { index, up, down, exclusive_or };
// `bits` of the lane that `kind` and `argument` name within the segment of `width` lanes.
std::uint64_t shuffle(Shuffle kind, unsigned mask, std::uint64_t bits, int argument, int width,
                      Where where);
enum class Vote { all, any, ballot, match };
std::uint64_t vote(Vote kind, unsigned mask, std::uint64_t value, Where where);
enum class Reduce { add, min, max, min_signed, max_signed, bit_and, bit_or, bit_xor };
unsigned reduce(Reduce kind, unsigned mask, unsigned value, Where where);

template <class T>
T shuffle_value(Shuffle kind, unsigned mask, const T& value, int argument, int width, Where where) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>, "no shuffle of such a type");
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = shuffle(kind, mask, bits, argument, width, where);
  T out;
  std::memcpy(static_cast<void*>(&out), &bits, sizeof(T));
  return out;
}

}  // namespace grist::emu

template <class T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32,
              grist::emu::Where where = grist::emu::Where::here()) {
  return grist::emu::shuffle_value(grist::emu::Shuffle::index, mask, value, lane, width, where);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
                 grist::emu::Where where = grist::emu::Where::here()) {
  return grist::emu::shuffle_value(grist::emu::Shuffle::up, mask, value, static_cast<int>(delta),
                                   width, where);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                   grist::emu::Where where = grist::emu::Where::here()) {
  return grist::emu::shuffle_value(grist::emu::Shuffle::down, mask, value, static_cast<int>(delta),
                                   width, where);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32,
                  grist::emu::Where where = grist::emu::Where::here()) {
  return grist::emu::shuffle_value(grist::emu::Shuffle::exclusive_or, mask, value, lane_mask, width,
                                   where);
}

void __syncwarp(unsigned mask = 0xffffffffU, grist::emu::Where where = grist::emu::Where::here());

inline int __all_sync(unsigned mask, int predicate,
                      grist::emu::Where where = grist::emu::Where::here()) {
  return static_cast<int>(vote(grist::emu::Vote::all, mask, predicate != 0, where));
}
inline int __any_sync(unsigned mask, int predicate,
                      grist::emu::Where where = grist::emu::Where::here()) {
  return static_cast<int>(vote(grist::emu::Vote::any, mask, predicate != 0, where));
}
inline unsigned __ballot_sync(unsigned mask, int predicate,
                              grist::emu::Where where = grist::emu::Where::here()) {
  return static_cast<unsigned>(vote(grist::emu::Vote::ballot, mask, predicate != 0, where));
}
template <class T>
unsigned __match_any_sync(unsigned mask, T value,
                          grist::emu::Where where = grist::emu::Where::here()) {
  static_assert(sizeof(T) <= 8, "no match of such a type");
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  return static_cast<unsigned>(vote(grist::emu::Vote::match, mask, bits, where));
}
template <class T>
unsigned __match_all_sync(unsigned mask, T value, int* same,
                          grist::emu::Where where = grist::emu::Where::here()) {
  const bool all = __match_any_sync(mask, value, where) == mask;
  *same = __all_sync(mask, all, where);
  return *same != 0 ? mask : 0U;
}

// Of int and unsigned; the bits are the same for all but min and max.
inline unsigned __reduce_add_sync(unsigned mask, unsigned value,
                                  grist::emu::Where where = grist::emu::Where::here()) {
  return reduce(grist::emu::Reduce::add, mask, value, where);
}
inline int __reduce_add_sync(unsigned mask, int value,
                             grist::emu::Where where = grist::emu::Where::here()) {
  return static_cast<int>(
      reduce(grist::emu::Reduce::add, mask, static_cast<unsigned>(value), where));
}
inline unsigned __reduce_min_sync(unsigned mask, unsigned value,
                                  grist::emu::Where where = grist::emu::Where::here()) {
  return reduce(grist::emu::Reduce::min, mask, value, where);
}
inline int __reduce_min_sync(unsigned mask, int value,
                             grist::emu::Where where = grist::emu::Where::here()) {
  return static_cast<int>(
      reduce(grist::emu::Reduce::min_signed, mask, static_cast<unsigned>(value), where));
}
inline unsigned __reduce_max_sync(unsigned mask, unsigned value,
                                  grist::emu::Where where = grist::emu::Where::here()) {
  return reduce(grist::emu::Reduce::max, mask, value, where);
}
inline int __reduce_max_sync(unsigned mask, int value,
                             grist::emu::Where where = grist::emu::Where::here()) {
  return static_cast<int>(
      reduce(grist::emu::Reduce::max_signed, mask, static_cast<unsigned>(value), where));
}
inline unsigned __reduce_and_sync(unsigned mask, unsigned value,
                                  grist::emu::Where where = grist::emu::Where::here()) {
  return reduce(grist::emu::Reduce::bit_and, mask, value, where);
}
inline unsigned __reduce_or_sync(unsigned mask, unsigned value,
                                 grist::emu::Where where = grist::emu::Where::here()) {
  return reduce(grist::emu::Reduce::bit_or, mask, value, where);
}
inline unsigned __reduce_xor_sync(unsigned mask, unsigned value,
                                  grist::emu::Where where = grist::emu::Where::here()) {
  return reduce(grist::emu::Reduce::bit_xor, mask, value, where);
}
