#pragma once
// Everything wrong with a configuration, collected so that the user sees it all at once.
#include <string>
#include <string_view>
#include <vector>

namespace grist::config {

// A place in the file or in the --set arguments.
struct Where {
  int source = 0;  // index into Problems' sources; 0 is the file
  int line = 0;    // from 1; 0: no line to name
};

class Problems {
 public:
  explicit Problems(std::string file) : sources_{std::move(file)} {}
  int add_source(std::string name);    // "--set optim.lr=1"
  std::string str(Where where) const;  // "run.yaml:12"
  // A problem with a key makes it unusable: later checks skip it, so that one mistake is one line.
  void add(Where where, std::string_view key, std::string_view text);
  bool is_bad(std::string_view key) const;
  bool empty() const { return list_.empty(); }
  void throw_if_any() const;  // Error{config}: one line a problem, in the order of the lines

 private:
  struct Problem {
    Where where;
    std::string key;
    std::string text;
  };
  std::vector<std::string> sources_;
  std::vector<Problem> list_;
};

}  // namespace grist::config
