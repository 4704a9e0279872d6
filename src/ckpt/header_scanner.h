#pragma once
// A scanner for the JSON of safetensors headers: strings, unsigned integers and punctuation, with
// the position of the first mistake. Own code rather than a JSON tree, because a hostile header of
// 100 MB would grow 20-fold as a tree.
#include <cstdint>
#include <string>
#include <string_view>

namespace grist::ckpt {

class HeaderScanner {
 public:
  HeaderScanner(std::string_view text, std::string_view where) : text_(text), where_(where) {}

  [[noreturn]] void wrong(std::string_view problem) const;  // Error{bad_data} with the position
  void skip_space();
  bool take(char c);        // skips space; true and one further when the next byte is c
  void expect(char c);      // skips space; wrong() when the next byte is not c
  std::string string();     // with escapes decoded; control characters refused
  std::uint64_t integer();  // no sign, no leading zero, no fraction
  bool at_end();            // only space is left
  void check_utf8() const;  // the whole text

  // Calls item() for each element of "{...}" or "[...]", separated by commas.
  template <class Item> void list(char open, char close, Item&& item) {
    expect(open);
    if (take(close)) return;
    do item();
    while (take(','));
    expect(close);
  }

 private:
  std::string_view text_;
  std::string_view where_;
  std::size_t at_ = 0;
};

}  // namespace grist::ckpt
