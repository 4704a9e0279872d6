#include "value_rules.h"

#include <cmath>

#include "grist/core/check.h"
#include "grist/core/json.h"
#include "grist/core/path.h"

namespace grist::config {

namespace {

std::string number(double value) {
  if (std::abs(value) <= kMany && value == std::floor(value))
    return std::to_string(static_cast<std::int64_t>(value));
  return shortest(value);
}

std::string check(double value, const Range& range) {
  const bool low = range.open_low ? value > range.low : value >= range.low;
  const bool high = range.open_high ? value < range.high : value <= range.high;
  if (low && high) return "";
  std::string want = (range.open_low ? "more than " : "at least ") + number(range.low);
  if (!high) want += (range.open_high ? " and less than " : " and at most ") + number(range.high);
  return fmt::format("{} is out of range; want {}", number(value), want);
}

// Which rule goes with which type; config.h cannot write another pair (fields.cpp). The pointers
// are the slot's own type, or the template below would be the better match.
struct Check {
  std::string operator()(std::int64_t* value, const Range& range) const {
    return check(static_cast<double>(*value), range);
  }
  std::string operator()(double* value, const Range& range) const { return check(*value, range); }
  std::string operator()(std::optional<double>* value, const Range& range) const {
    return *value ? check(**value, range) : "";
  }
  std::string operator()(std::vector<std::int64_t>* values, const Range& range) const {
    for (const std::int64_t v : *values)
      if (std::string problem = check(static_cast<double>(v), range); !problem.empty())
        return problem;
    return "";
  }
  std::string operator()(std::string* value, const Text& text) const {
    switch (text) {
      case Text::any: return "";
      case Text::path: return unexpanded(*value);
      case Text::needed_path: return value->empty() ? "empty; want a path" : unexpanded(*value);
    }
    return "";
  }
  template <class Value, class Rule>
  std::string operator()(const Value& /*value*/, const Rule& /*rule*/) const {
    return "";  // any bool; words are checked as they are read, sources item by item
  }
};

}  // namespace

std::string check_limits(const Slot& slot) {
  return std::visit(Check{}, slot.target, slot.limit);
}

}  // namespace grist::config
