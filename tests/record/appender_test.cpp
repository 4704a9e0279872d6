// Files that grow while the disk is full: nothing ends, nothing is torn, and it goes on.
#include "appender.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>

#include "metrics_log.h"
#include "support/temporary_folder.h"
#include "tensorboard.h"

namespace grist::record {
namespace {

// While it lives no file of this process grows beyond so many bytes: the write that meets the limit
// is cut short and the next one fails, as on a full disk.
class FullAt {
 public:
  explicit FullAt(std::uint64_t bytes) {
    std::signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before_);
    rlimit now = before_;
    now.rlim_cur = bytes;
    setrlimit(RLIMIT_FSIZE, &now);
  }
  ~FullAt() { setrlimit(RLIMIT_FSIZE, &before_); }

 private:
  rlimit before_{};
};

int count(const std::string& text, const std::string& word) {
  int n = 0;
  for (std::size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) ++n;
  return n;
}

TEST(Appender, AFullDiskTearsNoEntryAndWarnsOnce) {
  const test::TemporaryFolder folder;
  Appender file(folder.path() / "file");
  file.append("first\n");
  testing::internal::CaptureStderr();
  {
    const FullAt limit(10);
    file.append("second\n");
    EXPECT_EQ(read_text(folder.path() / "file"), "first\n");
    file.append("third\n");
    file.sync();
  }
  EXPECT_EQ(count(testing::internal::GetCapturedStderr(), "warning"), 1);
  EXPECT_EQ(file.bytes(), 19U);  // once all is written
}

TEST(Appender, GoesOnWhenSpaceComesBack) {
  const test::TemporaryFolder folder;
  Appender file(folder.path() / "file");
  for (int outage = 0; outage < 2; ++outage) {
    const FullAt limit(outage == 0 ? 3 : 12);
    file.append("entry\n");
  }
  file.append("last\n");
  EXPECT_EQ(read_text(folder.path() / "file"), "entry\nentry\nlast\n");
  EXPECT_EQ(file.bytes(), read_text(folder.path() / "file").size());
}

TEST(Appender, AFileThatCannotBeMadeIsMadeLater) {
  const test::TemporaryFolder folder;
  write_text_atomically(folder.path() / "sub", "in the way");
  Appender file(folder.path() / "sub" / "file");
  file.append("a\n");
  std::filesystem::remove(folder.path() / "sub");
  file.append("b\n");
  EXPECT_EQ(read_text(folder.path() / "sub" / "file"), "a\nb\n");
}

TEST(Appender, WhatWaitsIsBounded) {
  const test::TemporaryFolder folder;
  Appender file(folder.path() / "file", 12);
  {
    const FullAt limit(0);
    for (const char* entry : {"one\n", "two\n", "three\n", "4\n"}) file.append(entry);
  }
  file.append("five\n");
  EXPECT_EQ(read_text(folder.path() / "file"), "one\ntwo\n4\nfive\n");
}

TEST(Appender, TensorboardRecordsStayWholeToo) {
  const test::TemporaryFolder folder;
  StepRecord r;
  std::optional<Tensorboard> board;
  {
    const FullAt limit(20);
    board.emplace(folder.path() / "tensorboard");
    board->write(r);
  }
  board->write(r);
  const auto file = *std::filesystem::directory_iterator(folder.path() / "tensorboard");
  const std::size_t version = tensorboard_version_record(0).size();
  const std::string text = read_text(file.path());
  EXPECT_EQ(text.find("brain.Event:2"), text.rfind("brain.Event:2"));
  EXPECT_EQ((text.size() - version) % 2, 0U);
  EXPECT_EQ(count(text, "train/loss"), 2);
}

TEST(MetricsLog, CutsBehindTheCheckpointAndKeepsTheTailBeside) {
  const test::TemporaryFolder folder;
  const auto path = folder.path() / "metrics.jsonl";
  std::uint64_t kept = 0;
  {
    MetricsLog log(path, 0);
    log.append(Json::parse(R"({"step": 1})", "t"));
    kept = log.bytes();
    log.append(Json::parse(R"({"step": 2})", "t"));
  }
  {
    MetricsLog log(path, kept);
    EXPECT_EQ(log.bytes(), kept);
    log.append(Json::parse(R"({"step": 2, "again": true})", "t"));
  }
  EXPECT_EQ(read_text(path), "{\"step\": 1}\n{\"step\": 2, \"again\": true}\n");
  EXPECT_EQ(read_text(path.string() + ".tail-1"), "{\"step\": 2}\n");
}

TEST(MetricsLog, ATornLineIsMendedBeforeTheNextOne) {
  const test::TemporaryFolder folder;
  const auto path = folder.path() / "metrics.jsonl";
  write_text_atomically(path, "{\"step\": 1}\n{\"st");
  MetricsLog log(path, 1000);
  log.append(Json::parse(R"({"step": 2})", "t"));
  EXPECT_EQ(read_text(path), "{\"step\": 1}\n{\"step\": 2}\n");
  EXPECT_EQ(read_text(path.string() + ".tail-1"), "{\"st");
}

TEST(MetricsLog, WithoutRoomForTheTailItsLinesStay) {
  const test::TemporaryFolder folder;
  const auto path = folder.path() / "metrics.jsonl";
  write_text_atomically(path, "{\"step\": 1}\n{\"step\": 2}\n{\"st");
  std::optional<MetricsLog> log;
  {
    const FullAt limit(2);
    log.emplace(path, 12);
  }
  log->append(Json::parse(R"({"step": 2})", "t"));
  EXPECT_EQ(read_text(path), "{\"step\": 1}\n{\"step\": 2}\n{\"step\": 2}\n");
}

}  // namespace
}  // namespace grist::record
