#include "grist/data/document.h"

#include "grist/core/json.h"
#include "json_record.h"

namespace grist {

std::optional<std::string_view> Document::field(std::string_view name) const {
  const JsonMember* member = last_member(members, name);
  if (member == nullptr) return {};
  return member->value;
}

void append_record(std::string& out, const Document& document, std::span<const AddedMember> added) {
  const std::string from_text =
      document.record.empty() ? "{\"text\": " + Json(document.text).dump() + "}" : std::string();
  const std::string_view record = from_text.empty() ? document.record : from_text;
  const std::size_t end = record.rfind('}');
  out += record.substr(0, end);
  bool first = from_text.empty() && document.members.empty();
  for (const AddedMember& member : added) {
    if (!first) out += ", ";
    first = false;
    out += Json(member.name).dump();
    out += ": ";
    out += member.value;
  }
  out += record.substr(end);
}

}  // namespace grist
