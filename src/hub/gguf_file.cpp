// The bytes of a GGUF header.
#include "gguf_file.h"

#include <bit>
#include <cmath>
#include <cstring>

#include "grist/core/check.h"

namespace grist::hub {

namespace {

constexpr std::uint32_t kVersion = 3;
constexpr std::uint64_t kAlign = 32;  // general.alignment's default
constexpr std::uint32_t kU32 = 4, kI32 = 5, kF32 = 6, kBool = 7, kString = 8, kArray = 9;

template <class T> void put(std::string& out, T value) {
  static_assert(std::endian::native == std::endian::little);
  char bytes[sizeof value];
  std::memcpy(bytes, &value, sizeof value);
  out.append(bytes, sizeof value);
}

void put_text(std::string& out, std::string_view text) {
  put<std::uint64_t>(out, text.size());
  out += text;
}

std::uint64_t aligned(std::uint64_t n) {
  return (n + kAlign - 1) / kAlign * kAlign;
}

std::uint32_t code_of(GgufType type) {
  switch (type) {
    case GgufType::f32: return 0;
    case GgufType::f16: return 1;
    case GgufType::bf16: return 30;
  }
  return 0;
}

}  // namespace

std::size_t size_of(GgufType type) {
  return type == GgufType::f32 ? 4 : 2;
}

std::uint16_t to_f16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>(bits >> 16 & 0x8000U);
  if (std::isnan(value)) return sign | 0x7E00U;
  const float magnitude = std::fabs(value);
  if (magnitude >= 65520.0F) return sign | 0x7C00U;  // half way to the next, which is even
  if (magnitude < 0x1p-14F) {  // a multiple of 2^-24: rounded where the mantissa ends
    const float scaled = std::nearbyint(std::ldexp(magnitude, 24));
    return sign | static_cast<std::uint16_t>(scaled);
  }
  // Exponent and fraction as one number, rounded at bit 13; a carry moves the exponent.
  const std::uint32_t rest = (bits & 0x7FFFFFFFU) - (112U << 23);
  const std::uint32_t rounded = rest + 0x0FFFU + (rest >> 13 & 1U);
  return sign | static_cast<std::uint16_t>(rounded >> 13);
}

void GgufHeader::key(std::string_view name, std::uint32_t type) {
  put_text(values_, name);
  put(values_, type);
  ++num_values_;
}

void GgufHeader::add(std::string_view name, std::string_view text) {
  key(name, kString);
  put_text(values_, text);
}

void GgufHeader::add_u32(std::string_view name, std::int64_t value) {
  GRIST_CHECK(value >= 0 && value <= UINT32_MAX, "{} = {}", name, value);
  key(name, kU32);
  put(values_, static_cast<std::uint32_t>(value));
}

void GgufHeader::add_f32(std::string_view name, double value) {
  key(name, kF32);
  put(values_, static_cast<float>(value));
}

void GgufHeader::add_bool(std::string_view name, bool value) {
  key(name, kBool);
  put<std::uint8_t>(values_, value ? 1 : 0);
}

void GgufHeader::add_strings(std::string_view name, std::span<const std::string> values) {
  key(name, kArray);
  put(values_, kString);
  put<std::uint64_t>(values_, values.size());
  for (const std::string& v : values) put_text(values_, v);
}

void GgufHeader::add_i32s(std::string_view name, std::span<const std::int32_t> values) {
  key(name, kArray);
  put(values_, kI32);
  put<std::uint64_t>(values_, values.size());
  for (const std::int32_t v : values) put(values_, v);
}

void GgufHeader::add_tensor(std::string_view name, const Shape& shape, GgufType type) {
  put_text(tensors_, name);
  put(tensors_, static_cast<std::uint32_t>(shape.rank()));
  for (int d = shape.rank() - 1; d >= 0; --d)  // the fastest dimension first
    put(tensors_, static_cast<std::uint64_t>(shape[d]));
  put(tensors_, code_of(type));
  put(tensors_, offsets_.back());
  offsets_.push_back(
      aligned(offsets_.back() + static_cast<std::uint64_t>(shape.numel()) * size_of(type)));
}

std::string GgufHeader::bytes() const {
  std::string out = "GGUF";
  put(out, kVersion);
  put<std::uint64_t>(out, offsets_.size() - 1);
  put(out, num_values_);
  out += values_;
  out += tensors_;
  out.resize(aligned(out.size()), '\0');
  return out;
}

}  // namespace grist::hub
