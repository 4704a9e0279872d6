#pragma once
// Added tokens: found in the text before anything else happens to it, leftmost first, longest of
// those that begin at one place.
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "unicode.h"

namespace grist {

struct AddedToken {
  std::int32_t id = 0;
  std::string content;
  bool single_word = false;  // only between characters that are not \w
  bool lstrip = false;       // takes white space before it along
  bool rstrip = false;       // and after it
  bool normalized = false;
  bool special = false;
};

class AddedTokenMatcher {
 public:
  struct Match {
    std::size_t begin = 0, end = 0;  // begin == npos: none
    const AddedToken* token = nullptr;
  };
  static constexpr std::size_t npos = std::string_view::npos;

  AddedTokenMatcher() { first_.fill(0); }
  // Finds `token` where the text reads `pattern`. Refers to the token: it must stay where it is.
  void add(const AddedToken& token, std::string_view pattern);
  bool empty() const { return nodes_.size() == 1; }

  // Calls on_text(part) and on_token(id) in the order of the text.
  template <class OnText, class OnToken>
  void split(std::string_view text, const unicode::Classes& classes, bool special_as_text,
             const OnText& on_text, const OnToken& on_token) const {
    std::size_t done = 0;
    for (std::size_t from = 0; from < text.size();) {
      Match m = find(text, from);
      if (m.begin == npos) break;
      from = m.end;
      if (special_as_text && m.token->special) continue;
      if (m.token->single_word && !is_single_word(text, m, classes)) continue;
      widen(text, done, classes, m);
      if (done < m.begin) on_text(text.substr(done, m.begin - done));
      on_token(m.token->id);
      done = m.end;
    }
    if (done < text.size()) on_text(text.substr(done));
  }

 private:
  struct Node {
    std::vector<std::pair<unsigned char, std::uint32_t>> children;
    const AddedToken* token = nullptr;
  };
  Match find(std::string_view text, std::size_t from) const;
  static bool is_single_word(std::string_view text, const Match& m,
                             const unicode::Classes& classes);
  // lstrip and rstrip; does not go before `floor`.
  static void widen(std::string_view text, std::size_t floor, const unicode::Classes& classes,
                    Match& m);

  std::vector<Node> nodes_ = std::vector<Node>(1);  // node 0 is the root
  std::array<std::uint32_t, 256> first_{};          // root's children by byte; 0: none
};

}  // namespace grist
