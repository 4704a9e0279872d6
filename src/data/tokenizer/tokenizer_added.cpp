#include "tokenizer_added.h"

#include <algorithm>

namespace grist {

void AddedTokenMatcher::add(const AddedToken& token, std::string_view pattern) {
  std::uint32_t at = 0;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    const auto c = static_cast<unsigned char>(pattern[i]);
    auto& children = nodes_[at].children;
    const auto found =
        std::find_if(children.begin(), children.end(), [c](const auto& k) { return k.first == c; });
    if (found != children.end()) {
      at = found->second;
      continue;
    }
    const auto made = static_cast<std::uint32_t>(nodes_.size());
    children.emplace_back(c, made);
    if (at == 0) first_[c] = made;
    nodes_.emplace_back();
    at = made;
  }
  nodes_[at].token = &token;
}

AddedTokenMatcher::Match AddedTokenMatcher::find(std::string_view text, std::size_t from) const {
  for (std::size_t i = from; i < text.size(); ++i) {
    std::uint32_t at = first_[static_cast<unsigned char>(text[i])];
    if (at == 0) [[likely]]
      continue;
    Match m{.begin = npos};
    for (std::size_t k = i + 1;; ++k) {
      if (nodes_[at].token != nullptr) m = {.begin = i, .end = k, .token = nodes_[at].token};
      if (k == text.size()) break;
      const auto c = static_cast<unsigned char>(text[k]);
      const auto& children = nodes_[at].children;
      const auto next = std::find_if(children.begin(), children.end(),
                                     [c](const auto& child) { return child.first == c; });
      if (next == children.end()) break;
      at = next->second;
    }
    if (m.begin != npos) return m;
  }
  return {.begin = npos};
}

bool AddedTokenMatcher::is_single_word(std::string_view text, const Match& m,
                                       const unicode::Classes& classes) {
  if (m.begin > 0 &&
      (classes[unicode::decode_valid_before(text, m.begin).code] & unicode::kWord) != 0)
    return false;
  return m.end == text.size() ||
         (classes[unicode::decode_valid(text.data() + m.end).code] & unicode::kWord) == 0;
}

void AddedTokenMatcher::widen(std::string_view text, std::size_t floor,
                              const unicode::Classes& classes, Match& m) {
  const auto is_space = [&](char32_t c) { return (classes[c] & unicode::kSpace) != 0; };
  if (m.token->lstrip) {
    while (m.begin > floor) {
      const unicode::Decoded d = unicode::decode_valid_before(text, m.begin);
      if (!is_space(d.code)) break;
      m.begin -= d.bytes;
    }
  }
  if (m.token->rstrip) {
    while (m.end < text.size()) {
      const unicode::Decoded d = unicode::decode_valid(text.data() + m.end);
      if (!is_space(d.code)) break;
      m.end += d.bytes;
    }
  }
}

}  // namespace grist
