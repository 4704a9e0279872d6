// Reading corpora: formats, compression, bad lines, damaged archives.
#include "grist/data/corpus.h"

#include <sys/stat.h>

#include <fstream>
#include <thread>

#include "data/archive.h"
#include "data/support.h"
#include "grist/core/check.h"
#include "grist/core/hash.h"
#include "grist/core/random.h"
#include "grist/data/document_pipeline.h"
#include "support/scale.h"

namespace grist {
namespace {

using test::TempDir;
using test::throws;
using Texts = std::vector<std::string>;

CorpusOptions options(Texts inputs, OnBadLine on_bad_line = OnBadLine::refuse) {
  CorpusOptions o;
  o.inputs = std::move(inputs);
  o.on_bad_line = on_bad_line;
  return o;
}

struct Piece {
  Texts texts;
  void clear() { texts.clear(); }
  std::size_t bytes() const { return texts.size(); }
};

std::string text_of(const Document& d) {
  return std::string(d.text);
}

std::int64_t newlines(const std::string& text) {
  return std::count(text.begin(), text.end(), '\n');
}

Texts read(const CorpusOptions& o, BadLines* bad = nullptr, int threads = 1,
           std::string (*show)(const Document&) = text_of) {
  Texts texts;
  CorpusSummary summary = for_each_in_order<Piece>(
      {.corpus = o, .pipeline = {.threads = threads}},
      [&](int) { return [&](const Document& d, Piece& piece) { piece.texts.push_back(show(d)); }; },
      [&](const Piece& p) { texts.insert(texts.end(), p.texts.begin(), p.texts.end()); });
  if (bad != nullptr) *bad = std::move(summary.bad);
  return texts;
}

std::string line(std::string_view text) {
  return fmt::format("{{\"id\": 1, \"text\": \"{}\"}}\n", text);
}

TEST(Corpus, ReadsEveryKindInOrder) {
  const TempDir dir;
  dir.write("1.txt", "one\ntwo\n");
  dir.write("2.jsonl", line("a") + line("b"));
  dir.write("3.txt.gz", test::gzip("three"));
  dir.write("4.jsonl.gz", test::gzip(line("c")));
  dir.write("5.jsonl.zst", test::zstd(line("d") + line("e")));
  dir.write("6.txt.zst", test::zstd("six"));
  dir.write("7.ndjson", line("f"));
  dir.write("8.json", line("g"));

  EXPECT_EQ(read(options({dir / "*"})),
            (Texts{"one\ntwo\n", "a", "b", "three", "c", "d", "e", "six", "f", "g"}));
}

TEST(Corpus, ReadsMembersAndFramesPutTogether) {
  const TempDir dir;
  const std::string half = line("a") + "{\"text\": ";
  dir.write("m.jsonl.gz", test::gzip(half) + test::gzip("\"b\"}\n") + test::gzip(""));
  dir.write("m.jsonl.zst", test::zstd(half) + test::zstd("\"b\"}\n") + test::zstd(""));

  EXPECT_EQ(read(options({dir / "m.jsonl.gz", dir / "m.jsonl.zst"})), (Texts{"a", "b", "a", "b"}));
}

TEST(Corpus, PassesOverLineEndsMarksAndBlankLines) {
  const TempDir dir;
  dir.write(
      "a.jsonl",
      "\xEF\xBB\xBF{\"text\":\"a\"}\r\n\r\n  \t\n{\"text\":\"b\\n\\u00e9\"}\r\n{\"text\":\"\"}");
  dir.write("b.jsonl", "");
  dir.write("c.txt", "\xEF\xBB\xBFwhole\r\nfile");

  EXPECT_EQ(read(options({dir / "*"})), (Texts{"a", "b\n\xC3\xA9", "", "whole\r\nfile"}));
}

TEST(Corpus, TakesTheKeyThatIsAskedFor) {
  const TempDir dir;
  dir.write("a.jsonl", "{\"text\":\"no\",\"content\":\"yes\"}\n");
  CorpusOptions o = options({dir / "a.jsonl"});
  o.text_key = "content";

  EXPECT_EQ(read(o), Texts{"yes"});
}

TEST(Corpus, LinesAcrossChunksArriveWhole) {
  const TempDir dir;
  const Random random(3, "lines");
  Texts want;
  std::string all;
  for (std::uint64_t i = 0; all.size() < (std::size_t{5} << 20); ++i) {
    want.push_back(std::string(random.below(i, i % 100 == 0 ? 1500000 : 5000),
                               static_cast<char>('a' + i % 26)));
    all += line(want.back());
  }
  dir.write("a.jsonl", all);
  dir.write("b.jsonl.gz", test::gzip(all));
  dir.write("c.jsonl.zst", test::zstd(all));

  for (const char* name : {"a.jsonl", "b.jsonl.gz", "c.jsonl.zst"})
    EXPECT_EQ(read(options({dir / name})), want) << name;
}

TEST(Corpus, ReadsWhatPythonReads) {
  const TempDir dir;
  dir.write("a.jsonl",
            "{\"id\": 123456789012345678901234567890, \"text\": \"a\"}\n"
            "{\"text\": \"b\", \"score\": [1e400, -0.5E-7, NaN, -Infinity, {\"x\": [[], {}]}]}\n"
            "{\"name\": \"\\ud800\", \"te\\u0078t\": \"c\\ud83d\\ude00\\/\\\"\"}\n"
            "{\"text\": \"first\", \"text\": 3, \"text\": \"last\"}\n");
  const std::string nested(100000, '[');
  dir.write("b.jsonl", "{\"n\": " + nested + std::string(100000, ']') + ", \"text\": \"deep\"}\n");

  EXPECT_EQ(read(options({dir / "*"})), (Texts{"a", "b", "c\xF0\x9F\x98\x80/\"", "last", "deep"}));
}

TEST(Corpus, ReadsZerosBehindAMember) {
  const TempDir dir;
  const std::string zeros(700000, '\0');
  dir.write("a.jsonl.gz", test::gzip(line("a")) + zeros + test::gzip(line("b")) + zeros);

  EXPECT_EQ(read(options({dir / "a.jsonl.gz"})), (Texts{"a", "b"}));
}

// A frame with a window of 256 MiB, as zstd --long=28 writes it, behind a skippable one.
TEST(Corpus, ReadsLongWindowsAndSkippableFrames) {
  const TempDir dir;
  const std::string text = line("a");
  std::string frame("\x50\x2A\x4D\x18\x03\0\0\0abc\x28\xB5\x2F\xFD\0\x90", 17);
  const auto header = static_cast<unsigned>(text.size() << 3U | 1U);  // the last block, raw
  for (const unsigned shift : {0U, 8U, 16U}) frame += static_cast<char>(header >> shift & 0xFFU);
  dir.write("a.jsonl.zst", frame + text);

  EXPECT_EQ(read(options({dir / "a.jsonl.zst"})), Texts{"a"});
}

TEST(Corpus, TextIsCutAtItsSeparator) {
  const TempDir dir;
  dir.write("a.txt", "one\ntwo\r\n\n \t\nthree");
  dir.write("b.txt.gz", test::gzip("no<|end|>yes\n\n\n<|end|>\n<|end|>"));
  CorpusOptions lines = options({dir / "a.txt"});
  lines.document_separator = parse_separator("\\n");
  CorpusOptions ends = options({dir / "*"});
  ends.document_separator = "<|end|>";
  CorpusOptions paragraphs = options({dir / "b.txt.gz"});
  paragraphs.document_separator = parse_separator("\\n\\n");

  EXPECT_EQ(read(lines), (Texts{"one", "two", "three"}));
  EXPECT_EQ(read(ends), (Texts{"one\ntwo\r\n\n \t\nthree", "no", "yes\n\n\n"}));
  EXPECT_EQ(read(paragraphs), (Texts{"no<|end|>yes", "\n<|end|>\n<|end|>"}));
}

// Chunks end anywhere, within separators too; a document that is too long goes alone.
TEST(Corpus, SeparatorsAcrossChunksCutWhereTheyStand) {
  const TempDir dir;
  const Random random(3, "separated");
  for (const std::string separator : {"\n\n", "<|end|>", "ababac"}) {
    Texts want;
    std::string all;
    std::int64_t lines = 1;
    for (std::uint64_t i = 0; all.size() < (std::size_t{5} << 20); ++i) {
      const std::string text = "a\nab" + std::string(random.below(i, 3000), 'x') + "<|";
      if (i == 700) all += "y" + std::string(1 << 21, 'z') + separator;
      if (i == 700) lines += newlines(separator);
      want.push_back(fmt::format("{} {}", lines, text.size()));
      all += text + separator;
      lines += newlines(text + separator);
    }
    CorpusOptions o = options({dir.write("a.txt", all)}, OnBadLine::skip);
    o.document_separator = separator;
    o.max_document_bytes = 1 << 20;
    BadLines bad;

    EXPECT_EQ(read(o, &bad, 2,
                   [](const Document& d) { return fmt::format("{} {}", d.line, d.text.size()); }),
              want);

    ASSERT_EQ(bad.count, 1) << separator;
    EXPECT_NE(bad.first[0].find("longer than 1048576 bytes"), std::string::npos) << bad.first[0];
  }
}

TEST(Corpus, SeparatorsAreReadAsTheyAreWritten) {
  EXPECT_EQ(parse_separator("a\\n\\r\\t\\\\b"), "a\n\r\t\\b");
  for (const char* wrong : {"", "\\", "\\x"})
    EXPECT_TRUE(throws(ExitCode::usage, "--document-separator", [&] { parse_separator(wrong); }));
}

TEST(Corpus, PipesAreReadAsTheyCome) {
  const TempDir dir;
  const auto through = [&](const char* name, const std::string& bytes, std::string separator) {
    const std::string path = dir / name;
    EXPECT_EQ(::mkfifo(path.c_str(), 0600), 0);
    std::thread writer([&] {
      std::ofstream out(path, std::ios::binary);
      for (std::size_t at = 0; at < bytes.size(); at += 5000) out << bytes.substr(at, 5000);
    });
    CorpusOptions o = options({path});
    o.document_separator = std::move(separator);
    const Texts texts = read(o);
    writer.join();
    return texts;
  };
  std::string lines;
  Texts want;
  for (int i = 0; i < 5000; ++i) {
    want.push_back(std::to_string(i));
    lines += line(want.back());
  }

  EXPECT_EQ(through("named.jsonl.gz", test::gzip(lines), ""), want);
  EXPECT_EQ(through("63", lines, ""), want);
  EXPECT_EQ(through("64", "a;b", ";"), (Texts{"a", "b"}));
}

// ---- bad lines -------------------------------------------------------------------------------

struct BadLine {
  std::string text;
  const char* reason;
};

const std::vector<BadLine> kBadLines = {
    {"{\"text\": \"a\"", "not valid JSON"},
    {"{\"text\": \"a\"} x", "not valid JSON"},
    {"text", "not valid JSON"},
    {"{\"text\": \"\\ud800\"}", "half of a surrogate pair"},
    {"{\"text\": \"\\udc00\\ud800\"}", "half of a surrogate pair"},
    {"{\"text\": \"a\",}", "not valid JSON"},
    {"{\"text\": \"a\", \"n\": 01}", "not valid JSON"},
    {"{\"text\": \"a\", \"n\": [1 2]}", "not valid JSON"},
    {"{\"text\": \"a\", \"n\": [1}}", "not valid JSON"},
    {"{\"text\": \"a\tb\"}", "control character"},
    {"{\"text\": \"a\\x\"}", "unknown escape"},
    {"{\"text\": \"a\", \"n\": 1.}", "a digit was expected"},
    {"{\"text\": \"a\", \"n\": nan}", "not valid JSON"},
    {"[1, 2]", "not a JSON object"},
    {"\"text\"", "not a JSON object"},
    {"{\"content\": \"a\"}", "has no key \"text\""},
    {"{\"text\": 3}", "is not a string"},
    {"{\"text\": null}", "is not a string"},
    {"{\"text\": \"\xFF\"}", "not valid UTF-8"},
    {"{\"text\": \"\xC3\"}", "not valid UTF-8"},
};

TEST(BadLines, AreSkippedCountedAndNamed) {
  const TempDir dir;
  for (const BadLine& bad_line : kBadLines) {
    dir.write("a.jsonl", line("a") + bad_line.text + "\n" + line("b"));
    BadLines bad;

    EXPECT_EQ(read(options({dir / "a.jsonl"}, OnBadLine::skip), &bad), (Texts{"a", "b"}));

    ASSERT_EQ(bad.count, 1) << bad_line.text;
    EXPECT_EQ(bad.first[0].find((dir / "a.jsonl") + ":2: "), 0U) << bad.first[0];
    EXPECT_NE(bad.first[0].find(bad_line.reason), std::string::npos) << bad.first[0];
  }
}

TEST(BadLines, AreRefusedTogether) {
  const TempDir dir;
  std::string all = line("a");
  for (const BadLine& bad_line : kBadLines) all += bad_line.text + "\n";
  dir.write("a.jsonl", all);

  EXPECT_TRUE(throws(ExitCode::bad_data, fmt::format("{} bad lines", kBadLines.size()),
                     [&] { read(options({dir / "a.jsonl"})); }));
  EXPECT_TRUE(throws(ExitCode::bad_data, "a.jsonl:2: ", [&] { read(options({dir / "a.jsonl"})); }));
}

TEST(BadLines, TextThatIsNotUtf8) {
  const TempDir dir;
  dir.write("a.txt", "caf\xE9");
  dir.write("b.txt", "one\ntwo\xE9\nthree");
  CorpusOptions lines = options({dir / "b.txt"}, OnBadLine::skip);
  lines.document_separator = "\n";
  BadLines bad;

  EXPECT_EQ(read(lines, &bad), (Texts{"one", "three"}));
  EXPECT_NE(bad.first.at(0).find("b.txt:2: not valid UTF-8"), std::string::npos);
  EXPECT_TRUE(
      throws(ExitCode::bad_data, "not valid UTF-8", [&] { read(options({dir / "a.txt"})); }));
  EXPECT_EQ(read(options({dir / "a.txt"}, OnBadLine::skip)), Texts{});
}

TEST(BadLines, TooLongIsALimitNotMemory) {
  const TempDir dir;
  const std::string big(3 << 20, 'x');
  dir.write("a.jsonl", line("a") + line(big) + line("b") + line(std::string(999, 'y')) + line("c"));
  dir.write("b.jsonl", line(big));
  dir.write("c.jsonl", "x" + big);  // no line end
  dir.write("d.txt", big);
  dir.write("e.txt", std::string(1000, 'z'));
  CorpusOptions o = options({dir / "*"}, OnBadLine::skip);
  o.max_document_bytes = o.max_text_bytes = 1000;
  BadLines bad;

  EXPECT_EQ(read(o, &bad), (Texts{"a", "b", "c", std::string(1000, 'z')}));

  ASSERT_EQ(bad.count, 5);
  const Texts where = {"a.jsonl:2:", "a.jsonl:4:", "b.jsonl:1:", "c.jsonl:1:", "d.txt:1:"};
  for (std::size_t i = 0; i < 5; ++i) {
    EXPECT_NE(bad.first[i].find(where[i]), std::string::npos) << bad.first[i];
    EXPECT_NE(bad.first[i].find("longer than 1000 bytes"), std::string::npos) << bad.first[i];
  }
  EXPECT_NE(bad.first[4].find("--document-separator"), std::string::npos) << bad.first[4];
}

TEST(BadLines, LinesBetweenOverlongOnesAreKept) {
  const TempDir dir;
  const std::string big = line(std::string(3 << 20, 'x'));
  std::string small;
  for (int i = 0; i < 1000; ++i) small += line("s");
  dir.write("a.jsonl", big + small + big + small);
  CorpusOptions o = options({dir / "a.jsonl"}, OnBadLine::skip);
  o.max_document_bytes = 1000;
  BadLines bad;

  EXPECT_EQ(read(o, &bad).size(), 2000U);

  ASSERT_EQ(bad.count, 2);
  EXPECT_NE(bad.first[0].find(":1: longer"), std::string::npos) << bad.first[0];
  EXPECT_NE(bad.first[1].find(":1002: longer"), std::string::npos) << bad.first[1];
}

TEST(BadLines, OnlyTheFirstAreNamed) {
  const TempDir dir;
  std::string all;
  for (int i = 0; i < 50; ++i) all += "x\n";
  dir.write("a.jsonl", all);
  BadLines bad;

  read(options({dir / "a.jsonl"}, OnBadLine::skip), &bad);

  EXPECT_EQ(bad.count, 50);
  EXPECT_EQ(bad.first.size(), BadLines::kNamed);
  EXPECT_EQ(parse_on_bad_line("skip"), OnBadLine::skip);
  EXPECT_TRUE(throws(ExitCode::usage, "ignore", [] { parse_on_bad_line("ignore"); }));
}

// ---- files -----------------------------------------------------------------------------------

TEST(Corpus, DamagedArchivesAreRefusedUnderEitherPolicy) {
  const TempDir dir;
  std::string text;
  const Random random(5, "noise");
  for (std::uint64_t i = 0; i < 2000; ++i) text += line(hash_hex(random.bits(i)));
  const std::string gz = test::gzip(text);
  const std::string zst = test::zstd(text);
  for (const std::size_t cut :
       {std::size_t{0}, std::size_t{1}, std::size_t{5}, gz.size() / 2, gz.size() - 1})
    dir.write(fmt::format("cut{}.jsonl.gz", cut), gz.substr(0, cut));
  for (const std::size_t cut :
       {std::size_t{0}, std::size_t{1}, std::size_t{5}, zst.size() / 2, zst.size() - 1})
    dir.write(fmt::format("cut{}.jsonl.zst", cut), zst.substr(0, cut));
  dir.write("foreign.txt.gz", text);
  dir.write("foreign.txt.zst", text);
  dir.write("tail.txt.gz", gz + "rubbish behind the end");
  dir.write("tail.txt.zst", zst + "rubbish behind the end");
  std::string flipped = gz;
  flipped[gz.size() - 6] = static_cast<char>(flipped[gz.size() - 6] ^ 1);  // the checksum
  dir.write("sum.txt.gz", flipped);

  for (const std::string& name : dir.names()) {
    for (const OnBadLine policy : {OnBadLine::refuse, OnBadLine::skip}) {
      EXPECT_TRUE(throws(ExitCode::bad_data, name, [&] { read(options({dir / name}, policy)); }))
          << name;
    }
  }
}

TEST(Corpus, ThreadsSeeTheSameDocumentsAndBadLines) {
  const TempDir dir;
  std::string all;
  for (int i = 0; i < 3000; ++i) {
    all += line(std::string(1500, static_cast<char>('a' + i % 26)));
    if (i % 200 == 0) all += "x\n";
  }
  dir.write("a.jsonl", all);
  dir.write("b.jsonl.gz", test::gzip(all));
  BadLines serial, bad;
  const Texts want = read(options({dir / "*"}, OnBadLine::skip), &serial);

  EXPECT_EQ(read(options({dir / "*"}, OnBadLine::skip), &bad, 3), want);

  EXPECT_EQ(bad.count, serial.count);
  EXPECT_EQ(bad.first, serial.first);
  EXPECT_TRUE(
      throws(ExitCode::bad_data, "30 bad lines", [&] { read(options({dir / "*"}), nullptr, 3); }));
}

TEST(Corpus, ChangedBytesAreReadOrRefused) {
  const TempDir dir;
  std::string text;
  for (int i = 0; i < 40; ++i) text += line(fmt::format("document {} \\u00e9\\n", i));
  const std::vector<std::pair<const char*, std::string>> good = {
      {"a.jsonl", text}, {"a.jsonl.gz", test::gzip(text)}, {"a.jsonl.zst", test::zstd(text)}};
  const Random random(17, "mutations");
  int refused = 0;
  const int rounds = test::scaled(3000);
  for (std::uint64_t round = 0; round < static_cast<std::uint64_t>(rounds); ++round) {
    const auto& [name, whole] = good[round % good.size()];
    std::string bytes = whole;
    for (std::uint64_t c = 0; c < 1 + round % 3; ++c) {
      bytes[random.below(8 * round + c, bytes.size())] =
          static_cast<char>(random.bits(8 * round + 4 + c));
    }
    dir.write(name, bytes);
    for (const OnBadLine policy : {OnBadLine::skip, OnBadLine::refuse}) {
      try {
        BadLines bad;
        const Texts texts = read(options({dir / name}, policy), &bad);
        EXPECT_TRUE(policy == OnBadLine::skip || bad.count == 0);
        // A changed .zst without checksum may repeat lines; the others cannot.
        if (std::string_view(name) != "a.jsonl.zst") {
          EXPECT_LE(texts.size() + static_cast<std::size_t>(bad.count), 46U);
        }
      } catch (const Error& e) {
        ASSERT_EQ(e.code(), ExitCode::bad_data) << e.what();
        ++refused;
      }
    }
  }
  EXPECT_GT(refused, rounds * 2 / 3);
}

TEST(Corpus, InputsMustExistAndBeOfAKnownKind) {
  const TempDir dir;
  dir.write("a.txt", "a");
  dir.write("b.pdf", "b");
  dir.write("c[1].txt", "c");

  EXPECT_TRUE(throws(ExitCode::not_found, "none", [&] { expand_inputs({dir / "none*.txt"}); }));
  EXPECT_TRUE(throws(ExitCode::bad_data, "b.pdf", [&] { expand_inputs({dir / "*"}); }));
  EXPECT_TRUE(throws(ExitCode::usage, "folder", [&] { expand_inputs({dir / ""}); }));
  EXPECT_TRUE(throws(ExitCode::usage, "no input", [&] { expand_inputs({}); }));
  EXPECT_EQ(read(options({dir / "c[1].txt", dir / "*.txt", dir / "a.txt"})), (Texts{"c", "a"}));
}

}  // namespace
}  // namespace grist
