#pragma once
// What a single configuration value may be, whatever the others are; written beside each field of
// config.h. A field without its rule does not compile.
#include <array>
#include <cstddef>
#include <optional>
#include <string_view>

namespace grist {

// GRIST_WORDS(Resume, auto_, required, never) makes the enum class, and its words for whoever reads
// and prints it: one list, so that no value is without a word. A trailing underscore, where C++
// keeps the word for itself, is not part of it. Use values in a switch without default: the
// compiler then names every branch that a new word needs.
#define GRIST_WORDS(Name, ...)                          \
  enum class Name : int { __VA_ARGS__ };                \
  constexpr std::string_view words_of(Name /*which*/) { \
    return #__VA_ARGS__;                                \
  }

// Word `index` of such a list; empty: there are fewer.
constexpr std::string_view nth_word(std::string_view words, int index) {
  for (; index > 0; --index) {
    const std::size_t comma = words.find(", ");
    if (comma == std::string_view::npos) return {};
    words.remove_prefix(comma + 2);
  }
  words = words.substr(0, words.find(", "));
  if (words.ends_with('_')) words.remove_suffix(1);
  return words;
}

template <class E> constexpr std::string_view word(E value) {
  return nth_word(words_of(value), static_cast<int>(value));
}

template <class E> constexpr std::optional<E> from_word(std::string_view text) {
  for (int i = 0; !nth_word(words_of(E{}), i).empty(); ++i)
    if (nth_word(words_of(E{}), i) == text) return static_cast<E>(i);
  return std::nullopt;
}

// Every value of E, in order.
template <class E> constexpr auto all_words() {
  constexpr std::size_t kCount = [] {
    int n = 0;
    while (!nth_word(words_of(E{}), n).empty()) ++n;
    return static_cast<std::size_t>(n);
  }();
  std::array<E, kCount> all{};
  for (std::size_t i = 0; i < kCount; ++i) all[i] = static_cast<E>(i);
  return all;
}

// Both ends belong to it, unless open.
struct Range {
  double low;
  double high;
  bool open_low = false;
  bool open_high = false;
};

enum class Text { any, path, needed_path };  // needed: empty is no value, and there is no default

}  // namespace grist
