#pragma once
// Reading text corpora: .txt (one document a file, or several with a separator between them) and
// .jsonl, .ndjson, .json (one object a line), each plain, .gz or .zst, in bounded memory. A pipe
// whose name says nothing is plain: lines of JSON, or text where a separator is given. Reading is
// cut in two so that many threads can share the work: CorpusReader cuts files into chunks of whole
// lines, a DocumentParser on each thread turns chunks into documents. data/document_pipeline.h puts
// the two together.
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "grist/data/document.h"

namespace grist {

// A bad line is one that cannot be a document: not JSON, no such key, not a string, not UTF-8, too
// long. Either way each is counted and the first ones are named.
enum class OnBadLine { refuse, skip };
OnBadLine parse_on_bad_line(std::string_view text);  // "refuse" | "skip"; Error{usage}
// A separator as a shell passes it on: \n, \r, \t and \\ mean what they mean in C. Error{usage}.
std::string parse_separator(std::string_view text);

struct CorpusOptions {
  std::vector<std::string> inputs;  // paths or glob patterns
  std::string text_key = "text";    // of .jsonl objects
  // Stands between the documents of a .txt; empty: the file is one document.
  std::string document_separator{};
  OnBadLine on_bad_line = OnBadLine::refuse;
  // What is longer is a bad line.
  std::size_t max_document_bytes = std::size_t{64} << 20;  // a line, or what is between separators
  std::size_t max_text_bytes = std::size_t{1} << 30;       // a .txt that is one document
};

// Files that the patterns name: patterns in the given order, sorted by bytes within a pattern, each
// file once. not_found when a pattern matches nothing, bad_data when an ending is not one of ours.
std::vector<std::filesystem::path> expand_inputs(const std::vector<std::string>& patterns);

// Whole lines of one file, or whole documents of a .txt.
struct CorpusChunk {
  std::string file;
  std::int64_t first_line = 1;
  bool at_begin = true;  // of the file
  bool json_lines = false;
  std::string bytes;
  std::string error;              // not empty: the one line of this chunk is bad, for this reason
  std::uint64_t input_bytes = 0;  // bytes of all inputs consumed so far, as stored on disk
};

// Throws bad_data naming the file for an archive that is truncated or damaged: that is never a bad
// line to skip.
class CorpusReader {
 public:
  explicit CorpusReader(const CorpusOptions& options);
  ~CorpusReader();
  CorpusReader(const CorpusReader&) = delete;
  CorpusReader& operator=(const CorpusReader&) = delete;
  bool next(CorpusChunk& chunk);  // false: no more; reuses the chunk's memory
  std::uint64_t total_input_bytes() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

struct BadLines {
  static constexpr std::size_t kNamed = 10;
  std::int64_t count = 0;
  std::vector<std::string> first;  // "file:line: reason"
  void add(std::string line);
  void merge(const BadLines& later);
  std::string summary() const;  // one line: the count and the first ones
};

// One per thread.
class DocumentParser {
 public:
  explicit DocumentParser(const CorpusOptions& options);
  ~DocumentParser();
  DocumentParser(const DocumentParser&) = delete;
  DocumentParser& operator=(const DocumentParser&) = delete;
  // Calls document for each document in order. Blank lines and a byte order mark are passed over.
  void parse(const CorpusChunk& chunk, const std::function<void(const Document&)>& document,
             BadLines& bad);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

[[noreturn]] void refuse_bad_lines(const BadLines& bad);

}  // namespace grist
