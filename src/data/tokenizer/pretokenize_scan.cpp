// Hand-written scanners for the GPT-2 pattern and for the family of cl100k, Llama-3 and Qwen2.
// Each is proven equal to PCRE2 on random text by tests/data/tokenizer/pretokenize_test.cpp.
#include <array>

#include "pretokenize.h"

namespace grist {

namespace {

using unicode::Classes;
using unicode::kLetter;
using unicode::kNumber;
using unicode::kSpace;

constexpr std::uint8_t kOther = 0;    // neither letter, number nor space
constexpr std::uint8_t kHigh = 0x80;  // byte table only: not ASCII, look the character up
constexpr std::uint8_t kKinds = kLetter | kNumber | kSpace;

struct Char {
  std::uint8_t kind = kOther;
  std::uint32_t bytes = 1;
};

// Reads characters of one text by class.
class Reader {
 public:
  Reader(const std::array<std::uint8_t, 256>& bytes, const Classes& classes, std::string_view text)
      : table_(bytes.data()), classes_(classes), text_(text.data()), size_(text.size()) {}

  std::size_t size() const { return size_; }
  unsigned char byte(std::size_t i) const { return static_cast<unsigned char>(text_[i]); }

  Char at(std::size_t i) const {
    const std::uint8_t kind = table_[byte(i)];
    if (kind != kHigh) [[likely]]
      return {kind, 1};
    const unicode::Decoded d = unicode::decode_valid(text_ + i);
    return {static_cast<std::uint8_t>(classes_[d.code] & kKinds), d.bytes};
  }

  // End of the run of characters of this kind that begins at i.
  std::size_t run(std::size_t i, std::uint8_t kind) const {
    while (i < size_) {
      const std::uint8_t k = table_[byte(i)];
      if (k == kind) {
        ++i;
        continue;
      }
      if (k != kHigh) break;
      const Char c = at(i);
      if (c.kind != kind) break;
      i += c.bytes;
    }
    return i;
  }

  // \s+(?!\S)|\s+ at i, a space: the run without its last character if something follows it.
  std::size_t spaces(std::size_t i) const {
    std::size_t end = i;
    std::size_t last = i;
    while (end < size_) {
      const Char c = at(end);
      if (c.kind != kSpace) break;
      last = end;
      end += c.bytes;
    }
    return end < size_ && last > i ? last : end;
  }

 private:
  const std::uint8_t* table_;
  const Classes& classes_;
  const char* text_;
  std::size_t size_;
};

class Scanner : public Cutter {
 public:
  explicit Scanner(const Classes& classes) : classes_(classes) {
    for (std::size_t b = 0; b < 256; ++b)
      bytes_[b] = b < 128 ? classes.ascii(static_cast<unsigned char>(b)) : kHigh;
  }

 protected:
  // Calls next(reader, position) until the text or `ends` is used up.
  template <class Next>
  std::size_t cut_with(const Next& next, std::string_view text, std::size_t from,
                       std::span<std::uint32_t> ends) const {
    const Reader r(bytes_, classes_, text);
    std::size_t count = 0;
    for (std::size_t i = from; i < text.size() && count < ends.size(); ++count) {
      i = next(r, i);
      ends[count] = static_cast<std::uint32_t>(i);
    }
    return count;
  }

