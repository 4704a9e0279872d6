#include "direct_reader.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

namespace grist::ckpt {

namespace {
constexpr std::uint64_t kUnit = 4096;              // O_DIRECT wants everything in these
constexpr std::uint64_t kWorthwhile = 1ULL << 20;  // small files are read from the cache
}  // namespace

DirectReader::DirectReader(const std::filesystem::path& path) : file_(File::open_read(path)) {
  if (file_.size() >= kWorthwhile) direct_ = ::open(path.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC);
}

DirectReader::~DirectReader() {
  if (direct_ >= 0) ::close(direct_);
}

void DirectReader::read_at(std::uint64_t offset, std::span<std::byte> out, std::size_t room) const {
  const std::size_t whole = (out.size() + kUnit - 1) / kUnit * kUnit;
  std::size_t got = 0;
  if (direct_ >= 0 && whole <= room && offset % kUnit == 0 &&
      reinterpret_cast<std::uintptr_t>(out.data()) % kUnit == 0) {
    const ssize_t n = ::pread(direct_, out.data(), whole, static_cast<off_t>(offset));
    // An error or a short count: the ordinary read below takes over and reports.
    if (n > 0) got = std::min(static_cast<std::size_t>(n), out.size());
  }
  if (got < out.size()) file_.read_at(offset + got, out.subspan(got));
}

}  // namespace grist::ckpt
