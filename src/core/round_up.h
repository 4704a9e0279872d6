#pragma once
// Sizes in whole units.
#include <cstddef>

namespace grist {

constexpr std::size_t round_up(std::size_t n, std::size_t to) {
  return (n + to - 1) / to * to;
}

}  // namespace grist
