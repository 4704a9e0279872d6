#include "grist/data/corpus.h"

#include <glob.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "byte_source.h"
#include "grist/core/check.h"

namespace grist {

namespace {

namespace fs = std::filesystem;

constexpr std::size_t kChunkBytes = std::size_t{1} << 20;

enum class Kind { text, json_lines, pipe, unknown };

Kind kind_of(const fs::path& path) {
  fs::path name = path.filename();
  if (name.extension() == ".gz" || name.extension() == ".zst") name = name.stem();
  const auto extension = name.extension();
  if (extension == ".txt") return Kind::text;
  if (extension == ".jsonl" || extension == ".ndjson" || extension == ".json")
    return Kind::json_lines;
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  return fs::is_fifo(status) || fs::is_character_file(status) ? Kind::pipe : Kind::unknown;
}

std::vector<std::string> matches_of(const std::string& pattern) {
  std::error_code error;
  if (fs::exists(pattern, error)) return {pattern};  // a name may hold glob characters
  struct Found {
    glob_t g{};
    ~Found() { ::globfree(&g); }
  } found;
  std::vector<std::string> paths;
  if (::glob(pattern.c_str(), GLOB_NOSORT | GLOB_BRACE, nullptr, &found.g) == 0)
    paths.assign(found.g.gl_pathv, found.g.gl_pathv + found.g.gl_pathc);
  if (paths.empty()) fail(ExitCode::not_found, "{}: no such input file", pattern);
  std::sort(paths.begin(), paths.end());
  return paths;
}

}  // namespace

OnBadLine parse_on_bad_line(std::string_view text) {
  if (text == "refuse") return OnBadLine::refuse;
  if (text == "skip") return OnBadLine::skip;
  fail(ExitCode::usage, "on_bad_line '{}' is neither refuse nor skip", text);
}

std::string parse_separator(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\') {
      out += text[i];
      continue;
    }
    const char c = ++i < text.size() ? text[i] : '\0';
    if (c != 'n' && c != 'r' && c != 't' && c != '\\')
      fail(ExitCode::usage, "--document-separator '{}': only \\n, \\r, \\t and \\\\ are known",
           text);
    out += c == 'n' ? '\n' : c == 'r' ? '\r' : c == 't' ? '\t' : '\\';
  }
  if (out.empty()) fail(ExitCode::usage, "--document-separator is empty");
  return out;
}

std::vector<fs::path> expand_inputs(const std::vector<std::string>& patterns) {
  if (patterns.empty()) fail(ExitCode::usage, "no input files given");
  std::vector<fs::path> files;
  std::set<std::string> seen;
  for (const std::string& pattern : patterns) {
    for (const std::string& path : matches_of(pattern)) {
      std::error_code error;
      if (fs::is_directory(path, error))
        fail(ExitCode::usage, "{}: is a folder; name its files, for example '{}/*.jsonl'", path,
             path);
      if (kind_of(path) == Kind::unknown)
        fail(ExitCode::bad_data,
             "{}: unknown kind of input; .txt, .jsonl, .ndjson or .json, each also .gz or .zst",
             path);
      if (seen.insert(fs::path(path).lexically_normal().string()).second) files.emplace_back(path);
    }
  }
  return files;
}

void BadLines::add(std::string line) {
  ++count;
  if (first.size() < kNamed) first.push_back(std::move(line));
}

void BadLines::merge(const BadLines& later) {
  count += later.count;
  for (const std::string& line : later.first) {
    if (first.size() < kNamed) first.push_back(line);
  }
}

std::string BadLines::summary() const {
  std::string lines = fmt::format("{} bad line{} in the input, first {}: ", count,
                                  count == 1 ? "" : "s", first.size());
  for (std::size_t i = 0; i < first.size(); ++i) lines += (i == 0 ? "" : "; ") + first[i];
  if (count > static_cast<std::int64_t>(first.size())) lines += "; ...";
  return lines;
}

void refuse_bad_lines(const BadLines& bad) {
  fail(ExitCode::bad_data, "{} (repair them, or leave them out with --on-bad-line skip)",
       bad.summary());
}

// ---- chunks ----------------------------------------------------------------------------------

namespace {

std::int64_t newlines(std::string_view bytes) {
  return std::count(bytes.begin(), bytes.end(), '\n');
}

// Where the last of the separators ends, which are looked for one behind the other; 0: there is
// none.
std::size_t last_end(std::string_view bytes, std::string_view separator, std::size_t from) {
  std::size_t end = 0;
  for (std::size_t at = bytes.find(separator, from); at != std::string_view::npos;
       at = bytes.find(separator, end))
    end = at + separator.size();
  return end;
}

}  // namespace

struct CorpusReader::State {
  CorpusOptions options;
  std::vector<fs::path> files;
  std::uint64_t total_bytes = 0, done_bytes = 0;  // stored sizes: all files, those behind us
  std::size_t file = 0;
  std::unique_ptr<ByteSource> source;  // of files[file]; null: not open yet
  bool json_lines = false;             // of this file
  std::string separator;               // of its documents; empty: it is one
  std::string carry;                   // the begun document after the last chunk
  std::int64_t line = 1;
  bool ended = false;  // all of the file was read; carry may hold its last documents

