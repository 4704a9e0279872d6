// Chunks to documents; the only file that includes simdjson.
#include <simdjson.h>

#include <algorithm>
#include <cstring>

#include "grist/core/check.h"
#include "grist/data/corpus.h"

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
  simdjson::dom::parser parser;

  // The document of one line, or the reason why there is none. `line` must be followed by
  // SIMDJSON_PADDING readable bytes.
  std::string_view text_of(std::string_view line, std::string& reason) {
    if (line.size() > options.max_document_bytes) {
      reason = fmt::format("longer than {} bytes", options.max_document_bytes);
      return {};
    }
    simdjson::dom::element element;
    if (const auto error = parser.parse(line.data(), line.size(), false).get(element)) {
      reason = fmt::format("not valid JSON: {}", simdjson::error_message(error));
      if (error == simdjson::UTF8_ERROR) reason = "not valid UTF-8";
      return {};
    }
    simdjson::dom::object object;
    simdjson::dom::element value;
    std::string_view text;
    if (element.get(object) != simdjson::SUCCESS) {
      reason = "not a JSON object";
    } else if (object.at_key(options.text_key).get(value) != simdjson::SUCCESS) {
      reason = fmt::format("has no key \"{}\"", options.text_key);
    } else if (value.get(text) != simdjson::SUCCESS) {
      reason = fmt::format("key \"{}\" is not a string", options.text_key);
    }
    return text;
  }
};

DocumentParser::DocumentParser(const CorpusOptions& options) : state_(std::make_unique<State>()) {
  state_->options = options;
}
DocumentParser::~DocumentParser() = default;

void DocumentParser::parse(CorpusChunk& chunk,
                           const std::function<void(std::string_view)>& document, BadLines& bad) {
  if (!chunk.error.empty()) {
    bad.add(fmt::format("{}:{}: {}", chunk.file, chunk.first_line, chunk.error));
    return;
  }
  const std::size_t size = chunk.bytes.size();
  chunk.bytes.append(simdjson::SIMDJSON_PADDING, '\0');
  std::string_view rest = std::string_view(chunk.bytes).substr(0, size);
  if (chunk.first_line == 1 && rest.starts_with(kByteOrderMark))
    rest.remove_prefix(kByteOrderMark.size());
  if (!chunk.json_lines) {
    if (simdjson::validate_utf8(rest.data(), rest.size())) {
      document(rest);
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
      document(text);
    } else {
      bad.add(fmt::format("{}:{}: {}", chunk.file, number, reason));
    }
  }
}

}  // namespace grist
