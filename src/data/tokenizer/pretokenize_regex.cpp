// Any other pattern: PCRE2 with JIT. PyPI tokenizers runs Oniguruma with Ruby's syntax; where the
// two read the same text differently the pattern is rewritten (\s) or refused.
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "grist/core/check.h"
#include "pretokenize.h"

namespace grist {

namespace {

// PCRE2's \s has U+180E, Oniguruma's has not.
constexpr std::string_view kSpaceSet = R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a})"
                                       R"(\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr std::size_t kJitStackBytes = 8U << 20U;

struct Free {
  void operator()(pcre2_code* p) const noexcept { pcre2_code_free(p); }
  void operator()(pcre2_match_data* p) const noexcept { pcre2_match_data_free(p); }
  void operator()(pcre2_match_context* p) const noexcept { pcre2_match_context_free(p); }
  void operator()(pcre2_compile_context* p) const noexcept { pcre2_compile_context_free(p); }
  void operator()(pcre2_jit_stack* p) const noexcept { pcre2_jit_stack_free(p); }
};
template <class T> using Owned = std::unique_ptr<T, Free>;

std::string error_text(int code) {
  PCRE2_UCHAR buffer[200];
  if (pcre2_get_error_message(code, buffer, sizeof buffer) < 0)
    return fmt::format("error {}", code);
  return reinterpret_cast<const char*>(buffer);
}

std::string translate(std::string_view pattern, std::string_view where) {
  const auto refuse = [&](std::string_view what) {
    fail(ExitCode::bad_data,
         "{}: the pattern uses {}, which PCRE2 and Hugging Face's engine read differently", where,
         what);
  };
  std::string out;
  int in_class = 0;  // 0: outside [...]; 1: just opened; 2: inside
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\' && i + 1 < pattern.size()) {
      const char e = pattern[++i];
      if (std::string_view("hHwWbBRXKGzZAC").find(e) != std::string_view::npos)
        refuse(fmt::format("\\{}", e));
      if (e == 'S' && in_class != 0) refuse("\\S inside [ ]");
      if (e == 's' && in_class != 0) {
        out += kSpaceSet;
      } else if (e == 's' || e == 'S') {
        out += e == 's' ? "[" : "[^";
        out += kSpaceSet;
        out += ']';
      } else {
        out += c;
        out += e;
      }
      if (in_class != 0) in_class = 2;
      continue;
    }
    if (in_class == 0 && c == '[') {
      in_class = 1;
    } else if (in_class != 0 && c == '[') {
      refuse("[ inside [ ]");
    } else if (in_class == 2 && c == ']') {
      in_class = 0;
    } else if (in_class != 0) {
      if (pattern.substr(i, 2) == "&&") refuse("&& inside [ ]");
      if (!(in_class == 1 && c == '^')) in_class = 2;
    } else if (pattern.substr(i, 3) == "(?m" || pattern.substr(i, 2) == "(*") {
      refuse(pattern.substr(i, 3));
    }
    out += c;
  }
  return out;
}

}  // namespace

struct MatchState::Parts {
  Owned<pcre2_match_data> data;
  Owned<pcre2_match_context> context;
  Owned<pcre2_jit_stack> stack;
};

MatchState::MatchState() : parts_(std::make_unique<Parts>()) {
  parts_->data.reset(pcre2_match_data_create(1, nullptr));
  parts_->context.reset(pcre2_match_context_create(nullptr));
  parts_->stack.reset(pcre2_jit_stack_create(32U << 10U, kJitStackBytes, nullptr));
  if (!parts_->data || !parts_->context || !parts_->stack)
    fail(ExitCode::out_of_memory, "tokenizer: no memory for matching patterns");
  pcre2_jit_stack_assign(parts_->context.get(), nullptr, parts_->stack.get());
}

MatchState::~MatchState() = default;

class RegexCutter final : public Cutter {
 public:
  RegexCutter(std::string_view pattern, std::string_view where) : where_(where) {
    const std::string translated = translate(pattern, where);
    const Owned<pcre2_compile_context> context(pcre2_compile_context_create(nullptr));
    if (!context) fail(ExitCode::out_of_memory, "{}: no memory to compile a pattern", where);
    pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
    int error = 0;
    PCRE2_SIZE at = 0;
    code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                              PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &error, &at, context.get()));
    if (!code_) fail(ExitCode::bad_data, "{}: not a valid pattern: {}", where, error_text(error));
    std::uint32_t empty = 0;
    pcre2_pattern_info(code_.get(), PCRE2_INFO_MATCHEMPTY, &empty);
    if (empty != 0)
      fail(ExitCode::bad_data, "{}: the pattern can match nothing at all, so it cuts no pieces",
           where);
    // Without JIT (a platform that lacks it) the interpreter gives the same matches, slower.
    pcre2_jit_compile(code_.get(), PCRE2_JIT_COMPLETE);
  }

  std::size_t cut(std::string_view text, std::size_t from, std::span<std::uint32_t> ends,
                  MatchState& state) const override {
    std::size_t count = 0;
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    while (from < text.size() && count + 2 <= ends.size()) {
      const int rc = pcre2_match(code_.get(), subject, text.size(), from, PCRE2_NO_UTF_CHECK,
                                 state.parts_->data.get(), state.parts_->context.get());
      if (rc == PCRE2_ERROR_NOMATCH) {
        ends[count++] = static_cast<std::uint32_t>(text.size());
        break;
      }
      if (rc < 0)
        fail(ExitCode::bad_data, "{}: the pattern failed at byte {} of a text: {}", where_, from,
             error_text(rc));
      const PCRE2_SIZE* span = pcre2_get_ovector_pointer(state.parts_->data.get());
      if (span[0] > from) ends[count++] = static_cast<std::uint32_t>(span[0]);
      ends[count++] = static_cast<std::uint32_t>(span[1]);
      from = span[1];
    }
    return count;
  }

 private:
  std::string where_;
  Owned<pcre2_code> code_;
};

std::unique_ptr<const Cutter> make_regex_cutter(std::string_view pattern, std::string_view where) {
  return std::make_unique<RegexCutter>(pattern, where);
}

std::string escape_pattern(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (std::string_view(R"(\^$.|?*+()[]{}-#&~ )").find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  return out;
}

}  // namespace grist
