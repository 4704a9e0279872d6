#pragma once
// What a save asks of a file system, one virtual function an operation, so that tests can make the
// n-th operation fail, kill the process there, or cut the power. DiskStorage is the real one.
// Every function throws Error{io} (or cannot_create) with the path and the reason.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>

#include "grist/core/file.h"

namespace grist {

// A file being written. Destroying it without close() loses nothing but the error of the close.
class StorageFile {
 public:
  virtual ~StorageFile() = default;
  virtual void preallocate(std::uint64_t bytes) = 0;
  virtual void write_at(std::uint64_t offset, std::span<const std::byte> bytes) = 0;
  virtual void sync() = 0;
  virtual void close() = 0;
};

class Storage {
 public:
  virtual ~Storage() = default;
  virtual std::unique_ptr<StorageFile> create_file(const std::filesystem::path& path) = 0;  // new
  virtual bool make_directory(const std::filesystem::path& path) = 0;  // false: it exists
  virtual void rename(const std::filesystem::path& from, const std::filesystem::path& to) = 0;
  // Swaps two names in one step; false: this file system cannot.
  virtual bool exchange(const std::filesystem::path& a, const std::filesystem::path& b) = 0;
  virtual void sync_directory(const std::filesystem::path& path) = 0;
  virtual void remove_file(const std::filesystem::path& path) = 0;
  virtual void remove_directory(const std::filesystem::path& path) = 0;  // must be empty
  virtual std::uint64_t free_bytes(const std::filesystem::path& path) = 0;
};

class DiskStorage final : public Storage {
 public:
  std::unique_ptr<StorageFile> create_file(const std::filesystem::path& path) override;
  bool make_directory(const std::filesystem::path& path) override;
  void rename(const std::filesystem::path& from, const std::filesystem::path& to) override;
  bool exchange(const std::filesystem::path& a, const std::filesystem::path& b) override;
  void sync_directory(const std::filesystem::path& path) override;
  void remove_file(const std::filesystem::path& path) override;
  void remove_directory(const std::filesystem::path& path) override;
  std::uint64_t free_bytes(const std::filesystem::path& path) override;
};

// A folder that this process writes to. Other processes see it as in use until the lock goes, and
// the kernel drops it when the process dies, however it dies.
class FolderLock {
 public:
  FolderLock() = default;
  explicit FolderLock(const std::filesystem::path& folder);
  ~FolderLock();
  FolderLock(FolderLock&& other) noexcept;
  FolderLock& operator=(FolderLock&& other) noexcept;
  // false: somebody else holds it. True also where the file system has no locks.
  bool held() const { return held_; }

 private:
  int fd_ = -1;
  bool held_ = false;
};

}  // namespace grist
