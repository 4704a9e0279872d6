#include "byte_source.h"

#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include <algorithm>
#include <string>
#include <vector>

#include "grist/core/check.h"
#include "grist/core/file.h"

namespace grist {

namespace {

constexpr std::size_t kInputBytes = std::size_t{256} << 10;

class PlainSource final : public ByteSource {
 public:
  explicit PlainSource(const std::filesystem::path& path) : file_(File::open_read(path)) {}
  std::size_t read(std::span<char> out) override {
    const std::size_t got = file_.read_next(std::as_writable_bytes(out));
    at_ += got;
    return got;
  }
  std::uint64_t consumed() const override { return at_; }

 private:
  File file_;
  std::uint64_t at_ = 0;
};

// Compressed input in blocks.
class Input {
 public:
  explicit Input(const std::filesystem::path& path)
      : file_(File::open_read(path)), buffer_(kInputBytes) {}
  bool fill() {  // false at the end of the file
    if (at_ < have_) return true;
    base_ += have_;
    at_ = 0;
    have_ = file_.read_next(std::as_writable_bytes(std::span(buffer_)));
    return have_ > 0;
  }
  std::span<char> rest() { return std::span(buffer_).subspan(at_, have_ - at_); }
  void skip(std::size_t bytes) { at_ += bytes; }
  std::uint64_t position() const { return base_ + at_; }
  std::string name() const { return file_.path().string(); }

 private:
  File file_;
  std::vector<char> buffer_;
  std::size_t at_ = 0, have_ = 0;
  std::uint64_t base_ = 0;
};

class GzipSource final : public ByteSource {
 public:
  explicit GzipSource(const std::filesystem::path& path) : in_(path) {
    if (inflateInit2(&z_, 15 + 16) != Z_OK)  // 16: gzip headers only
      fail(ExitCode::out_of_memory, "{}: no memory to decompress", in_.name());
  }
  ~GzipSource() override { inflateEnd(&z_); }
  GzipSource(const GzipSource&) = delete;
  GzipSource& operator=(const GzipSource&) = delete;

  std::size_t read(std::span<char> out) override {
    std::size_t done = 0;
    while (done < out.size()) {
      const bool more = in_.fill();
      if (!more && between_members_ && members_ > 0) break;
      if (between_members_ && members_ > 0) {
        if (skip_padding()) continue;
        inflateReset(&z_);
      }
      between_members_ = false;
      const std::size_t got = step(out.subspan(done));  // without input: what zlib still holds
      if (!more && got == 0 && !between_members_)
        fail(ExitCode::bad_data, "{}: truncated: the gzip data stops at byte {} before its end",
             in_.name(), in_.position());
      done += got;
    }
    return done;
  }
  std::uint64_t consumed() const override { return in_.position(); }

 private:
  // Tapes and block devices pad members with zeros; gzip and Python pass over them too.
  bool skip_padding() {
    const std::span<char> rest = in_.rest();
    std::size_t zeros = 0;
    while (zeros < rest.size() && rest[zeros] == 0) ++zeros;
    in_.skip(zeros);
    return zeros > 0;
  }

  std::size_t step(std::span<char> out) {
    const std::span<char> rest = in_.rest();
    z_.next_in = reinterpret_cast<Bytef*>(rest.data());
    z_.avail_in = static_cast<uInt>(rest.size());
    z_.next_out = reinterpret_cast<Bytef*>(out.data());
    const auto room = static_cast<uInt>(std::min<std::size_t>(out.size(), std::size_t{1} << 30));
    z_.avail_out = room;
    const int status = inflate(&z_, Z_NO_FLUSH);
    in_.skip(rest.size() - z_.avail_in);
    if (status == Z_STREAM_END) {
      between_members_ = true;
      ++members_;
    } else if (status != Z_OK && status != Z_BUF_ERROR) {
      fail(ExitCode::bad_data, "{}: not valid gzip data near byte {}: {}", in_.name(),
           in_.position(), z_.msg != nullptr ? z_.msg : "unknown error");
    }
    return room - z_.avail_out;
  }
  Input in_;
  z_stream z_{};
  bool between_members_ = true;
  int members_ = 0;
};

class ZstdSource final : public ByteSource {
 public:
  explicit ZstdSource(const std::filesystem::path& path)
      : in_(path), stream_(ZSTD_createDStream()) {
    if (stream_ == nullptr)
      fail(ExitCode::out_of_memory, "{}: no memory to decompress", in_.name());
    ZSTD_DCtx_setParameter(stream_.get(), ZSTD_d_windowLogMax,
                           ZSTD_dParam_getBounds(ZSTD_d_windowLogMax).upperBound);
  }
  std::size_t read(std::span<char> out) override {
    ZSTD_outBuffer to{out.data(), out.size(), 0};
    while (to.pos < to.size) {
      const bool more = in_.fill();
      if (!more && status_ == 0 && frames_ > 0) break;
      const std::span<char> rest = in_.rest();
      ZSTD_inBuffer from{rest.data(), rest.size(), 0};
      const std::size_t before = to.pos;
      status_ = ZSTD_decompressStream(stream_.get(), &to, &from);
      if (ZSTD_getErrorCode(status_) == ZSTD_error_memory_allocation)
        fail(ExitCode::out_of_memory,
             "{}: no memory for the window of this zstd frame (up to 2 GiB with zstd --long=31); "
             "compress it again with --long=27 or less",
             in_.name());
      if (ZSTD_isError(status_) != 0)
        fail(ExitCode::bad_data, "{}: not valid zstd data near byte {}: {}", in_.name(),
             in_.position(), ZSTD_getErrorName(status_));
      in_.skip(from.pos);
      if (status_ == 0) ++frames_;
      if (!more && to.pos == before && status_ != 0)
        fail(ExitCode::bad_data, "{}: truncated: the zstd data stops at byte {} before its end",
             in_.name(), in_.position());
    }
    return to.pos;
  }
  std::uint64_t consumed() const override { return in_.position(); }

 private:
  struct Free {
    void operator()(ZSTD_DStream* s) const { ZSTD_freeDStream(s); }
  };
  Input in_;
  std::unique_ptr<ZSTD_DStream, Free> stream_;
  std::size_t status_ = 0;
  std::int64_t frames_ = 0;
};

}  // namespace

std::unique_ptr<ByteSource> ByteSource::open(const std::filesystem::path& path) {
  if (path.extension() == ".gz") return std::make_unique<GzipSource>(path);
  if (path.extension() == ".zst") return std::make_unique<ZstdSource>(path);
  return std::make_unique<PlainSource>(path);
}

}  // namespace grist
