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

bool is_blank(std::string_view line) {
  return std::all_of(line.begin(), line.end(),
                     [](char c) { return c == ' ' || c == '\t' || c == '\r'; });
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
  if (chunk.first_line == 1 && rest.starts_with(kByteOrderMark))
    rest.remove_prefix(kByteOrderMark.size());
  if (!chunk.json_lines) {
    if (simdjson::validate_utf8(rest.data(), rest.size())) {
      document({.text = rest, .record = {}, .file = chunk.file});
    } else {
      bad.add(fmt::format("{}:1: not valid UTF-8", chunk.file));
    }
    return;
  }
  std::string reason;
  for (std::int64_t number = chunk.first_line; !rest.empty(); ++number) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
    if (is_blank(line)) continue;
    reason.clear();
    const std::string_view text = state_->text_of(line, reason);
    if (reason.empty()) {
      document({.text = text,
                .record = line,
                .members = state_->members,
                .file = chunk.file,
                .line = number});
    } else {
      bad.add(fmt::format("{}:{}: {}", chunk.file, number, reason));
    }
  }
}

}  // namespace grist
