#include "fields.h"

#include <type_traits>

#include "grist/core/check.h"
#include "grist/core/json.h"
#include "scalars.h"

namespace grist::config {

namespace {

class Lister {
 public:
  Lister(std::vector<Slot>& out, std::string prefix) : out_(out), prefix_(std::move(prefix)) {}

  void operator()(const char* name, bool& value) { add(name, &value); }
  void operator()(const char* name, std::vector<DataSourceConfig>& value) { add(name, &value); }
  void operator()(const char* name, std::string& value, Text text) { add(name, &value, text); }
  template <class T> void operator()(const char* name, T& value, Range range) {
    add(name, &value, range);
  }
  template <class T>
  requires std::is_enum_v<T>
  void operator()(const char* name, T& value) { add(name, WordField(&value)); }
  template <class T>
  requires requires(T& block, Lister& lister) { block.fields(lister); }
  void operator()(const char* name, T& block) {
    Lister inner(out_, path(name));
    block.fields(inner);
  }

 private:
  std::string path(const char* name) const { return prefix_.empty() ? name : prefix_ + "." + name; }
  void add(const char* name, Target target, Limit limit = {}) {
    out_.push_back({path(name), target, limit});
  }

  std::vector<Slot>& out_;
  std::string prefix_;
};

std::string text(bool value) {
  return value ? "true" : "false";
}
std::string text(std::int64_t value) {
  return std::to_string(value);
}
std::string text(double value) {
  return shortest(value);
}
std::string text(const std::string& value) {
  return quoted_if_needed(value);
}
std::string text(const std::optional<double>& value) {
  return value ? shortest(*value) : "null";
}
std::string text(const std::vector<std::int64_t>& values) {
  std::string out = "[";
  for (const std::int64_t v : values) out += (out.size() > 1 ? ", " : "") + std::to_string(v);
  return out + "]";
}
std::string text(const std::vector<DataSourceConfig>& sources) {
  return sources.empty() ? "[]" : "[...]";
}

struct TextOf {
  template <class T> std::string operator()(const T* value) const { return text(*value); }
  std::string operator()(const WordField& field) const { return quoted_if_needed(field.word()); }
};

}  // namespace

bool WordField::set(std::string_view word) const {
  for (int i = 0; !nth_word(words_, i).empty(); ++i) {
    if (nth_word(words_, i) != word) continue;
    set_(value_, i);
    return true;
  }
  return false;
}

std::string WordField::list() const {
  std::string out;
  for (int i = 0; !nth_word(words_, i).empty(); ++i)
    out += (i > 0 ? ", " : "") + std::string(nth_word(words_, i));
  return out;
}

std::vector<Slot> slots_of(Config& config) {
  std::vector<Slot> out;
  Lister lister(out, "");
  config.fields(lister);
  return out;
}

std::vector<Slot> slots_of(DataSourceConfig& source, const std::string& prefix) {
  std::vector<Slot> out;
  Lister lister(out, prefix);
  source.fields(lister);
  return out;
}

std::string text_of(const Target& target) {
  return std::visit(TextOf{}, target);
}

// Plain only where no YAML reader could take it for anything but this text.
std::string quoted_if_needed(const std::string& value) {
  bool plain = !value.empty() && value.front() != '-' && !looks_like_another_type(value);
  for (const char c : value) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    plain = plain && (letter || c == '_' || c == '.' || c == '/' || c == '-');
  }
  return plain ? value : Json(value).dump();
}

}  // namespace grist::config
