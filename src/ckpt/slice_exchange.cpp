#include "slice_exchange.h"

#include <cstring>

#include "grist/core/check.h"

namespace grist::ckpt {

namespace {

template <class T> void put(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

template <class T> T take(std::string_view& text) {
  T value{};
  GRIST_CHECK(text.size() >= sizeof value, "a list of slices ends early");
  std::memcpy(&value, text.data(), sizeof value);
  text.remove_prefix(sizeof value);
  return value;
}

std::string take_text(std::string_view& text, std::size_t bytes) {
  GRIST_CHECK(text.size() >= bytes, "a list of slices ends early");
  std::string out(text.substr(0, bytes));
  text.remove_prefix(bytes);
  return out;
}

}  // namespace

std::string encode_slices(std::span<const TensorSlice> slices) {
  std::string out;
  for (const TensorSlice& s : slices) {
    put(out, static_cast<std::uint32_t>(s.name.size()));
    out += s.name;
    put(out, s.dtype);
    put(out, s.shape.rank());
    for (int d = 0; d < s.shape.rank(); ++d) put(out, s.shape[d]);
    put(out, s.part);
  }
  return out;
}

std::vector<TensorSlice> decode_slices(std::string_view text) {
  std::vector<TensorSlice> slices;
  while (!text.empty()) {
    TensorSlice s;
    s.name = take_text(text, take<std::uint32_t>(text));
    s.dtype = take<DType>(text);
    for (int rank = take<int>(text); rank > 0; --rank) s.shape.append(take<std::int64_t>(text));
    s.part = take<TensorPart>(text);
    slices.push_back(std::move(s));
  }
  return slices;
}

}  // namespace grist::ckpt
