#include "grist/core/json.h"

#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "grist/core/check.h"

namespace grist {

namespace {

constexpr std::size_t kMaxDepth = 64;

// Builds our tree from nlohmann's events. nlohmann checks syntax and UTF-8; we add depth and
// duplicate keys.
class Builder final : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit Builder(std::string_view where) : where_(where) {}
  Json take() { return std::move(root_); }

  bool null() override { return put(Json()); }
  bool boolean(bool v) override { return put(Json(v)); }
  bool number_integer(number_integer_t v) override {
    return put(Json(static_cast<std::int64_t>(v)));
  }
  bool number_unsigned(number_unsigned_t v) override {
    if (v > static_cast<std::uint64_t>(INT64_MAX)) return put(Json(static_cast<double>(v)));
    return put(Json(static_cast<std::int64_t>(v)));
  }
  bool number_float(number_float_t v, const string_t& /*text*/) override { return put(Json(v)); }
  bool string(string_t& v) override { return put(Json(std::move(v))); }
  bool binary(binary_t& /*v*/) override { return false; }
  bool start_object(std::size_t /*n*/) override { return open(Json::object()); }
  bool end_object() override { return close(); }
  bool start_array(std::size_t /*n*/) override { return open(Json::array()); }
  bool end_array() override { return close(); }
  bool key(string_t& v) override {
    if (!keys_.back().insert(v).second)
      fail(ExitCode::bad_data, "{}: duplicate key \"{}\"", where_, v);
    key_ = std::move(v);
    return true;
  }
  bool parse_error(std::size_t position, const std::string& token,
                   const nlohmann::detail::exception& /*e*/) override {
    fail(ExitCode::bad_data, "{}: not valid JSON near byte {} (at \"{}\")", where_, position,
         token.substr(token.size() > 20 ? token.size() - 20 : 0));
  }

 private:
  Json* add(Json v) {
    if (stack_.empty()) {
      root_ = std::move(v);
      return &root_;
    }
    if (stack_.back()->is_array()) {
      stack_.back()->as_array().push_back(std::move(v));
      return &stack_.back()->as_array().back();
    }
    stack_.back()->as_object().emplace_back(std::move(key_), std::move(v));
    return &stack_.back()->as_object().back().second;
  }
  bool put(Json v) {
    add(std::move(v));
    return true;
  }
  bool open(Json v) {
    if (stack_.size() >= kMaxDepth)
      fail(ExitCode::bad_data, "{}: nested deeper than {} levels", where_, kMaxDepth);
    stack_.push_back(add(std::move(v)));
    keys_.emplace_back();
    return true;
  }
  bool close() {
    stack_.pop_back();
    keys_.pop_back();
    return true;
  }

  std::string_view where_;
  Json root_;
  std::vector<Json*>
      stack_;  // containers being filled; a parent grows only after its child is closed
  std::vector<std::set<std::string>> keys_;
  std::string key_;
};

void write_string(std::string& out, std::string_view s) {
  constexpr char kHex[] = "0123456789abcdef";
  out += '"';
  for (const char c : s) {
    const auto u = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (c == '\r') {
      out += "\\r";
    } else if (u < 0x20) {
      out += "\\u00";
      out += kHex[u >> 4];
      out += kHex[u & 15];
    } else {
      out += c;
    }
  }
  out += '"';
}

void newline(std::string& out, int indent, int depth) {
  if (indent < 0) return;
  out += '\n';
  out.append(static_cast<std::size_t>(indent * depth), ' ');
}

void write(std::string& out, const Json& j, int indent, int depth) {
  if (j.is_null())
    out += "null";
  else if (j.is_bool())
    out += j.as_bool() ? "true" : "false";
  else if (j.is_int())
    out += std::to_string(j.as_int());
  else if (j.is_number())
    out += std::isfinite(j.as_double()) ? shortest(j.as_double()) : "null";
  else if (j.is_string())
    write_string(out, j.as_string());
  else if (j.is_array()) {
    out += '[';
    const Json::Array& a = j.as_array();
    for (std::size_t i = 0; i < a.size(); ++i) {
      if (i > 0) out += indent < 0 ? ", " : ",";
      newline(out, indent, depth + 1);
      write(out, a[i], indent, depth + 1);
    }
    if (!a.empty()) newline(out, indent, depth);
    out += ']';
  } else {
    out += '{';
    const Json::Object& o = j.as_object();
    for (std::size_t i = 0; i < o.size(); ++i) {
      if (i > 0) out += indent < 0 ? ", " : ",";
      newline(out, indent, depth + 1);
      write_string(out, o[i].first);
      out += ": ";
      write(out, o[i].second, indent, depth + 1);
    }
    if (!o.empty()) newline(out, indent, depth);
    out += '}';
  }
}

const char* kind_of(const Json& j) {
  if (j.is_null()) return "null";
  if (j.is_bool()) return "a boolean";
  if (j.is_number()) return "a number";
  if (j.is_string()) return "a string";
  return j.is_array() ? "an array" : "an object";
}

[[noreturn]] void wrong_kind(const Json& j, const char* want) {
  fail(ExitCode::bad_data, "JSON: wanted {}, found {}", want, kind_of(j));
}

template <class T> std::string shortest_digits(T v) {
  char text[40];
  const auto r = std::to_chars(text, text + sizeof text, v);
  std::string s(text, r.ptr);
  if (s.find_first_of(".en") == std::string::npos)
    s += ".0";  // stays a floating-point number for the next reader
  return s;
}

}  // namespace

