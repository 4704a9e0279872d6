// Whole records: fields as they stand, records written out again, one order for any threads.
#include "grist/data/document.h"

#include "data/archive.h"
#include "data/support.h"
#include "grist/core/check.h"
#include "grist/core/random.h"
#include "grist/data/document_pipeline.h"

namespace grist {
namespace {

using test::TempDir;
using test::throws;

// What a filter is: a predicate, and members that it adds.
struct Kept {
  std::string lines;
  void clear() { lines.clear(); }
  std::size_t bytes() const { return lines.capacity(); }
};

using Rule = std::function<bool(const Document&, std::string& added)>;

std::string filtered(const CorpusOptions& corpus, const Rule& keep, int threads = 2) {
  std::string out;
  const auto make_worker = [&](int) {
    return [&](const Document& d, Kept& kept) {
      std::string value;
      if (!keep(d, value)) return;
      const AddedMember added{.name = "score", .value = value};
      append_record(kept.lines, d, std::span(&added, value.empty() ? 0 : 1));
      kept.lines += '\n';
    };
  };
  for_each_in_order<Kept>({.corpus = corpus, .pipeline = {.threads = threads}}, make_worker,
                          [&](const Kept& kept) { out += kept.lines; });
  return out;
}

constexpr std::string_view kOdd =
    "{\"text\":\"a\",\"id\":123456789012345678901234567890}\n"
    "  {\t\"text\" : \"b \\u00e9\" , \"x\" : [ 1e400 , NaN , {\"y\":null} ] }  \r\n"
    "{\"name\": \"\\ud800\", \"t\\u0065xt\": \"c\", \"text\": \"last\"}\n";

TEST(Document, RecordsAreWrittenOutByteForByte) {
  const TempDir dir;
  const std::string file = dir.write("a.jsonl", kOdd);

  EXPECT_EQ(filtered({.inputs = {file}}, [](const Document&, std::string&) { return true; }), kOdd);
}

TEST(Document, MembersAreAddedBehindTheRecordsOwn) {
  const TempDir dir;
  const std::string file = dir.write("a.jsonl", kOdd);

  EXPECT_EQ(
      filtered({.inputs = {file}},
               [](const Document& d, std::string& added) {
                 added = fmt::format("[{}]", d.line);
                 return true;
               }),
      "{\"text\":\"a\",\"id\":123456789012345678901234567890, \"score\": [1]}\n"
      "  {\t\"text\" : \"b \\u00e9\" , \"x\" : [ 1e400 , NaN , {\"y\":null} ] , \"score\": [2]}  "
      "\r\n"
      "{\"name\": \"\\ud800\", \"t\\u0065xt\": \"c\", \"text\": \"last\", \"score\": [3]}\n");
}

TEST(Document, FieldsAreTheBytesOfTheRecord) {
  const TempDir dir;
  const std::string file = dir.write("a.jsonl", "\n" + std::string(kOdd));
  std::vector<std::string> seen;

  filtered({.inputs = {file}}, [&](const Document& d, std::string&) {
    seen.push_back(fmt::format("{} {} {} {} {}", d.line, d.text, d.field("id").value_or("-"),
                               d.field("x").value_or("-"), d.field("text").value_or("-")));
    EXPECT_EQ(d.file, file);
    return false;
  });

  EXPECT_EQ(seen, (std::vector<std::string>{
                      "2 a 123456789012345678901234567890 - \"a\"",
                      "3 b \xC3\xA9 - [ 1e400 , NaN , {\"y\":null} ] \"b \\u00e9\"",
                      "4 last - - \"last\"",
                  }));
}

TEST(Document, PlainTextBecomesARecord) {
  const TempDir dir;
  const std::string file = dir.write("a.txt", "two\n\"lines\"");

  EXPECT_EQ(filtered({.inputs = {file}},
                     [](const Document& d, std::string& added) {
                       EXPECT_TRUE(d.record.empty() && d.members.empty());
                       added = "1";
                       return true;
                     }),
            "{\"text\": \"two\\n\\\"lines\\\"\", \"score\": 1}\n");
}

TEST(Document, AnEmptyRecordTakesMembersToo) {
  const Document d{.text = "", .record = "{ }"};
  const AddedMember added[] = {{.name = "a\"b", .value = "1"}, {.name = "c", .value = "[]"}};
  std::string out;

  append_record(out, d, added);

  EXPECT_EQ(out, "{ \"a\\\"b\": 1, \"c\": []}");
}

TEST(DocumentPipeline, TheNumberOfThreadsChangesNoByte) {
  const TempDir dir;
  const Random random(7, "records");
  std::string all;
  for (std::uint64_t i = 0; i < 2000; ++i)
    all += fmt::format("{{\"n\": {}, \"text\": \"{}\"}}\n", i,
                       std::string(random.below(i, 6000), static_cast<char>('a' + i % 26)));
  dir.write("a.jsonl", all);
  dir.write("b.jsonl.gz", test::gzip(all));
  const Rule keep = [](const Document& d, std::string& added) {
    added = std::to_string(d.text.size());
    return d.text.size() % 3 == 0;
  };

  const std::string one = filtered({.inputs = {dir / "*"}}, keep, 1);

  EXPECT_GT(one.size(), std::size_t{3} << 20);
  EXPECT_EQ(filtered({.inputs = {dir / "*"}}, keep, 5), one);
}

TEST(DocumentPipeline, ErrorsOfWorkNameTheDocument) {
  const TempDir dir;
  dir.write("a.txt", "fine");
  dir.write("b.jsonl", "{\"text\": \"fine\"}\n\n{\"text\": \"no\"}\n{\"text\": \"no\"}\n");
  const auto breaks = [&](const std::function<void()>& how) {
    filtered({.inputs = {dir / "*"}}, [&](const Document& d, std::string&) {
      if (d.text == "no") how();
      return true;
    });
  };

  EXPECT_TRUE(throws(ExitCode::numeric, "b.jsonl:3: broken",
                     [&] { breaks([] { fail(ExitCode::numeric, "broken"); }); }));
  EXPECT_TRUE(throws(ExitCode::internal, "b.jsonl:3: odd",
                     [&] { breaks([] { throw std::runtime_error("odd"); }); }));
  EXPECT_TRUE(throws(ExitCode::out_of_memory, "b.jsonl:3: out of memory",
                     [&] { breaks([] { throw std::bad_alloc(); }); }));
}

TEST(DocumentPipeline, NothingIsWrittenBehindARefusedLine) {
  const TempDir dir;
  std::string all;
  for (int i = 0; i < 3000; ++i) all += "{\"text\": \"" + std::string(1500, 'a') + "\"}\n";
  dir.write("a.jsonl", "x\n" + all + "y\n");
  int written = 0;

  EXPECT_TRUE(throws(ExitCode::bad_data, "2 bad lines", [&] {
    for_each_in_order<Kept>(
        {.corpus = {.inputs = {dir / "a.jsonl"}}, .pipeline = {.threads = 2}},
        [](int) { return [](const Document&, Kept&) {}; }, [&](const Kept&) { ++written; });
  }));

  EXPECT_EQ(written, 0);
}

}  // namespace
}  // namespace grist
