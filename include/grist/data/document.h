#pragma once
// A document of a corpus with all that its record holds: a reader that keeps some documents, or
// adds to them, writes the others' bytes as they were.
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace grist {

struct JsonMember {
  std::string_view name;   // with its quotes and escapes
  std::string_view value;  // any JSON, as it stands in the line
};

// Views that live as long as the call that is given the document.
struct Document {
  std::string_view text;    // valid UTF-8
  std::string_view record;  // the JSON line without its line end; empty: the input is plain text
  std::span<const JsonMember> members{};  // of the record, in its order
  std::string_view file{};
  std::int64_t line = 1;  // of the file, where the document begins

  // The value as it stands in the record, of the last member of that name, as Python takes it.
  std::optional<std::string_view> field(std::string_view name) const;
};

struct AddedMember {
  std::string_view name;   // plain text
  std::string_view value;  // JSON on one line
};

// Appends the record with `added` behind its own members, which stay the bytes they are; of a name
// that it had already the added one counts from now on. No line end. Plain text becomes a record
// {"text": ...}.
void append_record(std::string& out, const Document& document, std::span<const AddedMember> added);

}  // namespace grist
