#include "grist/comm/collectives.h"

#include <algorithm>
#include <array>
#include <functional>
#include <numeric>

#include "grist/core/check.h"
#include "grist/core/fixed_sum.h"
#include "grist/core/log.h"

namespace grist::comm {

namespace {

std::size_t row_bytes(const Shape& shape, DType dtype) {
  GRIST_CHECK(shape.rank() >= 1, "{} has no rows", shape.str());
  std::size_t bytes = size_of(dtype);
  for (int d = 1; d < shape.rank(); ++d) bytes *= static_cast<std::size_t>(shape[d]);
  return bytes;
}

// Bytes of rows [offsets[p], offsets[p+1]).
template <class Byte>
std::span<Byte> part(Byte* data, std::size_t row, std::span<const std::int64_t> offsets, int p) {
  const auto at = static_cast<std::size_t>(p);
  const auto begin = static_cast<std::size_t>(offsets[at]);
  const auto end = static_cast<std::size_t>(offsets[at + 1]);
  return {data + begin * row, (end - begin) * row};
}

void check_offsets(const Communicator& c, std::span<const std::int64_t> offsets,
                   const Shape& shape) {
  GRIST_CHECK(offsets.size() == static_cast<std::size_t>(c.size()) + 1, "{} offsets for {} ranks",
              offsets.size(), c.size());
  GRIST_CHECK(std::is_sorted(offsets.begin(), offsets.end()) && offsets.front() >= 0 &&
                  offsets.back() <= shape[0],
              "offsets {} to {} of {}", offsets.front(), offsets.back(), shape.str());
}

template <class T> std::span<const std::byte> bytes_of(const T& value) {
  return std::as_bytes(std::span(&value, 1));
}

// Small values take rounds in which a rank talks to kFan - 1 others: 16 ranks need one round, 1000
// need three. Between all pairs at once 1000 ranks would send a million messages.
constexpr int kFan = 16;

// `all` gets size() blocks of mine.size() bytes; block p is what rank p gave. A rank that has the
// blocks of `have` ranks from its own on gets those of kFan * have.
void gather_blocks(Communicator& c, std::span<const std::byte> mine, std::span<std::byte> all) {
  const int n = c.size();
  const auto block = mine.size();
  const auto bytes = [&](int blocks) { return static_cast<std::size_t>(blocks) * block; };
  std::vector<std::byte> from_own(all.size());  // block i is that of rank (rank() + i) % n
  std::copy(mine.begin(), mine.end(), from_own.begin());
  int have = 1;
  do {
    std::vector<Send> sends;
    std::vector<Receive> receives;
    for (int j = 1; j < kFan && j * have < n; ++j) {
      const int first = j * have, count = std::min(have, n - first);
      sends.push_back({(c.rank() - first + n) % n, std::span(from_own).first(bytes(count))});
      receives.push_back(
          {(c.rank() + first) % n, std::span(from_own).subspan(bytes(first), bytes(count))});
    }
    c.exchange(sends, receives).wait();
    have *= kFan;
  } while (have < n);
  const auto turn = static_cast<std::ptrdiff_t>(bytes(n - c.rank()));
  std::rotate_copy(from_own.begin(), from_own.begin() + turn, from_own.end(), all.begin());
}

// values[p] is what rank p gave. T is trivially copyable.
template <class T> std::vector<T> all_gather_values(Communicator& c, const T& mine) {
  std::vector<T> values(static_cast<std::size_t>(c.size()));
  gather_blocks(c, bytes_of(mine), std::as_writable_bytes(std::span(values)));
  return values;
}

// Sums on rank 0; what the others hold afterwards is of no use. The tree of broadcast() backwards.
void sum_up(Communicator& c, std::span<std::int64_t> values) {
  int have = 1;
  while (have * kFan < c.size()) have *= kFan;
  for (; have > 0; have /= kFan) {
    std::vector<Send> sends;
    std::vector<Receive> receives;
    std::vector<std::vector<std::int64_t>> parts;
    for (int from = c.rank() + have; c.rank() < have && from < std::min(c.size(), have * kFan);
         from += have)
      parts.emplace_back(values.size());
    for (std::size_t j = 0; j < parts.size(); ++j)
      receives.push_back({c.rank() + have * (static_cast<int>(j) + 1),
                          std::as_writable_bytes(std::span(parts[j]))});
    if (c.rank() >= have && c.rank() < have * kFan)
      sends.push_back({c.rank() % have, std::as_bytes(values)});
    c.exchange(sends, receives).wait();
    for (const std::vector<std::int64_t>& part : parts)
      std::transform(part.begin(), part.end(), values.begin(), values.begin(), std::plus<>());
  }
}

}  // namespace

Pending all_to_all(Communicator& c, const ConstTensorView& send,
                   std::span<const std::int64_t> send_offsets, const TensorView& receive,
                   std::span<const std::int64_t> receive_offsets) {
  check_offsets(c, send_offsets, send.shape);
  check_offsets(c, receive_offsets, receive.shape);
  const std::size_t row = row_bytes(send.shape, send.dtype);
  GRIST_CHECK(row == row_bytes(receive.shape, receive.dtype), "rows of {} and {} differ",
              send.shape.str(), receive.shape.str());
  std::vector<Send> sends;
  std::vector<Receive> receives;
  for (int p = 0; p < c.size(); ++p) {
    sends.push_back({p, part(static_cast<const std::byte*>(send.data), row, send_offsets, p)});
    receives.push_back({p, part(static_cast<std::byte*>(receive.data), row, receive_offsets, p)});
  }
  return c.exchange(sends, receives);
}

Pending all_gather(Communicator& c, const TensorView& buffer,
                   std::span<const std::int64_t> offsets) {
  check_offsets(c, offsets, buffer.shape);
  const std::size_t row = row_bytes(buffer.shape, buffer.dtype);
  auto* data = static_cast<std::byte*>(buffer.data);
  const std::span<const std::byte> own = part(data, row, offsets, c.rank());
  std::vector<Send> sends;
  std::vector<Receive> receives;
  for (int p = 0; p < c.size(); ++p) {
    if (p == c.rank()) continue;
    sends.push_back({p, own});
    receives.push_back({p, part(data, row, offsets, p)});
  }
  return c.exchange(sends, receives);
}

Pending gather_parts(Communicator& c, const ConstTensorView& buffer,
                     std::span<const std::int64_t> offsets, const TensorView& staging) {
  check_offsets(c, offsets, buffer.shape);
  const auto self = static_cast<std::size_t>(c.rank());
  const std::int64_t own = offsets[self + 1] - offsets[self];
  GRIST_CHECK(buffer.dtype == DType::f32 && staging.dtype == DType::f32 &&
                  staging.shape == Shape({c.size(), own}),
              "staging of {} for {} ranks and {} elements", staging.shape.str(), c.size(), own);
  std::vector<Send> sends;
  std::vector<Receive> receives;
  const auto bytes = static_cast<std::size_t>(own) * sizeof(float);
  for (int p = 0; p < c.size(); ++p) {
    sends.push_back(
        {p, part(static_cast<const std::byte*>(buffer.data), sizeof(float), offsets, p)});
    receives.push_back(
        {p, {static_cast<std::byte*>(staging.data) + static_cast<std::size_t>(p) * bytes, bytes}});
  }
  return c.exchange(sends, receives);
}

void barrier(Communicator& c) {
  all_gather_values(c, std::uint8_t{0});
}

void broadcast(Communicator& c, std::span<std::byte> bytes, int root) {
  const int n = c.size();
  const int place = (c.rank() - root + n) % n;
  int have = 1;  // places below have the bytes
  do {
    std::vector<Send> sends;
    std::vector<Receive> receives;
    for (int to = place + have; place < have && to < std::min(n, have * kFan); to += have)
      sends.push_back({(to + root) % n, bytes});
    if (place >= have && place < have * kFan)
      receives.push_back({(place % have + root) % n, bytes});
    c.exchange(sends, receives).wait();
    have *= kFan;
  } while (have < n);
}

std::string broadcast(Communicator& c, const std::string& text, int root) {
  std::uint64_t length = text.size();
  broadcast(c, std::as_writable_bytes(std::span(&length, 1)), root);
  std::string out = c.rank() == root ? text : std::string(length, '\0');
  broadcast(c, std::as_writable_bytes(std::span(out)), root);
  return out;
}

std::vector<std::string> gather(Communicator& c, const std::string& text, int root) {
  const std::vector<std::uint64_t> lengths = all_gather_values(c, std::uint64_t{text.size()});
  std::vector<std::string> texts;
  std::vector<Receive> receives;
  if (c.rank() == root) {
    for (const std::uint64_t n : lengths) texts.emplace_back(n, '\0');
    for (int p = 0; p < c.size(); ++p)
      receives.push_back(
          {p, std::as_writable_bytes(std::span(texts[static_cast<std::size_t>(p)]))});
  }
  const std::array<Send, 1> sends = {Send{root, std::as_bytes(std::span(text))}};
  c.exchange(sends, receives).wait();
  return texts;
}

std::vector<std::string> all_gather(Communicator& c, const std::string& text) {
  const std::vector<std::uint64_t> lengths = all_gather_values(c, std::uint64_t{text.size()});
  std::vector<std::string> texts;
  for (const std::uint64_t n : lengths) texts.emplace_back(n, '\0');
  std::vector<Send> sends;
  std::vector<Receive> receives;
  for (int p = 0; p < c.size(); ++p) {
    sends.push_back({p, std::as_bytes(std::span(text))});
    receives.push_back({p, std::as_writable_bytes(std::span(texts[static_cast<std::size_t>(p)]))});
  }
  c.exchange(sends, receives).wait();
  return texts;
}

double all_reduce_sum(Communicator& c, double value) {
  const std::vector<double> values = all_gather_values(c, value);
  return balanced_sum(values.data(), std::ssize(values));
}

std::int64_t all_reduce_sum(Communicator& c, std::int64_t value) {
  const std::vector<std::int64_t> values = all_gather_values(c, value);
  return std::accumulate(values.begin(), values.end(), std::int64_t{0});
}

std::vector<double> all_gather(Communicator& c, std::span<const double> values) {
  std::vector<double> all(values.size() * static_cast<std::size_t>(c.size()));
  gather_blocks(c, std::as_bytes(values), std::as_writable_bytes(std::span(all)));
  return all;
}

std::int64_t all_reduce_max(Communicator& c, std::int64_t value) {
  const std::vector<std::int64_t> values = all_gather_values(c, value);
  return *std::max_element(values.begin(), values.end());
}

void all_reduce_sum(Communicator& c, std::span<std::int64_t> values) {
  sum_up(c, values);
  broadcast(c, std::as_writable_bytes(values), 0);
}

void agree(Communicator& c, const std::function<void()>& work) {
  int code = 0;
  std::string what;
  try {
    work();
  } catch (const Error& e) {
    if (c.size() == 1) throw;
    code = static_cast<int>(e.code());
    what = e.what();
  } catch (const std::exception& e) {
    if (c.size() == 1) throw;
    code = static_cast<int>(ExitCode::internal);
    what = e.what();
  }
  if (all_reduce_max(c, code == 0 ? 0 : 1) == 0) return;
  const std::vector<std::string> all = all_gather(c, fmt::format("{} {}", code, what));
  const bool same = std::all_of(all.begin(), all.end(), [&](const auto& t) { return t == all[0]; });
  for (std::size_t p = 0; p < all.size(); ++p) {
    const int theirs = std::stoi(all[p]);
    if (theirs == 0) continue;
    const std::string line = all[p].substr(all[p].find(' ') + 1);
    throw Agreed(static_cast<ExitCode>(theirs), same ? line : fmt::format("rank {}: {}", p, line));
  }
}

}  // namespace grist::comm