  // Appends up to kChunkBytes; false when the file has ended.
  bool grow(std::string& bytes) const {
    const std::size_t old = bytes.size();
    bytes.resize(old + kChunkBytes);
    const std::size_t got = source->read(std::span(bytes).subspan(old));
    bytes.resize(old + got);
    return got == kChunkBytes;
  }

  void open_file() {
    source = ByteSource::open(files[file]);
    const Kind kind = kind_of(files[file]);
    json_lines =
        kind == Kind::json_lines || (kind == Kind::pipe && options.document_separator.empty());
    separator = json_lines ? "\n" : options.document_separator;
    line = 1;
    ended = false;
  }

  void close_file() {
    done_bytes += source->consumed();
    source.reset();
    carry.clear();
    ++file;
  }

  // What may be the begin of a separator at the end of so many bytes.
  std::size_t overlap(std::size_t bytes) const { return std::min(bytes, separator.size() - 1); }

  // Drops a document that is too long, whose begin is in the chunk; bounded memory whatever its
  // length. What follows it stays in carry.
  void skip_document(CorpusChunk& chunk) {
    chunk.error = fmt::format("longer than {} bytes", options.max_document_bytes);
    std::string& bytes = chunk.bytes;
    for (bool more = true; more;) {
      const std::size_t drop = bytes.size() - overlap(bytes.size());
      line += newlines(std::string_view(bytes).substr(0, drop));
      bytes.erase(0, drop);
      more = grow(bytes);
      const auto found = bytes.find(separator);
      if (found == std::string::npos) continue;
      const std::size_t end = found + separator.size();
      line += newlines(std::string_view(bytes).substr(0, end));
      carry.assign(bytes, end);
      ended = !more;
      bytes.clear();
      return;
    }
    bytes.clear();
    ended = true;
  }

  // Ends the chunk behind its last separator at or after `from`; what follows stays in carry.
  bool cut(CorpusChunk& chunk, std::size_t from) {
    const std::size_t end = last_end(chunk.bytes, separator, from);
    if (end == 0) return false;
    carry.assign(chunk.bytes, end);
    chunk.bytes.resize(end);
    line += newlines(chunk.bytes);
    return true;
  }

  // Whole documents, at least one; false: the file had none left.
  bool next_documents(CorpusChunk& chunk) {
    chunk.bytes.swap(carry);
    carry.clear();
    chunk.first_line = line;
    if (cut(chunk, 0)) return true;  // behind a document that was too long
    while (!ended) {
      const std::size_t old = chunk.bytes.size();
      ended = !grow(chunk.bytes);
      if (cut(chunk, old - overlap(old))) return true;
      if (chunk.bytes.size() <= options.max_document_bytes) continue;
      if (ended) break;  // the parser says that it is too long
      skip_document(chunk);
      return true;
    }
    close_file();
    return !chunk.bytes.empty();
  }

  void next_text(CorpusChunk& chunk) {
    chunk.bytes.clear();
    chunk.first_line = 1;
    while (grow(chunk.bytes) && chunk.bytes.size() <= options.max_text_bytes) {
    }
    if (chunk.bytes.size() > options.max_text_bytes) {
      chunk.error = fmt::format(
          "longer than {} bytes, and a .txt is one document: say what stands between its documents "
          "with --document-separator ('\\n': a line is a document), or write a .jsonl",
          options.max_text_bytes);
      chunk.bytes.clear();
    }
    close_file();
  }
};

CorpusReader::CorpusReader(const CorpusOptions& options) : state_(std::make_unique<State>()) {
  state_->options = options;
  state_->files = expand_inputs(options.inputs);
  for (const fs::path& path : state_->files) {
    std::error_code error;
    if (!fs::is_regular_file(path, error)) continue;  // a pipe says nothing of its size
    const auto bytes = fs::file_size(path, error);
    if (error) fail(ExitCode::io, "{}: cannot read its size: {}", path.string(), error.message());
    state_->total_bytes += bytes;
  }
}
CorpusReader::~CorpusReader() = default;

std::uint64_t CorpusReader::total_input_bytes() const {
  return state_->total_bytes;
}

bool CorpusReader::next(CorpusChunk& chunk) {
  State& s = *state_;
  chunk.error.clear();
  bool found = false;
  while (!found && s.file < s.files.size()) {
    const fs::path& path = s.files[s.file];
    chunk.at_begin = s.source == nullptr;
    if (chunk.at_begin) s.open_file();
    chunk.file = path.string();
    chunk.json_lines = s.json_lines;
    if (s.separator.empty()) {
      s.next_text(chunk);
      found = true;
    } else {
      found = s.next_documents(chunk);
    }
    chunk.input_bytes = s.done_bytes + (s.source ? s.source->consumed() : 0);
  }
  return found;
}

}  // namespace grist
