#include "problems.h"

#include <algorithm>

#include "grist/core/check.h"

namespace grist::config {

namespace {

constexpr std::size_t kMaxListed = 100;  // a file that is not a configuration at all

// Text from a file goes to a terminal and into comments: one line, no escape codes.
std::string printable(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    out += byte < 0x20 || byte == 0x7F ? '?' : c;
  }
  return out;
}

}  // namespace

int Problems::add_source(std::string name) {
  sources_.push_back(std::move(name));
  return static_cast<int>(sources_.size()) - 1;
}

std::string Problems::str(Where where) const {
  const std::string name = printable(sources_[static_cast<std::size_t>(where.source)]);
  return where.source == 0 && where.line > 0 ? fmt::format("{}:{}", name, where.line) : name;
}

void Problems::add(Where where, std::string_view key, std::string_view text) {
  list_.push_back({where, std::string(key), std::string(text)});
}

bool Problems::is_bad(std::string_view key) const {
  return std::any_of(list_.begin(), list_.end(), [&](const Problem& p) { return p.key == key; });
}

void Problems::throw_if_any() const {
  if (list_.empty()) return;
  std::vector<Problem> sorted = list_;
  std::stable_sort(sorted.begin(), sorted.end(), [](const Problem& a, const Problem& b) {
    return a.where.source != b.where.source ? a.where.source < b.where.source
                                            : a.where.line < b.where.line;
  });
  std::string message;
  for (std::size_t i = 0; i < std::min(sorted.size(), kMaxListed); ++i) {
    const Problem& p = sorted[i];
    message += fmt::format("{}{}: ", i == 0 ? "" : "\n", str(p.where));
    message += printable(p.key.empty() ? p.text : fmt::format("{}: {}", p.key, p.text));
  }
  if (sorted.size() > kMaxListed)
    message += fmt::format("\n... and {} more problems", sorted.size() - kMaxListed);
  throw Error(ExitCode::config, message);
}

}  // namespace grist::config
