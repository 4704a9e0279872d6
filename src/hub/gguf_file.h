#pragma once
// GGUF version 3, the container that llama.cpp reads: named values, then tensors. Little-endian.
// Source: ggml's docs/gguf.md.
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "grist/core/tensor.h"

namespace grist::hub {

enum class GgufType : std::uint8_t { f32, f16, bf16 };  // of a tensor's elements

std::size_t size_of(GgufType type);
std::uint16_t to_f16(float value);  // to nearest, ties to even; infinite beyond 65504

// The bytes before the tensors, built up in the order of the calls.
class GgufHeader {
 public:
  void add(std::string_view key, std::string_view text);
  void add_u32(std::string_view key, std::int64_t value);
  void add_f32(std::string_view key, double value);
  void add_bool(std::string_view key, bool value);
  void add_strings(std::string_view key, std::span<const std::string> values);
  void add_i32s(std::string_view key, std::span<const std::int32_t> values);
  // A tensor, row-major; tensors lie in the file in the order of these calls.
  void add_tensor(std::string_view name, const Shape& shape, GgufType type);

  // Header with padding; the first tensor starts behind it.
  std::string bytes() const;
  // Where tensor i starts, from the end of the header; for i = their number, where the file ends.
  std::uint64_t offset(std::size_t i) const { return offsets_[i]; }

 private:
  void key(std::string_view name, std::uint32_t type);
  std::string values_, tensors_;
  std::uint64_t num_values_ = 0;
  std::vector<std::uint64_t> offsets_ = {0};
};

}  // namespace grist::hub
