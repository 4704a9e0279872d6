#include "grist/record/tensorboard.h"

#include <unistd.h>

#include <array>
#include <bit>
#include <chrono>
#include <cstring>

namespace grist::record {

namespace {

// CRC-32C (Castagnoli), reflected polynomial 0x82F63B78.
constexpr std::array<std::uint32_t, 256> make_crc_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t c = i;
    for (int bit = 0; bit < 8; ++bit) c = (c & 1U) != 0 ? (c >> 1) ^ 0x82F63B78U : c >> 1;
    table[i] = c;
  }
  return table;
}

std::uint32_t masked_crc32c(std::string_view bytes) {
  static constexpr auto kTable = make_crc_table();
  std::uint32_t c = ~0U;
  for (const char b : bytes) c = kTable[(c ^ static_cast<unsigned char>(b)) & 255U] ^ (c >> 8);
  c = ~c;
  return ((c >> 15) | (c << 17)) + 0xa282ead8U;
}

template <class T> void put(std::string& out, T v) {
  static_assert(std::endian::native == std::endian::little);
  char bytes[sizeof v];
  std::memcpy(bytes, &v, sizeof v);
  out.append(bytes, sizeof v);
}

void put_varint(std::string& out, std::uint64_t v) {
  for (; v >= 128; v >>= 7) out += static_cast<char>(v | 128U);
  out += static_cast<char>(v);
}

// Protocol buffer fields: key = number << 3 | wire type.
void put_bytes(std::string& out, int field, std::string_view value) {
  put_varint(out, static_cast<std::uint64_t>(field) << 3 | 2);
  put_varint(out, value.size());
  out += value;
}

std::string record(const std::string& event) {
  std::string out;
  put(out, static_cast<std::uint64_t>(event.size()));
  put(out, masked_crc32c(out));
  out += event;
  put(out, masked_crc32c(event));
  return out;
}

std::string event_at(double wall_time) {
  std::string event;
  put_varint(event, 1 << 3 | 1);
  put(event, wall_time);
  return event;
}

double now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace

std::string tensorboard_version_record(double wall_time) {
  std::string event = event_at(wall_time);
  put_bytes(event, 3, "brain.Event:2");
  return record(event);
}

std::string tensorboard_scalar_record(double wall_time, std::int64_t step,
                                      std::span<const Scalar> scalars) {
  std::string summary;
  for (const Scalar& s : scalars) {
    std::string value;
    put_bytes(value, 1, s.tag);
    put_varint(value, 2 << 3 | 5);
    put(value, static_cast<float>(s.value));
    put_bytes(summary, 1, value);
  }
  std::string event = event_at(wall_time);
  put_varint(event, 2 << 3 | 0);
  put_varint(event, static_cast<std::uint64_t>(step));
  put_bytes(event, 5, summary);
  return record(event);
}

TensorboardWriter::TensorboardWriter(const std::filesystem::path& folder) {
  make_directories(folder);
  char host[256] = "localhost";
  gethostname(host, sizeof host - 1);
  const double start = now();
  const std::string name = "events.out.tfevents." +
                           std::to_string(static_cast<std::int64_t>(start)) + "." + host + "." +
                           std::to_string(getpid());
  file_ = File::open_append(folder / name);
  file_.append(tensorboard_version_record(start));
}

void TensorboardWriter::write(std::int64_t step, std::span<const Scalar> scalars) {
  file_.append(tensorboard_scalar_record(now(), step, scalars));
}

}  // namespace grist::record
