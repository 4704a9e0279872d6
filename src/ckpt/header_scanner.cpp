#include "header_scanner.h"

#include <limits>

#include "grist/core/check.h"
#include "grist/core/json_string.h"
#include "grist/core/utf8.h"

namespace grist::ckpt {

void HeaderScanner::wrong(std::string_view problem) const {
  fail(ExitCode::bad_data, "{}: {} at byte {} of the header", where_, problem, at_);
}

void HeaderScanner::skip_space() {
  while (at_ < text_.size() &&
         (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t' || text_[at_] == '\r'))
    ++at_;
}

bool HeaderScanner::take(char c) {
  skip_space();
  if (at_ >= text_.size() || text_[at_] != c) return false;
  ++at_;
  return true;
}

void HeaderScanner::expect(char c) {
  if (!take(c)) wrong(std::string("'") + c + "' was expected");
}

bool HeaderScanner::at_end() {
  skip_space();
  return at_ == text_.size();
}

std::string HeaderScanner::string() {
  skip_space();
  if (at_ >= text_.size() || text_[at_] != '"') wrong("a string was expected");
  const std::size_t begin = at_;
  if (const char* problem = skip_json_string(text_, at_)) wrong(problem);
  std::string buffer;
  std::string_view value;
  if (!json_string_value(text_.substr(begin, at_ - begin), buffer, value)) wrong("lone surrogate");
  return std::string(value);
}

std::uint64_t HeaderScanner::integer() {
  constexpr std::uint64_t kMax = std::numeric_limits<std::uint64_t>::max();
  skip_space();
  const std::size_t begin = at_;
  std::uint64_t value = 0;
  while (at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9') {
    const auto digit = static_cast<std::uint64_t>(text_[at_] - '0');
    if (value > (kMax - digit) / 10) wrong("number too large");
    value = value * 10 + digit;
    ++at_;
  }
  if (at_ == begin) wrong("a whole number was expected");
  if (text_[begin] == '0' && at_ - begin > 1) wrong("number with a leading zero");
  return value;
}

void HeaderScanner::check_utf8() const {
  const std::size_t good = unicode::valid_prefix(text_, 0);
  if (good != text_.size())
    fail(ExitCode::bad_data, "{}: the header is not UTF-8 at its byte {}", where_, good);
}

}  // namespace grist::ckpt
