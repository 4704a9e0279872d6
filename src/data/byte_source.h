#pragma once
// The bytes of a file, decompressed when its name ends in .gz or .zst. All members of a .gz and all
// frames of a .zst are read, zeros behind a member and windows of any size included; one that ends
// early is bad_data.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>

namespace grist {

class ByteSource {
 public:
  static std::unique_ptr<ByteSource> open(const std::filesystem::path& path);
  virtual ~ByteSource() = default;
  virtual std::size_t read(std::span<char> out) = 0;  // fills out; fewer bytes only at the end
  virtual std::uint64_t consumed() const = 0;         // bytes of the file read so far
};

}  // namespace grist
