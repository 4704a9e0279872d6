#pragma once
// How often a test repeats what chance decides.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <iterator>
#include <vector>

namespace grist::test {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

// How far a loop over every operation, file or layout goes on each time. What a sanitizer finds in
// one of them it finds in its neighbours, and the plain build visits all.
inline constexpr int kStride = kSanitized ? 8 : 1;

// All of a list on a plain build, under sanitizers the first `sanitized` of it.
template <class T> std::vector<T> few(std::vector<T> all, std::ptrdiff_t sanitized) {
  if (kSanitized && std::ssize(all) > sanitized) all.erase(all.begin() + sanitized, all.end());
  return all;
}

// `count` on a plain build; less where everything is slower, more with GRIST_TEST_SCALE=4.
inline int scaled(int count) {
  const char* text = std::getenv("GRIST_TEST_SCALE");
  const double scale = text != nullptr ? std::atof(text) : kSanitized ? 0.125 : 1.0;
  return std::max(kSanitized ? 1 : 2, static_cast<int>(count * scale));
}

// Says on standard output what was done, for scripts/soak.sh to add up.
inline void tally(std::int64_t count, const char* what) {
  std::cout << "tally: " << count << ' ' << what << std::endl;
}

}  // namespace grist::test