std::string shortest(double v) {
  return shortest_digits(v);
}
std::string shortest(float v) {
  return shortest_digits(v);
}

Json Json::parse(std::string_view text, std::string_view where) {
  // The parser takes a zero byte for the end of its input; what follows must not be ignored.
  if (const std::size_t zero = text.find('\0'); zero != std::string_view::npos)
    fail(ExitCode::bad_data, "{}: not valid JSON: a zero byte at byte {}", where, zero);
  Builder builder(where);
  nlohmann::json::sax_parse(text.begin(), text.end(), &builder);
  return builder.take();
}

std::string Json::dump(int indent) const {
  std::string out;
  write(out, *this, indent, 0);
  return out;
}

bool Json::as_bool() const {
  if (!is_bool()) wrong_kind(*this, "a boolean");
  return std::get<bool>(value_);
}
std::int64_t Json::as_int() const {
  if (!is_int()) wrong_kind(*this, "an integer");
  return std::get<std::int64_t>(value_);
}
double Json::as_double() const {
  if (is_int()) return static_cast<double>(std::get<std::int64_t>(value_));
  if (!is_number()) wrong_kind(*this, "a number");
  return std::get<double>(value_);
}
const std::string& Json::as_string() const {
  if (!is_string()) wrong_kind(*this, "a string");
  return std::get<std::string>(value_);
}
const Json::Array& Json::as_array() const {
  if (!is_array()) wrong_kind(*this, "an array");
  return std::get<Array>(value_);
}
Json::Array& Json::as_array() {
  if (!is_array()) wrong_kind(*this, "an array");
  return std::get<Array>(value_);
}
const Json::Object& Json::as_object() const {
  if (!is_object()) wrong_kind(*this, "an object");
  return std::get<Object>(value_);
}
Json::Object& Json::as_object() {
  if (!is_object()) wrong_kind(*this, "an object");
  return std::get<Object>(value_);
}

const Json* Json::find(std::string_view key) const {
  if (!is_object()) return nullptr;
  for (const auto& [k, v] : as_object()) {
    if (k == key) return &v;
  }
  return nullptr;
}

const Json& Json::at(std::string_view key) const {
  const Json* v = find(key);
  if (v == nullptr) fail(ExitCode::bad_data, "JSON: missing key \"{}\"", key);
  return *v;
}

Json& Json::set(std::string_view key, Json value) {
  if (is_null()) value_ = Object{};
  for (auto& [k, v] : as_object()) {
    if (k == key) return v = std::move(value);
  }
  return as_object().emplace_back(std::string(key), std::move(value)).second;
}

void Json::push_back(Json value) {
  if (is_null()) value_ = Array{};
  as_array().push_back(std::move(value));
}

}  // namespace grist
