#include "grist/data/token_files.h"

#include <algorithm>

#include "grist/core/check.h"
#include "grist/core/progress.h"
#include "grist/core/random.h"
#include "grist/core/stop.h"
#include "token_format.h"

namespace grist {

namespace fs = std::filesystem;

namespace {

// What the sidecars of all that goes into one file must agree on.
TokenFileInfo around(const TokenFile& file, const TokenFilesOptions& options) {
  TokenFileInfo info = file.info().value_or(TokenFileInfo{});
  if (info.vocab_size == 0) info.vocab_size = options.vocab_size;
  if (info.vocab_size == 0)
    fail(ExitCode::usage,
         "{}.json: not there, so nobody knows the size of the vocabulary; give it: --vocab-size",
         file.prefix());
  return info;
}

std::string described(const TokenFileInfo& info) {
  return fmt::format("tokenizer {}, {} tokens, documents begin with {} and end with {}",
                     info.tokenizer_hash.empty() ? "unknown" : info.tokenizer_hash, info.vocab_size,
                     info.bos_id, info.eod_id);
}

void check_same(const TokenFile& first, const TokenFileInfo& a, const TokenFile& other,
                const TokenFileInfo& b) {
  if (a.tokenizer_hash == b.tokenizer_hash && a.vocab_size == b.vocab_size &&
      a.bos_id == b.bos_id && a.eod_id == b.eod_id)
    return;
  fail(ExitCode::bad_data, "{} ({}) and {} ({}) were made differently; prepare one of them again",
       first.prefix(), described(a), other.prefix(), described(b));
}

// An output that is one of its inputs would be removed while it is read.
void check_apart(const TokenFile& input, const fs::path& output) {
  std::error_code ignored;
  const fs::path in = fs::weakly_canonical(input.prefix() + ".bin", ignored);
  const fs::path out = fs::weakly_canonical(token_format::prefix_of(output) + ".bin", ignored);
  if (in == out)
    fail(ExitCode::usage, "{}: is read and would be written; choose another --output",
         output.string());
}

fs::path with_suffix(const fs::path& prefix, const std::string& suffix) {
  return token_format::prefix_of(prefix) + suffix;
}

// Copies documents and says how far it is.
class Copier {
 public:
  Copier(const char* label, std::int64_t tokens, bool progress) {
    if (progress) progress_.emplace(label, static_cast<std::uint64_t>(tokens), "M tokens", 1e6);
  }
  void copy(const TokenFile& from, std::int64_t document, std::int64_t vocab_size,
            TokenFileWriter& to) {
    if (const int signal = stop_signal(); signal != 0)
      fail(ExitCode::preempted, "stopped by signal {}", signal);
    const std::int64_t begin = from.document_begin(document);
    tokens_.resize(static_cast<std::size_t>(from.length(document)));
    from.read(begin, tokens_, vocab_size);
    to.add_document(tokens_);
    done_ += tokens_.size();
    if (progress_) progress_->update(done_);
  }
  void finish() {
    if (progress_) progress_->finish(done_);
  }

 private:
  std::optional<Progress> progress_;
  std::vector<std::int32_t> tokens_;
  std::uint64_t done_ = 0;
};

WrittenTokens finish(TokenFileWriter& writer, const fs::path& prefix, TokenFileInfo info) {
  writer.finish(std::move(info));
  return {token_format::prefix_of(prefix), writer.num_documents(), writer.num_tokens()};
}

}  // namespace

WrittenTokens join_token_files(std::span<const fs::path> inputs, const TokenFilesOptions& options) {
  std::vector<std::unique_ptr<TokenFile>> files;
  std::int64_t tokens = 0;
  TokenFileInfo info;
  std::int64_t source_bytes = 0;
  bool known = true;  // the bytes of every input's text
  for (const fs::path& input : inputs) {
    const TokenFile& file = *files.emplace_back(std::make_unique<TokenFile>(input));
    check_apart(file, options.output);
    const TokenFileInfo own = around(file, options);
    if (files.size() == 1) info = own;
    check_same(*files.front(), info, file, own);
    tokens += file.num_tokens();
    source_bytes += own.source_bytes;
    known = known && own.source_bytes > 0;
  }
  GRIST_CHECK(!files.empty(), "nothing to join");
  info.source_bytes = known ? source_bytes : 0;
  TokenFileWriter writer(options.output, info.vocab_size, options.overwrite);
  Copier copier("join", tokens, options.progress);
  for (const auto& file : files)
    for (std::int64_t d = 0; d < file->num_documents(); ++d)
      copier.copy(*file, d, info.vocab_size, writer);
  copier.finish();
  return finish(writer, options.output, info);
}

std::vector<WrittenTokens> split_token_file(const fs::path& input, int parts,
                                            const TokenFilesOptions& options) {
  const TokenFile file(input);
  TokenFileInfo info = around(file, options);
  info.source_bytes = 0;
  std::int64_t full = 0;  // documents that are left and have tokens
  for (std::int64_t d = 0; d < file.num_documents(); ++d) full += file.length(d) > 0 ? 1 : 0;
  if (parts < 1 || parts > full)
    fail(ExitCode::usage, "{} has {} documents with tokens and cannot be split into {} parts",
         file.prefix(), full, parts);
  Copier copier("split", file.num_tokens(), options.progress);
  std::vector<WrittenTokens> written;
  std::int64_t next = 0;
  for (int part = 0; part < parts; ++part) {
    const fs::path output =
        with_suffix(options.output, fmt::format("-{:05}-of-{:05}", part, parts));
    check_apart(file, output);
    TokenFileWriter writer(output, info.vocab_size, options.overwrite);
    const std::int64_t left = parts - part - 1;  // each of which gets one of the full documents
    const auto goal =
        static_cast<std::int64_t>(static_cast<double>(file.num_tokens()) * (part + 1) / parts);
    const auto goes_on = [&] {
      if (next == file.num_documents() || left == 0) return next < file.num_documents();
      return writer.num_tokens() == 0 || (full > left && file.document_end(next) <= goal);
    };
    while (goes_on()) {
      full -= file.length(next) > 0 ? 1 : 0;
      copier.copy(file, next++, info.vocab_size, writer);
    }
    written.push_back(finish(writer, output, info));
  }
  copier.finish();
  return written;
}

std::vector<WrittenTokens> hold_out_documents(const fs::path& input, double fraction,
                                              std::uint64_t seed,
                                              const TokenFilesOptions& options) {
  const TokenFile file(input);
  TokenFileInfo info = around(file, options);
  info.source_bytes = 0;
  const fs::path train = with_suffix(options.output, "-train");
  const fs::path validation = with_suffix(options.output, "-validation");
  check_apart(file, train);
  check_apart(file, validation);
  TokenFileWriter kept(train, info.vocab_size, options.overwrite);
  TokenFileWriter held(validation, info.vocab_size, options.overwrite);
  const Random random(seed, "held-out documents");
  Copier copier("split", file.num_tokens(), options.progress);
  for (std::int64_t d = 0; d < file.num_documents(); ++d) {
    const bool out = random.uniform(static_cast<std::uint64_t>(d)) < fraction;
    copier.copy(file, d, info.vocab_size, out ? held : kept);
  }
  copier.finish();
  for (const auto& [writer, prefix] : {std::pair(&held, &validation), std::pair(&kept, &train)})
    if (writer->num_tokens() == 0)
      fail(ExitCode::usage, "{}: would hold none of the {} documents; choose another --held-out",
           prefix->string(), file.num_documents());
  return {finish(kept, train, info), finish(held, validation, info)};
}

}  // namespace grist
