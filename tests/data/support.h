#pragma once
// A folder that goes away, files in it, and errors with their exit code.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "grist/core/error.h"
#include "grist/data/token_file.h"
#include "support/temporary_folder.h"

namespace grist::test {

class TempDir {
 public:
  std::string operator/(std::string_view name) const { return (folder_ / name).string(); }
  std::string write(std::string_view name, std::string_view text) const {
    std::filesystem::remove(folder_ / name);  // ext4 flushes a file that was cut and rewritten
    return folder_.write(name, text).string();
  }
  std::vector<std::string> names() const {
    std::vector<std::string> out;
    for (const auto& entry : std::filesystem::directory_iterator(folder_.path()))
      out.push_back(entry.path().filename().string());
    std::sort(out.begin(), out.end());
    return out;
  }

 private:
  TemporaryFolder folder_;
};

// The action must throw Error{code} with a message that holds `part` and is one line.
template <class Action>
::testing::AssertionResult throws(ExitCode code, std::string_view part, const Action& action) {
  try {
    action();
  } catch (const Error& e) {
    const std::string what = e.what();
    if (e.code() != code)
      return ::testing::AssertionFailure() << "exit code " << static_cast<int>(e.code())
                                           << ", want " << static_cast<int>(code) << ": " << what;
    if (what.find(part) == std::string::npos || what.find('\n') != std::string::npos)
      return ::testing::AssertionFailure() << "message is: " << what << "; want: " << part;
    return ::testing::AssertionSuccess();
  }
  return ::testing::AssertionFailure() << "nothing was thrown, want: " << part;
}

using Documents = std::vector<std::vector<std::int32_t>>;

inline void write_tokens(const std::string& prefix, const Documents& documents,
                         std::int64_t vocab_size, const TokenFileInfo& info = {}) {
  TokenFileWriter writer(prefix, vocab_size, true);
  for (const auto& d : documents) writer.add_document(d);
  writer.finish(info);
}

inline Documents read_documents(const TokenFile& file, std::int64_t vocab_size) {
  Documents out;
  for (std::int64_t d = 0; d < file.num_documents(); ++d) {
    out.emplace_back(static_cast<std::size_t>(file.document_end(d) - file.document_begin(d)));
    file.read(file.document_begin(d), out.back(), vocab_size);
  }
  return out;
}

}  // namespace grist::test
