#include "tensorboard.h"

#include <unistd.h>

#include <array>
#include <bit>
#include <chrono>
#include <cstring>

#include "grist/core/host.h"

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

namespace {

std::filesystem::path event_file(const std::filesystem::path& folder, double start) {
  return folder / ("events.out.tfevents." + std::to_string(static_cast<std::int64_t>(start)) + "." +
                   host_name() + "." + std::to_string(getpid()));
}

}  // namespace

Tensorboard::Tensorboard(const std::filesystem::path& folder) : file_(event_file(folder, now())) {
  file_.append(tensorboard_version_record(now()));
}

void Tensorboard::write(const StepRecord& r) {
  std::vector<Scalar> scalars = {{"train/loss", r.loss}};
  for (const nn::LossTerm& t : r.terms)
    scalars.push_back({"train/" + std::string(t.name), t.value});
  scalars.insert(scalars.end(), {{"train/grad_norm", r.grad_norm},
                                 {"train/lr", r.lr},
                                 {"train/tokens_per_second", r.tokens_per_second},
                                 {"moe/max_vio", max_vio(r)},
                                 {"moe/dropped_fraction", dropped_fraction(r)}});
  file_.append(tensorboard_scalar_record(now(), r.step, scalars));
}

void Tensorboard::write(const ValidationRecord& r) {
  for (const ValidationRecord::Set& s : r.sets) {
    const Scalar scalars[] = {{"validation/" + s.name, s.loss}};
    file_.append(tensorboard_scalar_record(now(), r.step, scalars));
  }
}

}  // namespace grist::record
