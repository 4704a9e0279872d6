// Chunks to documents; the only file that includes simdjson, for its speed on UTF-8.
#include <simdjson.h>

#include <algorithm>
#include <cstring>

#include "grist/core/check.h"
#include "grist/core/json_string.h"
#include "grist/data/corpus.h"
#include "json_record.h"

namespace grist {

namespace {
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

bool is_blank(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; });
}
}  // namespace

struct DocumentParser::State {
  CorpusOptions options;
  std::string unescaped;
  std::vector<JsonMember> members;  // of the line

  // The text of one line, or the reason why there is none.
  std::string_view text_of(std::string_view line, std::string& reason) {
    if (line.size() > options.max_document_bytes) {
      reason = fmt::format("longer than {} bytes", options.max_document_bytes);
      return {};
    }
    if (!simdjson::validate_utf8(line.data(), line.size())) {
      reason = "not valid UTF-8";
      return {};
    }
    reason = scan_object(line, members);
    if (!reason.empty()) return {};
    std::string_view text;
    const JsonMember* member = last_member(members, options.text_key);
    if (member == nullptr) {
      reason = fmt::format("has no key \"{}\"", options.text_key);
    } else if (!member->value.starts_with('"')) {
      reason = fmt::format("key \"{}\" is not a string", options.text_key);
    } else if (!json_string_value(member->value, unescaped, text)) {
      reason = fmt::format("key \"{}\" holds half of a surrogate pair, which is no character",
                           options.text_key);
    }
    return text;
  }

  using Take = std::function<void(const Document&)>;

  void parse_lines(const CorpusChunk& chunk, std::string_view rest, const Take& document,
                   BadLines& bad) {
    std::string reason;
    for (std::int64_t number = chunk.first_line; !rest.empty(); ++number) {
      const std::string_view line = rest.substr(0, rest.find('\n'));
      rest.remove_prefix(std::min(line.size() + 1, rest.size()));
      if (is_blank(line)) continue;
      reason.clear();
      const std::string_view text = text_of(line, reason);
      if (!reason.empty()) {
        bad.add(fmt::format("{}:{}: {}", chunk.file, number, reason));
        continue;
      }
      document(
          {.text = text, .record = line, .members = members, .file = chunk.file, .line = number});
    }
  }

  // Plain text: one document, or what stands between separators.
  void parse_text(const CorpusChunk& chunk, std::string_view rest, const Take& document,
                  BadLines& bad) {
    const std::string& separator = options.document_separator;
    if (separator.empty()) return take_text(chunk, 1, rest, document, bad);
    for (std::int64_t line = chunk.first_line; !rest.empty();) {
      const auto end = rest.find(separator);
      std::string_view text = rest.substr(0, end);
      const std::string_view all = rest.substr(0, end == rest.npos ? end : end + separator.size());
      rest.remove_prefix(all.size());
      if (separator == "\n" && text.ends_with('\r')) text.remove_suffix(1);
      if (text.size() > options.max_document_bytes) {
        bad.add(fmt::format("{}:{}: longer than {} bytes", chunk.file, line,
                            options.max_document_bytes));
      } else if (!is_blank(text)) {
        take_text(chunk, line, text, document, bad);
      }
      line += std::count(all.begin(), all.end(), '\n');
    }
  }

  static void take_text(const CorpusChunk& chunk, std::int64_t line, std::string_view text,
                        const Take& document, BadLines& bad) {
    if (simdjson::validate_utf8(text.data(), text.size())) {
      document({.text = text, .record = {}, .file = chunk.file, .line = line});
    } else {
      bad.add(fmt::format("{}:{}: not valid UTF-8", chunk.file, line));
    }
  }
};

DocumentParser::DocumentParser(const CorpusOptions& options) : state_(std::make_unique<State>()) {
  state_->options = options;
}
DocumentParser::~DocumentParser() = default;

void DocumentParser::parse(const CorpusChunk& chunk,
                           const std::function<void(const Document&)>& document, BadLines& bad) {
  if (!chunk.error.empty()) {
    bad.add(fmt::format("{}:{}: {}", chunk.file, chunk.first_line, chunk.error));
    return;
  }
  std::string_view rest = chunk.bytes;
  if (chunk.at_begin && rest.starts_with(kByteOrderMark)) rest.remove_prefix(kByteOrderMark.size());
  if (chunk.json_lines) {
    state_->parse_lines(chunk, rest, document, bad);
  } else {
    state_->parse_text(chunk, rest, document, bad);
  }
}

}  // namespace grist
