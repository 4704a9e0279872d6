#include "scalars.h"

#include <charconv>
#include <cmath>

#include "grist/core/check.h"

namespace grist::config {

namespace {

bool is_true(const std::string& t) {
  return t == "true" || t == "True" || t == "TRUE";
}
bool is_false(const std::string& t) {
  return t == "false" || t == "False" || t == "FALSE";
}
bool is_old_bool(const std::string& t) {
  return t == "yes" || t == "Yes" || t == "YES" || t == "no" || t == "No" || t == "NO" ||
         t == "on" || t == "On" || t == "ON" || t == "off" || t == "Off" || t == "OFF";
}

// from_chars knows no '+'.
std::string_view without_plus(const std::string& text) {
  std::string_view v = text;
  if (v.size() > 1 && v[0] == '+' && v[1] != '-' && v[1] != '+') v.remove_prefix(1);
  return v;
}

template <class T> std::errc parse(const std::string& text, T& out) {
  const std::string_view v = without_plus(text);
  const auto r = std::from_chars(v.data(), v.data() + v.size(), out);
  if (r.ec == std::errc::result_out_of_range && r.ptr == v.data() + v.size()) return r.ec;
  if (r.ec != std::errc() || r.ptr != v.data() + v.size()) return std::errc::invalid_argument;
  return {};
}

}  // namespace

std::string shown(const YamlNode& node) {
  constexpr std::size_t kLongest = 60;
  if (node.kind != YamlNode::Kind::scalar) return name_of(node.kind);
  std::string text = node.text;
  if (text.size() > kLongest) {
    std::size_t end = kLongest;  // not inside a UTF-8 character
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
    text = text.substr(0, end) + "...";
  }
  return node.quoted || text.empty() ? "\"" + text + "\"" : text;
}

std::string read_bool(const YamlNode& node, bool& out) {
  const bool plain = node.kind == YamlNode::Kind::scalar && !node.quoted;
  if (plain && is_true(node.text)) {
    out = true;
  } else if (plain && is_false(node.text)) {
    out = false;
  } else {
    return fmt::format("{}; want true or false", shown(node));
  }
  return "";
}

std::string read_int(const YamlNode& node, std::int64_t& out) {
  const std::string want = fmt::format("{}; want a whole number", shown(node));
  if (node.kind != YamlNode::Kind::scalar || node.quoted) return want;
  const std::size_t first = node.text.find_first_not_of("+-");
  if (first != std::string::npos && node.text.size() > first + 1 && node.text[first] == '0' &&
      node.text[first + 1] <= '9' && node.text[first + 1] >= '0')
    return want + " without leading zeros";  // octal to some readers
  std::int64_t value = 0;
  const std::errc error = parse(node.text, value);
  if (error == std::errc::result_out_of_range)
    return fmt::format("{}; does not fit into 64 bits", shown(node));
  if (error == std::errc()) {
    out = value;
    return "";
  }
  double real = 0;
  if (parse(node.text, real) == std::errc() && std::abs(real) < 9e15 && real == std::floor(real))
    return fmt::format("{} (write {})", want, static_cast<std::int64_t>(real));
  return want;
}

std::string read_double(const YamlNode& node, double& out) {
  if (node.kind != YamlNode::Kind::scalar || node.quoted)
    return fmt::format("{}; want a number", shown(node));
  double value = 0;
  const std::errc error = parse(node.text, value);
  if (error == std::errc::result_out_of_range)
    return fmt::format("{}; does not fit into a double", shown(node));
  if (error != std::errc() || !std::isfinite(value))
    return fmt::format("{}; want a finite number", shown(node));
  out = value;
  return "";
}

std::string read_string(const YamlNode& node, std::string& out) {
  if (node.kind != YamlNode::Kind::scalar) return fmt::format("{}; want text", shown(node));
  for (const char c : node.text)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F)
      return fmt::format("{}; want text on one line, without control characters", shown(node));
  out = node.text;
  return "";
}

bool looks_like_another_type(const std::string& text) {
  double number = 0;
  const bool null =
      text.empty() || text == "~" || text == "null" || text == "Null" || text == "NULL";
  const char first = text.empty() ? '\0' : text.front();
  return null || is_true(text) || is_false(text) || is_old_bool(text) || first == '.' ||
         (first >= '0' && first <= '9') || parse(text, number) == std::errc();
}

}  // namespace grist::config
