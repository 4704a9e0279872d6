#pragma once
// The config structs as a flat list of keys: "model.moe.granularity" -> int64. Built from their
// `fields`, so that a key exists in loading, printing and comparing as soon as it is in its struct.
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "grist/config/config.h"

namespace grist::config {

// A field that holds one of the words of its enum, whichever enum that is.
class WordField {
 public:
  template <class E>
  explicit WordField(E* value)
      : value_(value),
        words_(words_of(E{})),
        get_([](const void* v) { return static_cast<int>(*static_cast<const E*>(v)); }),
        set_([](void* v, int index) { *static_cast<E*>(v) = static_cast<E>(index); }) {}

  std::string word() const { return std::string(nth_word(words_, get_(value_))); }
  bool set(std::string_view word) const;  // false: no such word
  std::string list() const;               // "auto, cpu, cuda"

 private:
  void* value_;
  std::string_view words_;
  int (*get_)(const void*);
  void (*set_)(void*, int);
};

using Target = std::variant<bool*, std::int64_t*, double*, std::string*, std::optional<double>*,
                            std::vector<std::int64_t>*, std::vector<DataSourceConfig>*, WordField>;
using Limit = std::variant<std::monostate, Range, Text>;

struct Slot {
  std::string key;
  Target target;
  Limit limit;
};

// In the order of the structs. The slots point into the argument.
std::vector<Slot> slots_of(Config& config);
std::vector<Slot> slots_of(DataSourceConfig& source, const std::string& prefix);

// The value as YAML on one line; lists of sources give "[...]" only when empty.
std::string text_of(const Target& target);
std::string quoted_if_needed(const std::string& text);

}  // namespace grist::config
