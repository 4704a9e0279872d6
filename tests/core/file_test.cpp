#include "grist/core/file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <fstream>
#include <thread>

#include "grist/core/error.h"
#include "support/temporary_folder.h"

namespace grist {
namespace {

namespace fs = std::filesystem;

class FileTest : public ::testing::Test {
 protected:
  // Runs the action and returns the error's code; the message must name the path.
  template <class Action> static ExitCode code_of(const fs::path& path, const Action& action) {
    try {
      action();
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(path.string()), std::string::npos) << e.what();
      return e.code();
    }
    return ExitCode::ok;
  }
  static std::span<const std::byte> bytes(std::string_view s) {
    return std::as_bytes(std::span(s));
  }

  const test::TemporaryFolder folder_;
  const fs::path dir_ = folder_.path();
};

TEST_F(FileTest, WritesAndReadsAtPositions) {
  const fs::path path = dir_ / "a";
  File f = File::create(path);
  f.write_at(3, bytes("world"));
  f.write_at(0, bytes("abc"));
  EXPECT_EQ(f.size(), 8U);
  std::array<char, 4> out{};
  f.read_at(2, std::as_writable_bytes(std::span(out)));
  EXPECT_EQ(std::string(out.data(), 4), "cwor");
  EXPECT_EQ(f.read_some_at(6, std::as_writable_bytes(std::span(out))), 2U);
  EXPECT_EQ(f.read_some_at(8, std::as_writable_bytes(std::span(out))), 0U);
  f.truncate(2);
  f.close();
  EXPECT_FALSE(f.is_open());
  f.close();  // a second time is harmless
  EXPECT_EQ(read_text(path), "ab");
}

TEST_F(FileTest, AppendGoesToTheEnd) {
  const fs::path path = dir_ / "log";
  for (const char* line : {"one\n", "two\n"}) File::open_append(path).append(line);
  EXPECT_EQ(read_text(path), "one\ntwo\n");
}

TEST_F(FileTest, ErrorsCarryTheCodeAScriptNeeds) {
  const fs::path missing = dir_ / "missing";
  const fs::path nowhere = dir_ / "no" / "folder";
  const fs::path there = dir_ / "there";
  File::create(there).append("x");

  EXPECT_EQ(code_of(missing, [&] { File::open_read(missing); }), ExitCode::not_found);
  EXPECT_EQ(code_of(dir_, [&] { File::open_read(dir_); }), ExitCode::not_found);
  EXPECT_EQ(code_of(nowhere, [&] { File::create(nowhere); }), ExitCode::cannot_create);
  EXPECT_EQ(code_of(there, [&] { File::create_new(there); }), ExitCode::cannot_create);
  EXPECT_EQ(code_of(nowhere, [&] { File::open_append(nowhere); }), ExitCode::cannot_create);
  EXPECT_EQ(code_of(missing, [&] { rename_path(missing, there); }), ExitCode::io);
  EXPECT_EQ(code_of(there, [&] { make_directories(there / "x"); }), ExitCode::cannot_create);
  EXPECT_EQ(code_of(missing, [&] { sync_directory(missing); }), ExitCode::not_found);
  EXPECT_EQ(code_of(missing, [&] { free_bytes(missing); }), ExitCode::io);
  EXPECT_EQ(code_of(there, [&] { read_text(there, 0); }), ExitCode::bad_data);
  EXPECT_EQ(read_text(there), "x");  // none of these touched it
}

TEST_F(FileTest, TextComesFromAPipeToo) {
  const fs::path path = dir_ / "pipe";
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  const std::string text(300000, 'x');
  std::thread writer([&] { std::ofstream(path) << text << std::flush; });

  EXPECT_EQ(read_text(path, text.size()), text);

  writer.join();
}

TEST_F(FileTest, ShortReadIsBadData) {
  const fs::path path = dir_ / "short";
  File::create(path).append("12345");
  const File f = File::open_read(path);
  std::array<std::byte, 4> out{};
  EXPECT_EQ(code_of(path, [&] { f.read_at(2, out); }), ExitCode::bad_data);
}

TEST_F(FileTest, WritingAReadOnlyFileIsAnIoError) {
  const fs::path path = dir_ / "ro";
  File::create(path).append("x");
  File f = File::open_read(path);
  EXPECT_EQ(code_of(path, [&] { f.write_at(0, bytes("y")); }), ExitCode::io);
  EXPECT_EQ(code_of(path, [&] { f.append("y"); }), ExitCode::io);
  EXPECT_EQ(code_of(path, [&] { f.truncate(0); }), ExitCode::io);
}

TEST_F(FileTest, AFullDiskIsAnIoError) {
  if (::access("/dev/full", W_OK) != 0) GTEST_SKIP() << "no /dev/full here";
  EXPECT_EQ(code_of("/dev/full", [&] { File::open_append("/dev/full").append("x"); }),
            ExitCode::io);
}

TEST_F(FileTest, PreallocateReservesTheSize) {
  File f = File::create(dir_ / "big");
  f.preallocate(12345);
  EXPECT_EQ(f.size(), 12345U);
  f.preallocate(0);
}

TEST_F(FileTest, AtomicWriteReplacesTheWholeText) {
  const fs::path path = dir_ / "config.yaml";
  write_text_atomically(path, "first version, longer");
  write_text_atomically(path, "second");
  EXPECT_EQ(read_text(path), "second");
  EXPECT_EQ(std::distance(fs::directory_iterator(dir_), fs::directory_iterator()), 1);
}

TEST_F(FileTest, AFailedAtomicWriteLeavesTheOldTextAndNothingBeside) {
  const fs::path target = dir_ / "taken";
  make_directories(target / "child");  // a folder that rename cannot replace
  EXPECT_EQ(code_of(target, [&] { write_text_atomically(target, "new"); }), ExitCode::io);
  EXPECT_TRUE(fs::is_directory(target / "child"));
  EXPECT_EQ(std::distance(fs::directory_iterator(dir_), fs::directory_iterator()), 1);
}

TEST_F(FileTest, MovedFromFilesAreClosed) {
  File a = File::create(dir_ / "a");
  const int fd = a.fd();
  File b = std::move(a);
  EXPECT_EQ(b.fd(), fd);
  EXPECT_FALSE(a.is_open());  // NOLINT(bugprone-use-after-move)
  b = File::create(dir_ / "b");
  EXPECT_EQ(b.path(), dir_ / "b");
}

}  // namespace
}  // namespace grist
