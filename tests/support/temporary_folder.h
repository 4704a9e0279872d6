#pragma once
// A folder that goes away with the test.
#include <stdlib.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <string_view>

#include "grist/core/file.h"

namespace grist::test {

// Where a test's folders go: TMPDIR, else memory where the machine has enough of it (thousands of
// saves with fsync), else the system's place.
inline const std::filesystem::path& scratch_root() {
  static const std::filesystem::path root = [] {
    const std::filesystem::path memory = "/dev/shm";
    std::error_code error;
    const auto space = std::filesystem::space(memory, error);
    const bool enough = !error && space.available > std::uintmax_t{1} << 30;
    return std::getenv("TMPDIR") == nullptr && enough ? memory
                                                      : std::filesystem::temp_directory_path();
  }();
  return root;
}

class TemporaryFolder {
 public:
  explicit TemporaryFolder(const std::filesystem::path& root = scratch_root()) {
    std::string name = (root / "grist-test-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("cannot make " + name);
    path_ = name;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(std::string_view name) const { return path_ / name; }
  std::filesystem::path write(std::string_view name, std::string_view text) const {
    File f = File::create(path_ / name);
    f.write_at(0, std::as_bytes(std::span(text)));
    return path_ / name;
  }

 private:
  std::filesystem::path path_;
};

}  // namespace grist::test