 private:
  const Classes& classes_;
  std::array<std::uint8_t, 256> bytes_{};
};

// Length of 's 't 'm 'd 're 've 'll at i (an apostrophe), or 0.
std::size_t contraction(const Reader& r, std::size_t i) {
  if (i + 1 >= r.size()) return 0;
  const unsigned char a = r.byte(i + 1);
  if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
  if (i + 2 >= r.size()) return 0;
  const unsigned char b = r.byte(i + 2);
  const bool pair = (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l');
  return pair ? 3 : 0;
}

// The same in any case. U+017F (long s) is the one other character that folds to one of these.
std::size_t contraction_any_case(const Reader& r, std::size_t i) {
  const auto lower = [&r](std::size_t k) {
    const unsigned char c = r.byte(k);
    return c >= 'A' && c <= 'Z' ? static_cast<unsigned char>(c + 32) : c;
  };
  if (i + 1 >= r.size()) return 0;
  const unsigned char a = lower(i + 1);
  if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
  if (i + 2 >= r.size()) return 0;
  if (r.byte(i + 1) == 0xC5 && r.byte(i + 2) == 0xBF) return 3;
  const unsigned char b = lower(i + 2);
  const bool pair = (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l');
  return pair ? 3 : 0;
}

class Gpt2Scanner final : public Scanner {
 public:
  using Scanner::Scanner;
  std::size_t cut(std::string_view text, std::size_t from, std::span<std::uint32_t> ends,
                  MatchState& /*state*/) const override {
    return cut_with(next, text, from, ends);
  }

 private:
  static std::size_t next(const Reader& r, std::size_t i) {
    const unsigned char first = r.byte(i);
    if (first == '\'') {
      const std::size_t length = contraction(r, i);
      if (length > 0) return i + length;
    }
    if (first == ' ' && i + 1 < r.size()) {
      const Char c = r.at(i + 1);
      if (c.kind != kSpace) return r.run(i + 1 + c.bytes, c.kind);
    }
    const Char c = r.at(i);
    return c.kind == kSpace ? r.spaces(i) : r.run(i + c.bytes, c.kind);
  }
};

class Cl100kScanner final : public Scanner {
 public:
  Cl100kScanner(const Classes& classes, int max_digits)
      : Scanner(classes), max_digits_(max_digits) {}
  std::size_t cut(std::string_view text, std::size_t from, std::span<std::uint32_t> ends,
                  MatchState& /*state*/) const override {
    return cut_with([this](const Reader& r, std::size_t i) { return next(r, i); }, text, from,
                    ends);
  }

 private:
  static bool is_newline(unsigned char c) { return c == '\r' || c == '\n'; }

  std::size_t next(const Reader& r, std::size_t i) const {
    const unsigned char first = r.byte(i);
    if (first == '\'') {
      const std::size_t length = contraction_any_case(r, i);
      if (length > 0) return i + length;
    }
    const Char c = r.at(i);
    if (c.kind == kLetter) return r.run(i + c.bytes, kLetter);
    if (c.kind == kNumber) return digits(r, i);
    const std::size_t after = i + c.bytes;
    if (!is_newline(first) && after < r.size()) {
      const Char d = r.at(after);
      if (d.kind == kLetter) return r.run(after + d.bytes, kLetter);
      if (first == ' ' && d.kind == kOther) return others(r, after);
    }
    return c.kind == kOther ? others(r, i) : spaces(r, i);
  }

  std::size_t digits(const Reader& r, std::size_t i) const {
    for (int n = 0; n < max_digits_ && i < r.size(); ++n) {
      const Char c = r.at(i);
      if (c.kind != kNumber) break;
      i += c.bytes;
    }
    return i;
  }

  static std::size_t others(const Reader& r, std::size_t i) {
    i = r.run(i, kOther);
    while (i < r.size() && is_newline(r.byte(i))) ++i;
    return i;
  }

  // \s*[\r\n]+|\s+(?!\S)|\s+ : up to the last line end of the run of spaces, if it has one.
  static std::size_t spaces(const Reader& r, std::size_t i) {
    const std::size_t end = r.run(i, kSpace);
    for (std::size_t k = end; k > i; --k)
      if (is_newline(r.byte(k - 1))) return k;
    return r.spaces(i);
  }

  int max_digits_;
};

// Numbers, one by one or in runs, and what lies between them.
class DigitScanner final : public Scanner {
 public:
  DigitScanner(const Classes& classes, bool individual)
      : Scanner(classes), individual_(individual) {}
  std::size_t cut(std::string_view text, std::size_t from, std::span<std::uint32_t> ends,
                  MatchState& /*state*/) const override {
    return cut_with([this](const Reader& r, std::size_t i) { return next(r, i); }, text, from,
                    ends);
  }

 private:
  std::size_t next(const Reader& r, std::size_t i) const {
    const Char c = r.at(i);
    if (c.kind == kNumber) return individual_ ? i + c.bytes : r.run(i, kNumber);
    while (i < r.size()) {
      const Char d = r.at(i);
      if (d.kind == kNumber) break;
      i += d.bytes;
    }
    return i;
  }

  bool individual_;
};

}  // namespace

std::unique_ptr<const Cutter> make_scanner(std::string_view pattern, const Classes& classes) {
  if (pattern == kGpt2Pattern) return std::make_unique<Gpt2Scanner>(classes);
  if (pattern == kLlama3Pattern) return std::make_unique<Cl100kScanner>(classes, 3);
  if (pattern == kQwen2Pattern) return std::make_unique<Cl100kScanner>(classes, 1);
  if (pattern == kDigitPattern) return std::make_unique<DigitScanner>(classes, true);
  if (pattern == kDigitsPattern) return std::make_unique<DigitScanner>(classes, false);
  return nullptr;
}

}  // namespace grist
