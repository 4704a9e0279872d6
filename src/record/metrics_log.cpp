#include "metrics_log.h"

#include <algorithm>

#include "grist/core/check.h"
#include "grist/core/log.h"

namespace grist::record {

namespace {

std::string text_of(const File& file, std::uint64_t begin, std::uint64_t end) {
  std::string text(end - begin, '\0');
  file.read_at(begin, std::as_writable_bytes(std::span(text)));
  return text;
}

// Where the last whole line of the first `bytes` ends.
std::uint64_t end_of_lines(const File& file, std::uint64_t bytes) {
  constexpr std::uint64_t kPiece = 1U << 16;
  for (std::uint64_t end = bytes; end > 0;) {
    const std::uint64_t begin = end - std::min(end, kPiece);
    const std::size_t at = text_of(file, begin, end).rfind('\n');
    if (at != std::string::npos) return begin + at + 1;
    end = begin;
  }
  return 0;
}

std::string move_aside(const File& file, std::uint64_t begin) {
  std::filesystem::path beside;
  for (int n = 1; beside.empty() || std::filesystem::exists(beside); ++n)
    beside = file.path().string() + ".tail-" + std::to_string(n);
  write_text_atomically(beside, text_of(file, begin, file.size()));
  return beside.filename().string();
}

File open_cut(const std::filesystem::path& path, std::uint64_t keep_bytes) {
  File file = File::open_append(path);
  const std::uint64_t size = file.size();
  if (size < keep_bytes)
    log::warn("{}: {} bytes, the checkpoint expects {}: lines are missing; the run goes on",
              path.string(), size, keep_bytes);
  const std::uint64_t keep = end_of_lines(file, std::min(size, keep_bytes));
  if (size == keep) return file;
  try {
    const std::string beside = move_aside(file, keep);
    file.truncate(keep);
    log::info("{}: lines behind the checkpoint moved to {}", path.string(), beside);
  } catch (const Error& e) {
    file.truncate(end_of_lines(file, size));
    log::warn("{}; the lines behind the checkpoint stay in {}, and their steps will come again",
              e.what(), path.string());
  }
  return file;
}

}  // namespace

MetricsLog::MetricsLog(const std::filesystem::path& path, std::uint64_t keep_bytes)
    : file_(open_cut(path, keep_bytes)) {}

}  // namespace grist::record
