#include "grist/core/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "grist/core/check.h"

namespace grist {

namespace {

std::string reason() {
  return std::strerror(errno);
}

int open_or_fail(const std::filesystem::path& path, int flags, ExitCode code, const char* what) {
  int fd = -1;
  do {
    fd = ::open(path.c_str(), flags | O_CLOEXEC, 0644);
  } while (fd < 0 && errno == EINTR);
  if (fd < 0) {
    const bool missing = errno == ENOENT && (flags & O_CREAT) == 0;
    fail(missing ? ExitCode::not_found : code, "{}: cannot {}: {}", path.string(), what, reason());
  }
  return fd;
}

}  // namespace

File File::open_read(const std::filesystem::path& path) {
  File f(open_or_fail(path, O_RDONLY, ExitCode::io, "open"), path);
  struct stat st {};
  if (::fstat(f.fd_, &st) == 0 && S_ISDIR(st.st_mode))
    fail(ExitCode::not_found, "{}: is a folder, a file was expected", path.string());
  return f;
}
File File::create(const std::filesystem::path& path) {
  return {open_or_fail(path, O_RDWR | O_CREAT | O_TRUNC, ExitCode::cannot_create, "create"), path};
}
File File::create_new(const std::filesystem::path& path) {
  return {open_or_fail(path, O_RDWR | O_CREAT | O_EXCL, ExitCode::cannot_create, "create"), path};
}
File File::open_append(const std::filesystem::path& path) {
  return {open_or_fail(path, O_RDWR | O_CREAT | O_APPEND, ExitCode::cannot_create,
                       "open for appending"),
          path};
}

File::~File() {
  if (fd_ >= 0) ::close(fd_);
}
File::File(File&& other) noexcept : fd_(other.fd_), path_(std::move(other.path_)) {
  other.fd_ = -1;
}
File& File::operator=(File&& other) noexcept {
  if (this != &other) {
    if (fd_ >= 0) ::close(fd_);
    fd_ = other.fd_;
    path_ = std::move(other.path_);
    other.fd_ = -1;
  }
  return *this;
}

std::uint64_t File::size() const {
  struct stat st {};
  if (::fstat(fd_, &st) != 0) fail(ExitCode::io, "{}: cannot stat: {}", path_.string(), reason());
  return static_cast<std::uint64_t>(st.st_size);
}

std::size_t File::read_some_at(std::uint64_t offset, std::span<std::byte> out) const {
  std::size_t got = 0;
  while (got < out.size()) {
    const ssize_t n =
        ::pread(fd_, out.data() + got, out.size() - got, static_cast<off_t>(offset + got));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0)
      fail(ExitCode::io, "{}: read failed at byte {}: {}", path_.string(), offset + got, reason());
    if (n == 0) break;
    got += static_cast<std::size_t>(n);
  }
  return got;
}

std::size_t File::read_next(std::span<std::byte> out) const {
  std::size_t got = 0;
  while (got < out.size()) {
    const ssize_t n = ::read(fd_, out.data() + got, out.size() - got);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(ExitCode::io, "{}: read failed: {}", path_.string(), reason());
    if (n == 0) break;
    got += static_cast<std::size_t>(n);
  }
  return got;
}

void File::read_at(std::uint64_t offset, std::span<std::byte> out) const {
  const std::size_t got = read_some_at(offset, out);
  if (got != out.size()) {
    fail(ExitCode::bad_data, "{}: file ends at byte {}, {} more were expected (truncated?)",
         path_.string(), offset + got, out.size() - got);
  }
}

void File::write_at(std::uint64_t offset, std::span<const std::byte> bytes) {
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t n =
        ::pwrite(fd_, bytes.data() + done, bytes.size() - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0)
      fail(ExitCode::io, "{}: write failed at byte {}: {}", path_.string(), offset + done,
           n == 0 ? "wrote nothing" : reason());
    done += static_cast<std::size_t>(n);
  }
}

