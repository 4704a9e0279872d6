// Writing .bin/.idx pairs.
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cstring>
#include <limits>

#include "grist/core/check.h"
#include "grist/data/token_file.h"
#include "token_format.h"

namespace grist {

static_assert(std::endian::native == std::endian::little, "token files are little-endian");

namespace {

constexpr std::size_t kFlushBytes = std::size_t{4} << 20;

std::filesystem::path with(const std::filesystem::path& prefix, const char* suffix) {
  return prefix.string() + suffix;
}

template <class T> void put(std::vector<std::byte>& out, T value) {
  const std::size_t at = out.size();
  out.resize(at + sizeof value);
  std::memcpy(out.data() + at, &value, sizeof value);
}

std::filesystem::path folder_of(const std::filesystem::path& prefix) {
  return prefix.has_parent_path() ? prefix.parent_path() : std::filesystem::path(".");
}

void refuse_existing(const std::filesystem::path& prefix) {
  for (const char* suffix : {".idx", ".bin", ".json"}) {
    const auto path = with(prefix, suffix);
    std::error_code error;
    if (std::filesystem::exists(path, error)) {
      fail(ExitCode::cannot_create,
           "{}: exists already; choose another output or overwrite it with --overwrite",
           path.string());
    }
  }
}

Json info_json(const TokenFileInfo& info) {
  Json j = Json::object();
  j.set("format", "grist tokens");
  j.set("version", 1);
  j.set("tokenizer_hash", info.tokenizer_hash);
  j.set("vocab_size", info.vocab_size);
  if (info.bos_id >= 0) j.set("bos_id", info.bos_id);
  j.set("eod_id", info.eod_id);
  j.set("documents", info.documents);
  j.set("tokens", info.tokens);
  j.set("source_bytes", info.source_bytes);
  return j;
}

// Takes the lock before cutting the file, so that a second process cannot spoil the first one's
// work. The inode is compared because the first one may have renamed its file away meanwhile. A
// file system without locks (some Lustre mounts) is written without.
File lock_aside(const std::filesystem::path& aside) {
  File file = File::open_append(aside);
  struct stat ours {};
  struct stat there {};
  const bool held = ::flock(file.fd(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
  if (held || ::fstat(file.fd(), &ours) != 0 || ::stat(aside.c_str(), &there) != 0 ||
      ours.st_ino != there.st_ino) {
    fail(ExitCode::cannot_create, "{}: another process is writing this output", aside.string());
  }
  file.truncate(0);
  return file;
}

}  // namespace

TokenFileWriter::TokenFileWriter(const std::filesystem::path& prefix, std::int64_t vocab_size,
                                 bool overwrite)
    : prefix_(token_format::prefix_of(prefix)), vocab_size_(vocab_size) {
  GRIST_CHECK(vocab_size > 0, "vocab_size = {}", vocab_size);
  if (prefix_.filename().empty())
    fail(ExitCode::usage, "output '{}' names a folder; give FOLDER/NAME without .bin",
         prefix_.string());
  if (!overwrite) refuse_existing(prefix_);
  make_directories(folder_of(prefix_));
  bin_ = lock_aside(with(prefix_, ".bin.partial"));
  idx_ = File::create(with(prefix_, ".idx.partial"));
  pending_.reserve(kFlushBytes);
}

TokenFileWriter::~TokenFileWriter() {
  if (finished_) return;
  for (const char* suffix : {".bin.partial", ".idx.partial", ".json.partial"})
    ::unlink(with(prefix_, suffix).c_str());
}

void TokenFileWriter::add_document(std::span<const std::int32_t> tokens) {
  GRIST_CHECK(tokens.size() <= std::numeric_limits<std::int32_t>::max(), "a document of {} tokens",
              tokens.size());
  const bool narrow = token_format::dtype_for(vocab_size_) == token_format::kU16;
  for (const std::int32_t id : tokens) {
    GRIST_CHECK(id >= 0 && id < vocab_size_, "document {}: token id {} of a vocabulary of {}",
                lengths_.size(), id, vocab_size_);
    if (narrow) {
      put(pending_, static_cast<std::uint16_t>(id));
    } else {
      put(pending_, id);
    }
    if (pending_.size() >= kFlushBytes) flush();
  }
  lengths_.push_back(static_cast<std::int32_t>(tokens.size()));
  num_tokens_ += static_cast<std::int64_t>(tokens.size());
}

void TokenFileWriter::flush() {
  bin_.write_at(bin_bytes_, pending_);
  bin_bytes_ += pending_.size();
  pending_.clear();
}

void TokenFileWriter::write_index() {
  const int dtype = token_format::dtype_for(vocab_size_);
  const auto width = static_cast<std::int64_t>(token_format::width_of(dtype));
  std::vector<std::byte> out;
  std::uint64_t written = 0;
  const auto spill = [&](std::size_t limit) {
    if (out.size() < limit) return;
    idx_.write_at(written, out);
    written += out.size();
    out.clear();
  };
  for (const char c : token_format::kMagic) put(out, c);
  put(out, token_format::kVersion);
  put(out, static_cast<std::uint8_t>(dtype));
  put(out, static_cast<std::uint64_t>(lengths_.size()));
  put(out, static_cast<std::uint64_t>(lengths_.size() + 1));
  for (const std::int32_t length : lengths_) {
    put(out, length);
    spill(kFlushBytes);
  }
  std::int64_t offset = 0;
  for (const std::int32_t length : lengths_) {
    put(out, offset);
    offset += length * width;
    spill(kFlushBytes);
  }
  for (std::size_t d = 0; d <= lengths_.size(); ++d) {
    put(out, static_cast<std::int64_t>(d));
    spill(kFlushBytes);
  }
  spill(1);
}

void TokenFileWriter::finish(TokenFileInfo info) {
  if (num_tokens_ == 0)
    fail(ExitCode::bad_data, "{}: the input has no tokens; nothing was written", prefix_.string());
  flush();
  write_index();
  info.documents = num_documents();
  info.tokens = num_tokens_;
  if (info.vocab_size == 0) info.vocab_size = vocab_size_;
  File json = File::create(with(prefix_, ".json.partial"));
  json.append(info_json(info).dump(2) + "\n");
  for (File* file : {&bin_, &idx_, &json}) file->sync();
  // The old index goes first: an old .idx must never stand beside a new .bin.
  if (::unlink(with(prefix_, ".idx").c_str()) == 0) sync_directory(folder_of(prefix_));
  for (const char* suffix : {".bin", ".json", ".idx"})
    rename_path(with(prefix_, (std::string(suffix) + ".partial").c_str()), with(prefix_, suffix));
  sync_directory(folder_of(prefix_));
  finished_ = true;
  idx_.close();
  json.close();
  bin_.close();  // releases the lock
}

}  // namespace grist
