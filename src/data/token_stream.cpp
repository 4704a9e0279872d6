#include "token_stream.h"

#include <algorithm>
#include <utility>

#include "grist/core/check.h"
#include "grist/core/context.h"

namespace grist {

namespace {
constexpr std::size_t kRecentEpochs = 4;
constexpr std::int64_t kThreadedDocuments = 100000;  // below, drawing takes less than 0.1 s
}  // namespace

struct TokenStream::Epoch {
  std::int64_t number = 0;
  std::int64_t documents = 0;
  std::unique_ptr<Permutation> permutation;  // null: the order of the file
  std::vector<std::int64_t> marks;           // tokens before document kStride * i of the order

  std::int64_t document(std::int64_t place) const {
    return permutation
               ? static_cast<std::int64_t>((*permutation)(static_cast<std::uint64_t>(place)))
               : place;
  }
};

// A place in the stream: `offset` tokens into the document at `place` of the epoch's order.
struct TokenStream::Cursor {
  std::shared_ptr<const Epoch> epoch;
  std::int64_t place = 0;
  std::int64_t document = 0;
  std::int64_t offset = 0;
};

TokenStream::TokenStream(const std::string& path, Order order)
    : file_(path), order_(order), mutex_(std::make_unique<std::mutex>()) {
  if (file_.num_tokens() == 0) fail(ExitCode::bad_data, "{}.idx: has no tokens", file_.prefix());
}

void TokenStream::draw_with(std::uint64_t seed, std::string key) {
  seed_ = seed;
  key_ = std::move(key);
}

std::vector<std::int64_t> TokenStream::marks_of(const Epoch& e) const {
  std::vector<std::int64_t> marks(static_cast<std::size_t>((e.documents + kStride - 1) / kStride));
  const auto tokens_of = [&](std::int64_t stride, int) {
    const std::int64_t end = std::min((stride + 1) * kStride, e.documents);
    for (std::int64_t place = stride * kStride; place < end; ++place) {
      const std::int64_t d = e.document(place);
      marks[static_cast<std::size_t>(stride)] += file_.document_end(d) - file_.document_begin(d);
    }
  };
  const auto strides = static_cast<std::int64_t>(marks.size());
  ThreadPool(e.documents < kThreadedDocuments ? 1 : 0).run(strides, tokens_of);
  std::int64_t tokens = 0;
  for (std::int64_t& mark : marks) tokens += std::exchange(mark, tokens);
  GRIST_CHECK(tokens == file_.num_tokens(), "an epoch of {} tokens, the file has {}", tokens,
              file_.num_tokens());
  return marks;
}

std::shared_ptr<const TokenStream::Epoch> TokenStream::epoch(std::int64_t number) const {
  const std::lock_guard lock(*mutex_);
  for (const auto& e : recent_) {
    if (e->number == number) return e;
  }
  auto e = std::make_shared<Epoch>();
  e->number = number;
  e->documents = file_.num_documents();
  if (order_ == Order::drawn) {
    e->permutation = std::make_unique<Permutation>(static_cast<std::uint64_t>(e->documents), seed_,
                                                   fmt::format("{}/documents/{}", key_, number));
    e->marks = marks_of(*e);
  }
  if (recent_.size() == kRecentEpochs) recent_.erase(recent_.begin());
  recent_.push_back(e);
  return e;
}

TokenStream::Cursor TokenStream::find(std::int64_t position) const {
  const std::int64_t within = position % tokens_an_epoch();
  Cursor c{.epoch = epoch(position / tokens_an_epoch())};
  if (order_ == Order::file) {
    c.place = c.document = file_.document_of(within);
    c.offset = within - file_.document_begin(c.document);
    return c;
  }
  const auto& marks = c.epoch->marks;
  const auto mark = std::upper_bound(marks.begin(), marks.end(), within) - marks.begin() - 1;
  c.place = mark * kStride;
  std::int64_t left = within - marks[static_cast<std::size_t>(mark)];
  for (;; ++c.place) {
    c.document = c.epoch->document(c.place);
    const std::int64_t length = file_.document_end(c.document) - file_.document_begin(c.document);
    if (left < length) break;
    left -= length;
  }
  c.offset = left;
  return c;
}

void TokenStream::read(std::int64_t position, std::int64_t vocab_size, std::span<std::int32_t> out,
                       std::span<std::uint8_t> starts) const {
  std::fill(starts.begin(), starts.end(), std::uint8_t{0});
  Cursor c = find(position);
  // Documents that follow each other in the file are read together.
  std::int64_t run_begin = 0;
  std::size_t run_at = 0, run = 0;
  for (std::size_t done = 0; done < out.size();) {
    const std::int64_t begin = file_.document_begin(c.document) + c.offset;
    const std::int64_t length = file_.document_end(c.document) - begin;
    const auto take = std::min(static_cast<std::size_t>(length), out.size() - done);
    if (take > 0 && c.offset == 0) starts[done] = 1;
    if (run_begin + static_cast<std::int64_t>(run) != begin) {
      file_.read(run_begin, out.subspan(run_at, run), vocab_size);
      run_begin = begin;
      run_at = done;
      run = 0;
    }
    run += take;
    done += take;
    if (done == out.size()) break;
    c.offset = 0;
    if (++c.place == c.epoch->documents) {
      c.epoch = epoch(c.epoch->number + 1);
      c.place = 0;
    }
    c.document = c.epoch->document(c.place);
  }
  file_.read(run_begin, out.subspan(run_at, run), vocab_size);
}

std::int64_t TokenStream::sample_position(std::int64_t j, std::int64_t seq_length) const {
  using Wide = __int128;
  const std::int64_t tokens = tokens_an_epoch();
  GRIST_CHECK(j >= 0 && j < (std::int64_t{1} << 62) / seq_length, "sample {}", j);
  const std::int64_t number = j * seq_length / tokens;
  const auto first_of = [&](Wide e) {
    return static_cast<std::int64_t>((e * tokens + seq_length - 1) / seq_length);
  };
  const std::int64_t first = first_of(number);
  const auto count = static_cast<std::uint64_t>(first_of(Wide{number} + 1) - first);
  const Permutation shuffle(count, seed_, fmt::format("{}/samples/{}", key_, number));
  const auto place = shuffle(static_cast<std::uint64_t>(j - first));
  return (first + static_cast<std::int64_t>(place)) * seq_length;
}

}  // namespace grist
