// Reading .bin/.idx pairs.
#include "grist/data/token_file.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>

#include "grist/core/check.h"
#include "grist/core/hash.h"
#include "token_format.h"

namespace grist {

namespace {

constexpr std::size_t kReadBytes = std::size_t{1} << 20;
constexpr std::uint64_t kSampleBlock = std::uint64_t{1} << 16;
constexpr std::uint64_t kSampleBlocks = 256;

template <class T> T load(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

// Reads a file front to back in blocks, hashing all of it; next<T>() crosses block edges.
class IndexReader {
 public:
  explicit IndexReader(const std::string& path)
      : file_(File::open_read(path)),
        size_(file_.size()),
        buffer_(std::clamp<std::size_t>(size_, 16, kReadBytes)) {}
  std::uint64_t size() const { return size_; }
  std::uint64_t position() const { return base_ + at_; }
  std::string name() const { return file_.path().string(); }
  std::uint64_t digest() const { return hasher_.digest(); }

  template <class T> T next() {
    if (have_ - at_ < sizeof(T)) refill(sizeof(T));
    const T value = load<T>(buffer_.data() + at_);
    at_ += sizeof(T);
    return value;
  }

 private:
  void refill(std::size_t wanted) {
    std::copy(buffer_.begin() + static_cast<std::ptrdiff_t>(at_),
              buffer_.begin() + static_cast<std::ptrdiff_t>(have_), buffer_.begin());
    base_ += at_;
    have_ -= at_;
    at_ = 0;
    const auto room = std::span(buffer_).subspan(have_);
    const std::size_t got = file_.read_some_at(base_ + have_, room);
    hasher_.update(room.data(), got);
    have_ += got;
    if (have_ < wanted)
      fail(ExitCode::bad_data, "{}: ends at byte {}, in the middle of a value (truncated?)", name(),
           base_ + have_);
  }
  File file_;
  std::uint64_t size_;
  std::vector<std::byte> buffer_;
  std::size_t at_ = 0, have_ = 0;
  std::uint64_t base_ = 0;
  Hasher hasher_;
};

struct IndexHeader {
  int dtype = 0;
  std::uint64_t sequences = 0, boundaries = 0;
};

IndexHeader read_header(IndexReader& in) {
  const std::string name = in.name();
  if (in.size() < token_format::kHeaderBytes)
    fail(ExitCode::bad_data, "{}: {} bytes, too short for a token index (header is {})", name,
         in.size(), token_format::kHeaderBytes);
  for (const char c : token_format::kMagic) {
    if (in.next<char>() != c)
      fail(ExitCode::bad_data,
           "{}: not a Megatron token index (byte {} differs from the magic MMIDIDX)", name,
           in.position() - 1);
  }
  IndexHeader h;
  if (const auto version = in.next<std::uint64_t>(); version != token_format::kVersion)
    fail(ExitCode::bad_data, "{}: version {} at byte 9, only {} is known", name, version,
         token_format::kVersion);
  h.dtype = in.next<std::uint8_t>();
  if (token_format::width_of(h.dtype) == 0)
    fail(ExitCode::bad_data, "{}: token type {} at byte 17 is not an integer type (1-5 or 8)", name,
         h.dtype);
  h.sequences = in.next<std::uint64_t>();
  h.boundaries = in.next<std::uint64_t>();
  // Counts come from the file: bound each by the size before multiplying.
  const std::uint64_t body = in.size() - token_format::kHeaderBytes;
  if (h.sequences > body / 12)
    fail(ExitCode::bad_data, "{}: {} sequences at byte 18 do not fit in a file of {} bytes", name,
         h.sequences, in.size());
  const std::uint64_t rest = body - 12 * h.sequences;
  if (h.boundaries == 0 || h.boundaries > rest / 8)
    fail(ExitCode::bad_data,
         "{}: {} document boundaries at byte 26 do not fit in a file of {} bytes", name,
         h.boundaries, in.size());
  if (rest - 8 * h.boundaries == h.sequences && h.sequences != 0)
    fail(ExitCode::bad_data, "{}: has a mode for each sequence (multimodal); only text is read",
         name);
  if (rest != 8 * h.boundaries)
    fail(ExitCode::bad_data, "{}: {} bytes after the last field at byte {}", name,
         rest - 8 * h.boundaries, in.size() - (rest - 8 * h.boundaries));
  return h;
}

// Token at which each sequence ends, checked against the lengths' sum and the offsets.
std::vector<std::int64_t> read_sequences(IndexReader& in, const IndexHeader& h,
                                         std::uint64_t bin_bytes) {
  const std::uint64_t width = token_format::width_of(h.dtype);
  const std::uint64_t bin_tokens = bin_bytes / width;
  std::vector<std::int64_t> ends;
  ends.reserve(h.sequences);
  std::uint64_t total = 0;
  for (std::uint64_t s = 0; s < h.sequences; ++s) {
    const auto length = in.next<std::int32_t>();
    if (length < 0)
      fail(ExitCode::bad_data, "{}: sequence {} has length {} at byte {}", in.name(), s, length,
           in.position() - 4);
    total += static_cast<std::uint64_t>(length);
    if (total > bin_tokens)
      fail(ExitCode::bad_data,
           "{}: sequence {} at byte {} ends at token {}, but the .bin has {} bytes = {} tokens "
           "(truncated, or of another index)",
           in.name(), s, in.position() - 4, total, bin_bytes, bin_tokens);
    ends.push_back(static_cast<std::int64_t>(total));
  }
  if (total * width != bin_bytes)
    fail(ExitCode::bad_data, "{}: the sequences are {} bytes, the .bin has {} (of another index?)",
         in.name(), total * width, bin_bytes);
  for (std::uint64_t s = 0; s < h.sequences; ++s) {
    const std::int64_t begin = s == 0 ? 0 : ends[s - 1];
    const auto offset = in.next<std::int64_t>();
    if (offset != begin * static_cast<std::int64_t>(width))
      fail(ExitCode::bad_data,
           "{}: sequence {} is said at byte {} to start at {} of the .bin, not at {}", in.name(), s,
           in.position() - 8, offset, begin * static_cast<std::int64_t>(width));
  }
  return ends;
}

}  // namespace

TokenFile::TokenFile(const std::filesystem::path& prefix)
    : prefix_(token_format::prefix_of(prefix)) {
  bin_ = File::open_read(prefix_ + ".bin");
  bin_bytes_ = bin_.size();
  read_index();
  read_info();
}

void TokenFile::read_index() {
  IndexReader in(prefix_ + ".idx");
  const IndexHeader h = read_header(in);
  dtype_ = h.dtype;
  ends_ = read_sequences(in, h, bin_bytes_);
  // Boundaries count sequences; from here on only the ends of documents matter.
  std::vector<std::int64_t> documents;
  documents.reserve(h.boundaries - 1);
  std::int64_t previous = 0;
  for (std::uint64_t d = 0; d < h.boundaries; ++d) {
    const auto boundary = in.next<std::int64_t>();
    const bool last = d + 1 == h.boundaries;
    const auto sequences = static_cast<std::int64_t>(h.sequences);
    if (boundary < previous || boundary > sequences || (d == 0 && boundary != 0) ||
        (last && boundary != sequences)) {
      fail(ExitCode::bad_data,
           "{}: document boundary {} at byte {} is {}; they must rise from 0 to {} sequences",
           in.name(), d, in.position() - 8, boundary, sequences);
    }
    if (d > 0)
      documents.push_back(boundary == 0 ? 0 : ends_[static_cast<std::size_t>(boundary - 1)]);
    previous = boundary;
  }
  ends_ = std::move(documents);
  idx_hash_ = in.digest();
}

std::int64_t TokenFile::document_of(std::int64_t token) const {
  return std::upper_bound(ends_.begin(), ends_.end(), token) - ends_.begin();
}

void TokenFile::read_info() {
  const std::string path = prefix_ + ".json";
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return;
  const Json j = Json::parse(read_text(path, std::uint64_t{1} << 20), path);
  const Json* format = j.find("format");
  if (format == nullptr || !format->is_string() || format->as_string() != "grist tokens") return;
  if (const std::int64_t version = j.at("version").as_int(); version != 1)
    fail(ExitCode::bad_data, "{}: version {}, only 1 is known (made by a newer grist?)", path,
         version);
  TokenFileInfo info;
  info.tokenizer_hash = j.at("tokenizer_hash").as_string();
  info.vocab_size = j.at("vocab_size").as_int();
  if (const Json* bos = j.find("bos_id")) info.bos_id = bos->as_int();
  info.eod_id = j.at("eod_id").as_int();
  info.documents = j.at("documents").as_int();
  info.tokens = j.at("tokens").as_int();
  info.source_bytes = j.at("source_bytes").as_int();
  if (info.documents != num_documents() || info.tokens != num_tokens())
    fail(ExitCode::bad_data,
         "{}: says {} documents and {} tokens, the index has {} and {}; it belongs to another file "
         "(delete it, or run `grist prepare --overwrite` again)",
         path, info.documents, info.tokens, num_documents(), num_tokens());
  info_ = info;
}

void TokenFile::check_tokenizer(const std::string& tokenizer_hash) const {
  if (!info_ || info_->tokenizer_hash.empty() || info_->tokenizer_hash == tokenizer_hash) return;
  fail(
      ExitCode::bad_data,
      "{}.bin: made with tokenizer {}, this run's is {}; use that tokenizer, or run `grist prepare "
      "--overwrite` again with this one",
      prefix_, info_->tokenizer_hash, tokenizer_hash);
}

// ---- tokens ----------------------------------------------------------------------------------

namespace {

// Widens to 64 bits, so that no stored value can alias a valid id.
std::int64_t token_at(const std::byte* raw, int dtype, std::size_t i) {
  switch (dtype) {
    case token_format::kU8: return load<std::uint8_t>(raw + i);
    case token_format::kI8: return load<std::int8_t>(raw + i);
    case token_format::kI16: return load<std::int16_t>(raw + 2 * i);
    case token_format::kU16: return load<std::uint16_t>(raw + 2 * i);
    case token_format::kI32: return load<std::int32_t>(raw + 4 * i);
    default: return load<std::int64_t>(raw + 8 * i);
  }
}

}  // namespace

void TokenFile::read(std::int64_t begin, std::span<std::int32_t> out,
                     std::int64_t vocab_size) const {
  GRIST_CHECK(begin >= 0 && begin + static_cast<std::int64_t>(out.size()) <= num_tokens(),
              "{}: tokens [{}, +{}) of {}", prefix_, begin, out.size(), num_tokens());
  GRIST_CHECK(vocab_size > 0 && vocab_size <= (std::int64_t{1} << 31), "vocab_size = {}",
              vocab_size);
  const std::size_t width = token_format::width_of(dtype_);
  std::array<std::byte, 16384> raw;
  const std::size_t step = raw.size() / width;
  for (std::size_t done = 0; done < out.size(); done += step) {
    const std::size_t n = std::min(step, out.size() - done);
    const auto at = static_cast<std::uint64_t>(begin) + done;
    bin_.read_at(at * width, std::span(raw).first(n * width));
    for (std::size_t i = 0; i < n; ++i) {
      const std::int64_t id = token_at(raw.data(), dtype_, i);
      if (id < 0 || id >= vocab_size) {
        const auto token = static_cast<std::int64_t>(at + i);
        const std::int64_t document = document_of(token);
        fail(ExitCode::bad_data,
             "{}.bin: document {}, token {} (byte {}): id {} is not in the model's vocabulary of "
             "{}; "
             "raise model.vocab_size or use the data's tokenizer",
             prefix_, document, token - document_begin(document), (at + i) * width, id, vocab_size);
      }
      out[done + i] = static_cast<std::int32_t>(id);
    }
  }
}

std::string TokenFile::fingerprint() const {
  Hasher hasher;
  hasher.update(&idx_hash_, sizeof idx_hash_);
  hasher.update(&bin_bytes_, sizeof bin_bytes_);
  std::vector<std::byte> block(kSampleBlock);
  const bool whole = bin_bytes_ <= kSampleBlock * kSampleBlocks;
  const std::uint64_t blocks =
      whole ? (bin_bytes_ + kSampleBlock - 1) / kSampleBlock : kSampleBlocks;
  for (std::uint64_t b = 0; b < blocks; ++b) {
    const auto spread = static_cast<unsigned __int128>(bin_bytes_ - (whole ? 0 : kSampleBlock)) * b;
    const std::uint64_t at =
        whole ? b * kSampleBlock : static_cast<std::uint64_t>(spread / (blocks - 1));
    const auto part = std::span(block).first(std::min(kSampleBlock, bin_bytes_ - at));
    bin_.read_at(at, part);
    hasher.update(part.data(), part.size());
  }
  return hash_hex(hasher.digest());
}

}  // namespace grist