void File::append(std::string_view text) {
  std::size_t done = 0;
  while (done < text.size()) {
    const ssize_t n = ::write(fd_, text.data() + done, text.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0)
      fail(ExitCode::io, "{}: append failed: {}", path_.string(),
           n == 0 ? "wrote nothing" : reason());
    done += static_cast<std::size_t>(n);
  }
}

void File::preallocate(std::uint64_t bytes) {
  if (bytes == 0) return;
  const int error = ::posix_fallocate(fd_, 0, static_cast<off_t>(bytes));
  if (error == ENOSPC || error == EDQUOT || error == EFBIG) {
    fail(ExitCode::io, "{}: needs {} bytes: {}", path_.string(), bytes, std::strerror(error));
  }
}

void File::truncate(std::uint64_t bytes) {
  if (::ftruncate(fd_, static_cast<off_t>(bytes)) != 0)
    fail(ExitCode::io, "{}: cannot truncate: {}", path_.string(), reason());
}

void File::sync() {
  if (::fsync(fd_) != 0) fail(ExitCode::io, "{}: fsync failed: {}", path_.string(), reason());
}

void File::close() {
  if (fd_ < 0) return;
  const int fd = fd_;
  fd_ = -1;
  if (::close(fd) != 0 && errno != EINTR)
    fail(ExitCode::io, "{}: close failed: {}", path_.string(), reason());
}

std::string read_text(const std::filesystem::path& path, std::uint64_t max_bytes) {
  constexpr std::size_t kStep = std::size_t{64} << 10;
  const File f = File::open_read(path);
  const std::uint64_t size = f.size();  // 0 for a pipe
  if (size > max_bytes)
    fail(ExitCode::bad_data, "{}: {} bytes, more than the {} allowed here", path.string(), size,
         max_bytes);
  std::string text;
  // One byte more than the size is asked for, which finds the end.
  for (std::size_t want = size + 1;; want = kStep) {
    const std::size_t have = text.size();
    text.resize(have + want);
    const std::size_t got = f.read_next(std::as_writable_bytes(std::span(text).subspan(have)));
    text.resize(have + got);
    if (text.size() > max_bytes)
      fail(ExitCode::bad_data, "{}: more than the {} bytes allowed here", path.string(), max_bytes);
    if (got < want) return text;
  }
}

void write_text_atomically(const std::filesystem::path& path, std::string_view text) {
  const std::filesystem::path aside = path.string() + ".tmp-" + std::to_string(::getpid());
  try {
    File f = File::create(aside);
    f.write_at(0, std::as_bytes(std::span(text)));
    f.sync();
    f.close();
    rename_path(aside, path);
  } catch (...) {
    ::unlink(aside.c_str());
    throw;
  }
  sync_directory(path.has_parent_path() ? path.parent_path() : std::filesystem::path("."));
}

void sync_directory(const std::filesystem::path& path) {
  const int fd = open_or_fail(path, O_RDONLY | O_DIRECTORY, ExitCode::io, "open folder");
  const int status = ::fsync(fd);
  const int error = errno;
  ::close(fd);
  if (status != 0 && error != EINVAL)
    fail(ExitCode::io, "{}: fsync of the folder failed: {}", path.string(), std::strerror(error));
}

void rename_path(const std::filesystem::path& from, const std::filesystem::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) {
    fail(ExitCode::io, "{}: cannot rename to {}: {}", from.string(), to.string(), reason());
  }
}

void make_directories(const std::filesystem::path& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error)
    fail(ExitCode::cannot_create, "{}: cannot create folder: {}", path.string(), error.message());
}

std::uint64_t free_bytes(const std::filesystem::path& path) {
  std::error_code error;
  const auto space = std::filesystem::space(path, error);
  if (error)
    fail(ExitCode::io, "{}: cannot ask for free space: {}", path.string(), error.message());
  return space.available;
}

}  // namespace grist
