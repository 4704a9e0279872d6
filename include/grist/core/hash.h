#pragma once
// Checksums (XXH3; fast, not cryptographic) and their text form.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace grist {

std::uint64_t hash64(std::span<const std::byte> bytes, std::uint64_t seed = 0);
std::uint64_t hash64(std::string_view text, std::uint64_t seed = 0);
std::string hash_hex(std::uint64_t hash);  // 16 lower-case digits

// The same hash over pieces.
class Hasher {
 public:
  explicit Hasher(std::uint64_t seed = 0);
  ~Hasher();
  Hasher(const Hasher&) = delete;
  Hasher& operator=(const Hasher&) = delete;
  void update(const void* data, std::size_t bytes);
  std::uint64_t digest() const;

 private:
  void* state_;
};

}  // namespace grist
