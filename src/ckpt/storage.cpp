#include "grist/ckpt/storage.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "grist/core/check.h"

namespace grist {

namespace {

constexpr unsigned kRenameExchange = 2;  // RENAME_EXCHANGE of linux/fs.h

constexpr std::uint64_t kDirectUnit = 4096;  // O_DIRECT wants offset, size and address so aligned

// Whole pages go past the page cache where the file system lets them: about twice as fast as
// buffered writes and an fsync, errors come from the write itself, and the cache stays with the
// training data. The rest (an odd tail, small files, file systems without O_DIRECT) is buffered.
class DiskFile final : public StorageFile {
 public:
  explicit DiskFile(File file)
      : file_(std::move(file)),
        direct_(::open(file_.path().c_str(), O_WRONLY | O_DIRECT | O_CLOEXEC)) {}
  ~DiskFile() override { close_direct(); }
  void preallocate(std::uint64_t bytes) override { file_.preallocate(bytes); }
  void write_at(std::uint64_t offset, std::span<const std::byte> bytes) override {
    const std::size_t done = write_direct(offset, bytes);
    if (done < bytes.size()) file_.write_at(offset + done, bytes.subspan(done));
  }
  void sync() override { file_.sync(); }
  void close() override {
    close_direct();
    file_.close();
  }

 private:
  // Bytes written, the rest is for the buffered write. A refusal to write this way (EINVAL) is not
  // an error; every other one is, and is not tried again.
  std::size_t write_direct(std::uint64_t offset, std::span<const std::byte> bytes) {
    const std::size_t size = bytes.size() / kDirectUnit * kDirectUnit;
    if (direct_ < 0 || size == 0 || offset % kDirectUnit != 0 ||
        reinterpret_cast<std::uintptr_t>(bytes.data()) % kDirectUnit != 0)
      return 0;
    ssize_t n = 0;
    do {
      n = ::pwrite(direct_, bytes.data(), size, static_cast<off_t>(offset));
    } while (n < 0 && errno == EINTR);
    if (n >= 0) return static_cast<std::size_t>(n);
    if (errno != EINVAL && errno != EOPNOTSUPP)
      fail(ExitCode::io, "{}: write failed at byte {}: {}", file_.path().string(), offset,
           std::strerror(errno));
    close_direct();
    return 0;
  }
  void close_direct() {
    if (direct_ >= 0) ::close(direct_);
    direct_ = -1;
  }

  File file_;
  int direct_;
};

}  // namespace

std::unique_ptr<StorageFile> DiskStorage::create_file(const std::filesystem::path& path) {
  return std::make_unique<DiskFile>(File::create_new(path));
}

bool DiskStorage::make_directory(const std::filesystem::path& path) {
  if (::mkdir(path.c_str(), 0755) == 0) return true;
  if (errno == EEXIST) return false;
  fail(ExitCode::cannot_create, "{}: cannot create folder: {}", path.string(),
       std::strerror(errno));
}

void DiskStorage::rename(const std::filesystem::path& from, const std::filesystem::path& to) {
  rename_path(from, to);
}

bool DiskStorage::exchange(const std::filesystem::path& a, const std::filesystem::path& b) {
  if (::syscall(SYS_renameat2, AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), kRenameExchange) == 0)
    return true;
  if (errno == EINVAL || errno == ENOSYS || errno == ENOTSUP) return false;
  fail(ExitCode::io, "{}: cannot exchange with {}: {}", a.string(), b.string(),
       std::strerror(errno));
}

void DiskStorage::sync_directory(const std::filesystem::path& path) {
  grist::sync_directory(path);
}

void DiskStorage::remove_file(const std::filesystem::path& path) {
  if (::unlink(path.c_str()) != 0)
    fail(ExitCode::io, "{}: cannot remove: {}", path.string(), std::strerror(errno));
}

void DiskStorage::remove_directory(const std::filesystem::path& path) {
  if (::rmdir(path.c_str()) != 0)
    fail(ExitCode::io, "{}: cannot remove folder: {}", path.string(), std::strerror(errno));
}

std::uint64_t DiskStorage::free_bytes(const std::filesystem::path& path) {
  return grist::free_bytes(path);
}

FolderLock::FolderLock(const std::filesystem::path& folder)
    : fd_(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
  held_ = fd_ >= 0 && (::flock(fd_, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK);
}
FolderLock::~FolderLock() {
  if (fd_ >= 0) ::close(fd_);
}
FolderLock::FolderLock(FolderLock&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), held_(std::exchange(other.held_, false)) {}
FolderLock& FolderLock::operator=(FolderLock&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(held_, other.held_);
  return *this;
}

}  // namespace grist
