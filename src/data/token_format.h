#pragma once
// Constants of Megatron's .idx layout, for the reader and the writer.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace grist::token_format {

constexpr std::string_view kMagic{"MMIDIDX\0\0", 9};
constexpr std::uint64_t kVersion = 1;
constexpr std::size_t kHeaderBytes = 34;  // magic 9, version 8, dtype 1, sequences 8, boundaries 8

constexpr int kU8 = 1, kI8 = 2, kI16 = 3, kI32 = 4, kI64 = 5, kU16 = 8;

constexpr std::size_t width_of(int dtype) {  // 0: not an integer type
  switch (dtype) {
    case kU8:
    case kI8: return 1;
    case kI16:
    case kU16: return 2;
    case kI32: return 4;
    case kI64: return 8;
    default: return 0;
  }
}

constexpr int dtype_for(std::int64_t vocab_size) {
  return vocab_size < 65500 ? kU16 : kI32;
}

// The common part of a pair's names, given it or one of the two.
inline std::string prefix_of(const std::filesystem::path& path) {
  std::string prefix = path.string();
  const auto extension = path.extension();
  if (extension == ".bin" || extension == ".idx") prefix.resize(prefix.size() - 4);
  return prefix;
}

}  // namespace grist::token_format
