#pragma once
// A table row of a wrong configuration and the test that runs it.
#include <gtest/gtest.h>

#include <algorithm>

#include "support.h"

namespace grist::test {

struct Wrong {
  const char* name;
  std::string text;
  std::vector<std::string> says;  // each is somewhere in the message
  std::size_t lines = 1;          // problems
};

inline std::string small(std::string_view from, std::string_view to) {
  return replaced(kSmall, from, to);
}
inline void PrintTo(const Wrong& wrong, std::ostream* out) {
  *out << wrong.name;
}

inline std::string name_of(const ::testing::TestParamInfo<Wrong>& info) {
  return info.param.name;
}

// Loads row.text and compares the message with what the row wants.
inline void expect_refused(const Wrong& row) {
  const std::string message = message_of(row.text);

  for (const std::string& part : row.says)
    EXPECT_NE(message.find(part), std::string::npos) << "want: " << part << "\ngot:  " << message;
  EXPECT_EQ(static_cast<std::size_t>(std::count(message.begin(), message.end(), '\n')) + 1,
            row.lines)
      << message;
}

}  // namespace grist::test
