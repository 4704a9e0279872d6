// Text to tokens: the same bytes for any number of threads, and nothing half-written.
#include "grist/data/prepare.h"

#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "data/archive.h"
#include "data/support.h"
#include "grist/core/check.h"
#include "grist/core/random.h"
#include "grist/data/bpe_trainer.h"
#include "grist/data/tokenizer.h"

namespace grist {
namespace {

using test::Documents;
using test::TempDir;
using test::throws;

constexpr std::int32_t kEnd = 256;

// A byte is its own id.
TextEncoder bytes_encoder() {
  return [](std::string_view text, std::vector<std::int32_t>& ids) {
    for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
  };
}

PrepareOptions options(const TempDir& dir, std::string_view input, int threads = 2) {
  PrepareOptions o;
  o.corpus.inputs = {dir / input};
  o.output = dir / "out";
  o.threads = threads;
  o.make_encoder = bytes_encoder;
  o.vocab_size = 257;
  o.eod_id = kEnd;
  o.tokenizer_hash = "bytes";
  o.progress = false;
  return o;
}

std::string line(std::string_view text) {
  return fmt::format("{{\"text\": \"{}\"}}\n", text);
}

std::string many_lines(std::uint64_t count, std::uint64_t longest) {
  const Random random(9, "documents");
  std::string all;
  for (std::uint64_t i = 0; i < count; ++i)
    all += line(std::string(random.below(i, longest), static_cast<char>('a' + i % 26)));
  return all;
}

TEST(Prepare, WritesEveryDocumentWithItsEnd) {
  const TempDir dir;
  dir.write("in.1.jsonl", line("ab") + line("") + line("c"));
  dir.write("in.2.txt.gz", test::gzip("de"));

  const PrepareSummary summary = prepare(options(dir, "in.*"));

  const TokenFile file(dir / "out");
  EXPECT_EQ(test::read_documents(file, 257),
            (Documents{{'a', 'b', kEnd}, {'c', kEnd}, {'d', 'e', kEnd}}));
  EXPECT_EQ(summary.documents, 3);
  EXPECT_EQ(summary.empty_documents, 1);
  EXPECT_EQ(summary.tokens, 8);
  EXPECT_EQ(summary.text_bytes, 5U);
  ASSERT_TRUE(file.info().has_value());
  EXPECT_EQ(*file.info(), (TokenFileInfo{.tokenizer_hash = "bytes",
                                         .vocab_size = 257,
                                         .eod_id = kEnd,
                                         .documents = 3,
                                         .tokens = 8,
                                         .source_bytes = 5}));
  EXPECT_NE(summary.line().find("3 documents, 8 tokens"), std::string::npos) << summary.line();
}

TEST(Prepare, AppendsNothingWithoutAnEnd) {
  const TempDir dir;
  dir.write("a.jsonl", line("ab") + line("c"));
  PrepareOptions o = options(dir, "a.jsonl");
  o.eod_id = -1;

  prepare(o);

  EXPECT_EQ(test::read_documents(TokenFile(dir / "out"), 257), (Documents{{'a', 'b'}, {'c'}}));
}

TEST(Prepare, PutsABeginBeforeEachDocument) {
  const TempDir dir;
  dir.write("a.jsonl", line("ab") + line("") + line("c"));
  PrepareOptions o = options(dir, "a.jsonl");
  o.vocab_size = 258;
  o.bos_id = 257;

  const PrepareSummary summary = prepare(o);

  const TokenFile file(dir / "out");
  EXPECT_EQ(test::read_documents(file, 258), (Documents{{257, 'a', 'b', kEnd}, {257, 'c', kEnd}}));
  EXPECT_EQ(summary.empty_documents, 1);
  EXPECT_EQ(file.info().value().bos_id, 257);
}

TEST(Prepare, TheNumberOfThreadsChangesNoByte) {
  const TempDir dir;
  dir.write("in.1.jsonl", many_lines(3000, 4000));
  dir.write("in.2.jsonl.zst", test::zstd(many_lines(500, 9000)));
  dir.write("in.3.txt", std::string(3 << 20, 'q'));
  std::vector<std::string> first;
  for (const int threads : {1, 2, 7}) {
    PrepareOptions o = options(dir, "in.*", threads);
    o.overwrite = true;

    prepare(o);

    std::vector<std::string> files;
    for (const char* suffix : {".bin", ".idx", ".json"})
      files.push_back(read_text((dir / "out") + suffix));
    if (first.empty()) first = files;
    EXPECT_EQ(files, first) << threads;
  }
  EXPECT_GT(first[0].size(), std::size_t{10} << 20);
}

TEST(Prepare, BadLinesAreRefusedWithTheirCount) {
  const TempDir dir;
  dir.write("a.jsonl", line("a") + "x\n" + many_lines(3000, 4000) + "y\n" + line("b"));

  EXPECT_TRUE(throws(ExitCode::bad_data, "2 bad lines", [&] { prepare(options(dir, "a.jsonl")); }));
  EXPECT_TRUE(
      throws(ExitCode::bad_data, "a.jsonl:3003: ", [&] { prepare(options(dir, "a.jsonl")); }));
  EXPECT_EQ(dir.names(), std::vector<std::string>{"a.jsonl"});
}

TEST(Prepare, BadLinesAreSkippedWithTheirCount) {
  const TempDir dir;
  dir.write("a.jsonl", line("a") + "x\n" + line("b"));
  PrepareOptions o = options(dir, "a.jsonl");
  o.corpus.on_bad_line = OnBadLine::skip;

  const PrepareSummary summary = prepare(o);

  EXPECT_EQ(summary.bad.count, 1);
  EXPECT_EQ(summary.documents, 2);
}

TEST(Prepare, TheReasonsAreSaidWhenNothingIsLeft) {
  const TempDir dir;
  dir.write("a.jsonl", "{\"content\": \"a\"}\n");
  PrepareOptions o = options(dir, "a.jsonl");
  o.corpus.on_bad_line = OnBadLine::skip;

  EXPECT_TRUE(throws(ExitCode::bad_data, "has no key \"text\"", [&] { prepare(o); }));
}

TEST(Prepare, ATruncatedArchiveLeavesTheOldOutput) {
  const TempDir dir;
  test::write_tokens(dir / "out", {{1, 2, 3}}, 257);
  const std::string gz = test::gzip(many_lines(2000, 4000));
  dir.write("a.jsonl.gz", gz.substr(0, gz.size() - 100));
  PrepareOptions o = options(dir, "a.jsonl.gz");
  o.overwrite = true;

  EXPECT_TRUE(throws(ExitCode::bad_data, "truncated", [&] { prepare(o); }));

  EXPECT_EQ(test::read_documents(TokenFile(dir / "out"), 257), (Documents{{1, 2, 3}}));
  EXPECT_EQ(dir.names(),
            (std::vector<std::string>{"a.jsonl.gz", "out.bin", "out.idx", "out.json"}));
}

TEST(Prepare, AnExistingOutputIsRefusedBeforeAnyWork) {
  const TempDir dir;
  test::write_tokens(dir / "out", {{1, 2, 3}}, 257);

  EXPECT_TRUE(throws(ExitCode::cannot_create, "--overwrite",
                     [&] { prepare(options(dir, "missing.jsonl")); }));
}

TEST(Prepare, AnErrorOfAnEncoderArrivesWithTheDocumentsPlace) {
  const TempDir dir;
  dir.write("a.jsonl", many_lines(2000, 4000) + line("zzz") + many_lines(1000, 4000));
  PrepareOptions o = options(dir, "a.jsonl", 3);
  o.make_encoder = [] {
    return [](std::string_view text, std::vector<std::int32_t>& ids) {
      if (text == "zzz") fail(ExitCode::internal, "the encoder failed");
      ids.push_back(1);
    };
  };

  EXPECT_TRUE(throws(ExitCode::internal, "a.jsonl:2001: the encoder failed", [&] { prepare(o); }));
  EXPECT_EQ(dir.names(), std::vector<std::string>{"a.jsonl"});
}

TEST(Prepare, AnInputWithoutTextIsAnError) {
  const TempDir dir;
  dir.write("a.jsonl", line("") + "\n");

  EXPECT_TRUE(throws(ExitCode::bad_data, "no tokens", [&] { prepare(options(dir, "a.jsonl")); }));
}

// ---- with a tokenizer ------------------------------------------------------------------------

TrainedTokenizer trained(const std::string& text) {
  BpeTrainerOptions o;
  o.vocab_size = 300;
  WordCounter counter(o, 1);
  counter.add(text, 0);
  return train_bpe(counter, o);
}

TEST(Prepare, WithATokenizerDecodesToTheText) {
  const TempDir dir;
  const std::string text = "the mill and the miller and the mill";
  save_tokenizer(trained(text), dir / "tok");
  dir.write("a.jsonl", line(text) + line("<|endoftext|> is text"));
  const Tokenizer tokenizer = Tokenizer::load(dir / "tok");
  PrepareOptions o = options(dir, "a.jsonl");
  use_tokenizer(o, tokenizer);

  prepare(o);

  const TokenFile file(dir / "out");
  const Documents documents = test::read_documents(file, tokenizer.vocab_size());
  ASSERT_EQ(documents.size(), 2U);
  EXPECT_EQ(tokenizer.decode(documents[0]), text + "<|endoftext|>");
  EXPECT_EQ(documents[0].back(), tokenizer.eos_id());
  EXPECT_EQ(std::count(documents[1].begin(), documents[1].end(), *tokenizer.eos_id()), 1);
  EXPECT_NO_THROW(file.check_tokenizer(tokenizer_hash(tokenizer)));
  const TrainedTokenizer another = trained("something else entirely, something else");
  EXPECT_TRUE(throws(ExitCode::bad_data, "tokenizer", [&] {
    file.check_tokenizer(tokenizer_hash(Tokenizer::parse(another.json, "another")));
  }));
}

TEST(Prepare, TheBeginIsTheTokenizersOrTheOneNamed) {
  const TempDir dir;
  save_tokenizer(trained("the mill and the miller and the mill"), dir / "tok");
  const Tokenizer tokenizer = Tokenizer::load(dir / "tok");
  const auto bos = [&](const std::string& token) {
    PrepareOptions o = options(dir, "a.jsonl");
    use_tokenizer(o, tokenizer, {.prepend_bos = true, .begin_token = token});
    return o.bos_id;
  };

  EXPECT_EQ(bos(""), tokenizer.bos_id());
  EXPECT_EQ(bos("a"), tokenizer.token_id("a"));
  EXPECT_TRUE(throws(ExitCode::usage, "no token 'nonsense'", [&] { bos("nonsense"); }));
  dir.write("tok/tokenizer_config.json", "{\"bos_token\": null}");
  const Tokenizer bare = Tokenizer::load(dir / "tok");
  PrepareOptions o = options(dir, "a.jsonl");
  EXPECT_TRUE(throws(ExitCode::bad_data, "--bos TOKEN",
                     [&] { use_tokenizer(o, bare, {.prepend_bos = true}); }));
}

// A child replaces the output over and over, by turns with two texts, and is killed; what is left
// is one of the two, complete, or has no index.
TEST(Prepare, AKillAtAnyMomentLeavesNoHalfWrittenPair) {
  const TempDir dir;
  dir.write("a.jsonl", many_lines(40, 400));
  dir.write("b.jsonl", many_lines(30, 500));
  std::vector<PrepareOptions> turns = {options(dir, "a.jsonl", 1), options(dir, "b.jsonl", 1)};
  std::vector<std::string> whole;
  for (PrepareOptions& o : turns) {
    o.overwrite = true;
    prepare(o);
    whole.push_back(read_text(dir / "out.bin"));
  }
  const Random random(13, "kill");
  int complete = 0;
  for (std::uint64_t round = 0; round < 20; ++round) {
    const pid_t child = ::fork();
    if (child == 0) {
      for (std::size_t turn = 0;; ++turn) prepare(turns[turn % 2]);
    }
    ::usleep(static_cast<useconds_t>(2000 + random.below(round, 20000)));
    ::kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    if (!std::filesystem::exists(dir / "out.idx")) continue;
    const TokenFile file(dir / "out");
    const std::string bin = read_text(dir / "out.bin");
    EXPECT_TRUE(bin == whole[0] || bin == whole[1]) << round;
    EXPECT_EQ(file.num_documents(), bin == whole[0] ? 40 : 30) << round;
    ++complete;
  }
  EXPECT_GT(complete, 0);
  prepare(turns[0]);  // and the next run cleans up
  EXPECT_EQ(dir.names(),
            (std::vector<std::string>{"a.jsonl", "b.jsonl", "out.bin", "out.idx", "out.json"}));
}

TEST(Prepare, AFullDiskLeavesNothing) {
  const TempDir dir;
  const std::string small = dir / "small";
  make_directories(small);
  if (::geteuid() != 0 || ::mount("tmpfs", small.c_str(), "tmpfs", 0, "size=1m") != 0)
    GTEST_SKIP() << "needs the right to mount a small file system";
  dir.write("a.jsonl", many_lines(3000, 4000));
  PrepareOptions o = options(dir, "a.jsonl");
  o.output = small + "/out";

  EXPECT_TRUE(throws(ExitCode::io, "No space left", [&] { prepare(o); }));

  EXPECT_TRUE(std::filesystem::is_empty(small));
  ::umount(small.c_str());
}

}  // namespace
}  // namespace grist
