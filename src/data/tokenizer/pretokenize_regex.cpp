// Any other pattern: PCRE2 with JIT, on bytes. pattern.cpp has made one byte of every character, so
// PCRE2 sees no Unicode.
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "grist/core/check.h"
#include "pattern.h"
#include "pretokenize.h"

namespace grist {

namespace {

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

}  // namespace

struct MatchState::Parts {
  Owned<pcre2_match_data> data;
  Owned<pcre2_match_context> context;
  Owned<pcre2_jit_stack> stack;
  // The text that was begun last, a byte a character, and how far it is cut.
  const void* cutter = nullptr;
  std::string_view text;
  std::string kinds;
  std::size_t character = 0, byte = 0;

  // `from` characters: 0, or where the last call ended. Cut from elsewhere, the text is begun
  // again.
  void begin(const void* who, const std::vector<std::uint8_t>& kind_of, std::string_view whole,
             std::size_t from) {
    const bool goes_on = from > 0 && cutter == who && byte == from && text.data() == whole.data() &&
                         text.size() == whole.size();
    if (goes_on) return;
    cutter = who;
    text = whole;
    kinds.clear();
    kinds.reserve(whole.size());
    for (std::size_t i = 0; i < whole.size();) {
      if (i == from) character = kinds.size();
      const unicode::Decoded d = unicode::decode_valid(whole.data() + i);
      kinds += static_cast<char>(kind_of[d.code]);
      i += d.bytes;
    }
    byte = from;
  }

  // On to character number `to`: its byte.
  std::size_t advance(std::size_t to) {
    for (; character < to; ++character) {
      const auto lead = static_cast<unsigned char>(text[byte]);
      byte += lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    }
    return byte;
  }
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
    const BytePattern bytes = translate_pattern(pattern, where);
    kinds_ = bytes.kinds;
    const Owned<pcre2_compile_context> context(pcre2_compile_context_create(nullptr));
    if (!context) fail(ExitCode::out_of_memory, "{}: no memory to compile a pattern", where);
    pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
    int error = 0;
    PCRE2_SIZE at = 0;
    code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(bytes.text.data()), bytes.text.size(),
                              PCRE2_MULTILINE, &error, &at, context.get()));
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
    MatchState::Parts& parts = *state.parts_;
    parts.begin(this, kinds_, text, from);
    const std::string& kinds = parts.kinds;
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(kinds.data());
    std::size_t count = 0;
    while (parts.character < kinds.size() && count + 2 <= ends.size()) {
      const int rc = pcre2_match(code_.get(), subject, kinds.size(), parts.character, 0,
                                 parts.data.get(), parts.context.get());
      if (rc == PCRE2_ERROR_NOMATCH) {
        ends[count++] = static_cast<std::uint32_t>(parts.advance(kinds.size()));
        break;
      }
      if (rc < 0)
        fail(ExitCode::bad_data, "{}: the pattern failed at byte {} of a text: {}", where_,
             parts.byte, error_text(rc));
      const PCRE2_SIZE* span = pcre2_get_ovector_pointer(parts.data.get());
      if (span[0] > parts.character)
        ends[count++] = static_cast<std::uint32_t>(parts.advance(span[0]));
      ends[count++] = static_cast<std::uint32_t>(parts.advance(span[1]));
    }
    return count;
  }

 private:
  std::string where_;
  std::vector<std::uint8_t> kinds_;
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
