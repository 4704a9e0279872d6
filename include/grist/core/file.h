#pragma once
// Files with errors that name the path. Every function throws Error{io} (or not_found,
// cannot_create) unless it says otherwise.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace grist {

// Owns a descriptor. Reads and writes have a position, so a file has no hidden state; read_next
// alone goes on from where it was, for pipes have no positions.
class File {
 public:
  File() = default;
  static File open_read(const std::filesystem::path& path);
  static File create(const std::filesystem::path& path);       // truncates; O_CLOEXEC, mode 0644
  static File create_new(const std::filesystem::path& path);   // fails if it exists
  static File open_append(const std::filesystem::path& path);  // created when missing
  ~File();
  File(File&& other) noexcept;
  File& operator=(File&& other) noexcept;

  bool is_open() const { return fd_ >= 0; }
  int fd() const { return fd_; }
  const std::filesystem::path& path() const { return path_; }
  std::uint64_t size() const;
  void read_at(std::uint64_t offset,
               std::span<std::byte> out) const;  // a short read is Error{bad_data}
  std::size_t read_some_at(std::uint64_t offset,
                           std::span<std::byte> out) const;  // up to out.size(); 0 at the end
  std::size_t read_next(std::span<std::byte> out) const;     // fills out; fewer only at the end
  void write_at(std::uint64_t offset, std::span<const std::byte> bytes);
  void append(std::string_view text);     // one write call where the system allows
  void preallocate(std::uint64_t bytes);  // ENOSPC now rather than later; a file system that cannot
                                          // is not an error
  void truncate(std::uint64_t bytes);
  void sync();
  void close();  // reports errors, as the destructor cannot

 private:
  File(int fd, std::filesystem::path path) : fd_(fd), path_(std::move(path)) {}
  int fd_ = -1;
  std::filesystem::path path_;
};

// All of a file or a pipe; more than max_bytes is Error{bad_data}.
std::string read_text(const std::filesystem::path& path, std::uint64_t max_bytes = 1ULL << 30);
// Writes beside, syncs, renames over, syncs the folder: a reader sees the old or the new text,
// never a part.
void write_text_atomically(const std::filesystem::path& path, std::string_view text);
void sync_directory(const std::filesystem::path& path);
void rename_path(const std::filesystem::path& from,
                 const std::filesystem::path& to);         // replaces a file
void make_directories(const std::filesystem::path& path);  // cannot_create
std::uint64_t free_bytes(const std::filesystem::path& path);

}  // namespace grist
