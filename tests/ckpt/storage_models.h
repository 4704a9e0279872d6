#pragma once
// Storages that misbehave: FaultyStorage fails, crashes or kills the process at the n-th operation;
// RecordingStorage keeps the operations, and PowerCut rebuilds what a disk may hold when the power
// goes after any of them.
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <set>

#include "grist/ckpt/storage.h"
#include "grist/core/check.h"
#include "grist/core/random.h"

namespace grist::test {

struct Crash {};  // not a std::exception: nothing in the library may treat it as an error

enum class Fault {
  none,
  no_space,
  io_error,
  quota,
  read_only,
  torn_write,  // half of a write arrives, then an error
  crash,
  torn_crash,
  kill
};

inline const char* text_of(Fault fault) {
  switch (fault) {
    case Fault::no_space: return "No space left on device";
    case Fault::quota: return "Disk quota exceeded";
    case Fault::read_only: return "Read-only file system";
    default: return "Input/output error";
  }
}

class FaultyStorage final : public Storage {
 public:
  // `machine`: what a crash here sets, and what stops all storages that share it.
  FaultyStorage(Fault fault, int at, std::atomic<bool>* machine = nullptr)
      : fault_(fault), at_(at), machine_(machine) {}
  bool can_exchange = true;
  bool dead() const { return dead_ || (machine_ != nullptr && *machine_); }
  bool triggered() const { return triggered_; }
  int operations() const { return count_; }

  std::unique_ptr<StorageFile> create_file(const std::filesystem::path& path) override {
    step(path);
    return std::make_unique<FaultyFile>(*this, path, disk_.create_file(path));
  }
  bool make_directory(const std::filesystem::path& path) override {
    step(path);
    return disk_.make_directory(path);
  }
  void rename(const std::filesystem::path& from, const std::filesystem::path& to) override {
    step(from);
    disk_.rename(from, to);
  }
  bool exchange(const std::filesystem::path& a, const std::filesystem::path& b) override {
    step(a);
    return can_exchange && disk_.exchange(a, b);
  }
  void sync_directory(const std::filesystem::path& path) override {
    step(path);
    disk_.sync_directory(path);
  }
  void remove_file(const std::filesystem::path& path) override {
    step(path);
    disk_.remove_file(path);
  }
  void remove_directory(const std::filesystem::path& path) override {
    step(path);
    disk_.remove_directory(path);
  }
  std::uint64_t free_bytes(const std::filesystem::path& path) override {
    step(path);
    return disk_.free_bytes(path);
  }

 private:
  class FaultyFile final : public StorageFile {
   public:
    FaultyFile(FaultyStorage& owner, std::filesystem::path path, std::unique_ptr<StorageFile> file)
        : owner_(owner), path_(std::move(path)), file_(std::move(file)) {}
    void preallocate(std::uint64_t bytes) override {
      owner_.step(path_);
      file_->preallocate(bytes);
    }
    void write_at(std::uint64_t offset, std::span<const std::byte> bytes) override {
      owner_.step(path_, [&] { file_->write_at(offset, bytes.first(bytes.size() / 2)); });
      file_->write_at(offset, bytes);
    }
    void sync() override {
      owner_.step(path_);
      file_->sync();
    }
    void close() override {
      owner_.step(path_);
      file_->close();
    }

   private:
    FaultyStorage& owner_;
    std::filesystem::path path_;
    std::unique_ptr<StorageFile> file_;
  };

  void step(const std::filesystem::path& path, const std::function<void()>& half = {}) {
    if (dead()) throw Crash{};
    if (count_++ != at_ || fault_ == Fault::none) return;
    triggered_ = true;
    if ((fault_ == Fault::torn_write || fault_ == Fault::torn_crash) && half) half();
    if (fault_ == Fault::kill) ::kill(::getpid(), SIGKILL);
    if (fault_ == Fault::crash || fault_ == Fault::torn_crash) {
      dead_ = true;
      if (machine_ != nullptr) *machine_ = true;
      throw Crash{};
    }
    fail(ExitCode::io, "{}: {}", path.string(), text_of(fault_));
  }

  DiskStorage disk_;
  Fault fault_;
  int at_;
  std::atomic<bool>* machine_;
  int count_ = 0;
  bool triggered_ = false;
  bool dead_ = false;
};

// One recorded operation. Files are known by the number of their creation.
struct DiskOp {
  enum class Kind { create, mkdir, resize, write, sync, rename, exchange, sync_folder, remove };
  Kind kind;
  std::filesystem::path path{}, to{};
  int file = -1;
  std::uint64_t offset = 0;
  std::vector<std::byte> bytes{};
};

class RecordingStorage final : public Storage {
 public:
  using Kind = DiskOp::Kind;
  const std::vector<DiskOp>& ops() const { return ops_; }
  bool keep_file_syncs = true;  // false: the model of a careless program
  bool keep_folder_syncs = true;
  bool can_exchange = true;

  std::unique_ptr<StorageFile> create_file(const std::filesystem::path& path) override {
    const std::lock_guard lock(mutex_);
    auto file = disk_.create_file(path);
    ops_.push_back({.kind = Kind::create, .path = path, .file = num_files_});
    return std::make_unique<RecordingFile>(*this, num_files_++, std::move(file));
  }
  bool make_directory(const std::filesystem::path& path) override {
    const std::lock_guard lock(mutex_);
    if (!disk_.make_directory(path)) return false;
    ops_.push_back({.kind = Kind::mkdir, .path = path});
    return true;
  }
  void rename(const std::filesystem::path& from, const std::filesystem::path& to) override {
    const std::lock_guard lock(mutex_);
    disk_.rename(from, to);
    ops_.push_back({.kind = Kind::rename, .path = from, .to = to});
  }
  bool exchange(const std::filesystem::path& a, const std::filesystem::path& b) override {
    const std::lock_guard lock(mutex_);
    if (!can_exchange || !disk_.exchange(a, b)) return false;
    ops_.push_back({.kind = Kind::exchange, .path = a, .to = b});
    return true;
  }
  void sync_directory(const std::filesystem::path& path) override {
    const std::lock_guard lock(mutex_);
    disk_.sync_directory(path);
    if (keep_folder_syncs) ops_.push_back({.kind = Kind::sync_folder, .path = path});
  }
  void remove_file(const std::filesystem::path& path) override {
    const std::lock_guard lock(mutex_);
    disk_.remove_file(path);
    ops_.push_back({.kind = Kind::remove, .path = path});
  }
  void remove_directory(const std::filesystem::path& path) override {
    const std::lock_guard lock(mutex_);
    disk_.remove_directory(path);
    ops_.push_back({.kind = Kind::remove, .path = path});
  }
  std::uint64_t free_bytes(const std::filesystem::path& path) override {
    return disk_.free_bytes(path);
  }

 private:
  class RecordingFile final : public StorageFile {
   public:
    RecordingFile(RecordingStorage& owner, int number, std::unique_ptr<StorageFile> file)
        : owner_(owner), number_(number), file_(std::move(file)) {}
    void preallocate(std::uint64_t bytes) override {
      const std::lock_guard lock(owner_.mutex_);
      file_->preallocate(bytes);
      owner_.ops_.push_back({.kind = Kind::resize, .file = number_, .offset = bytes});
    }
    void write_at(std::uint64_t offset, std::span<const std::byte> bytes) override {
      const std::lock_guard lock(owner_.mutex_);
      file_->write_at(offset, bytes);
      owner_.ops_.push_back({.kind = Kind::write,
                             .file = number_,
                             .offset = offset,
                             .bytes = {bytes.begin(), bytes.end()}});
    }
    void sync() override {
      const std::lock_guard lock(owner_.mutex_);
      file_->sync();
      if (owner_.keep_file_syncs) owner_.ops_.push_back({.kind = Kind::sync, .file = number_});
    }
    void close() override { file_->close(); }

   private:
    RecordingStorage& owner_;
    int number_;
    std::unique_ptr<StorageFile> file_;
  };

  std::mutex mutex_;  // the ranks' operations in one order
  DiskStorage disk_;
  std::vector<DiskOp> ops_;
  int num_files_ = 0;
};

// A disk that has received operations. What was synced is there after a power cut; of the rest, any
// part: each unsynced change of a folder may or may not have arrived, in any order, and each
// unsynced write wholly, not at all, or torn at a sector.
class PowerCut {
 public:
  explicit PowerCut(std::filesystem::path root) : root_(std::move(root)) { nodes_.push_back({}); }

  void apply(const DiskOp& op);
  // Builds one possible state in `target`. mode 0: nothing unsynced arrived; 1: all of it; else
  // chosen by chance from the number.
  void build(const std::filesystem::path& target, std::uint64_t mode) const;

 private:
  using Change = std::vector<std::pair<std::string, int>>;  // name -> node, -1: gone
  struct Node {
    std::map<std::string, int> now{}, durable{};  // of a folder
    std::vector<Change> changes{};                // unsynced
    std::vector<std::byte> content{};             // of a file, durable
    std::vector<DiskOp> writes{};                 // unsynced
    bool is_file = false;
  };
  struct Dice {
    std::uint64_t mode;
    std::uint64_t count = 0;
    bool arrived() {
      if (mode < 2) return mode == 1;
      return (Random(mode, "power").bits(count++) & 1) != 0;
    }
    std::size_t part(std::size_t bytes) {  // of a write that arrived
      if (mode < 2) return bytes;
      const std::uint64_t r = Random(mode, "torn").bits(count++);
      return r % 3 != 0 ? bytes : std::min<std::size_t>(bytes, r / 3 % (bytes / 512 + 1) * 512);
    }
  };

  int parent(const std::filesystem::path& path) const {
    int node = 0;
    for (const auto& part : path.parent_path().lexically_relative(root_)) {
      if (part == ".") continue;
      node = nodes_[static_cast<std::size_t>(node)].now.at(part.string());
    }
    return node;
  }
  int find(const std::filesystem::path& path) const {
    if (path == root_) return 0;
    return nodes_[static_cast<std::size_t>(parent(path))].now.at(path.filename().string());
  }
  void change(const std::filesystem::path& in, Change c) {
    Node& folder = nodes_[static_cast<std::size_t>(parent(in))];
    set(folder.now, c);
    folder.changes.push_back(std::move(c));
  }
  static void set(std::map<std::string, int>& entries, const Change& c) {
    for (const auto& [name, node] : c) {
      if (node < 0)
        entries.erase(name);
      else
        entries[name] = node;
    }
  }
  static void write(std::vector<std::byte>& content, const DiskOp& op, std::size_t part) {
    if (op.kind == DiskOp::Kind::resize) {
      content.resize(std::max<std::size_t>(content.size(), op.offset));
      return;
    }
    content.resize(std::max<std::size_t>(content.size(), op.offset + part));
    std::copy_n(op.bytes.begin(), part, content.begin() + static_cast<std::ptrdiff_t>(op.offset));
  }
  void build_node(int index, const std::filesystem::path& target, Dice& dice) const;

  std::filesystem::path root_;
  std::vector<Node> nodes_;     // 0: the root folder
  std::map<int, int> of_file_;  // creation number -> node
};

inline void PowerCut::apply(const DiskOp& op) {
  using Kind = DiskOp::Kind;
  const auto name = [](const std::filesystem::path& p) { return p.filename().string(); };
  const auto file_node = [&]() -> Node& {
    return nodes_[static_cast<std::size_t>(of_file_.at(op.file))];
  };
  switch (op.kind) {
    case Kind::create:
    case Kind::mkdir: {
      const int node = static_cast<int>(nodes_.size());
      nodes_.push_back({});
      nodes_.back().is_file = op.kind == Kind::create;
      if (op.kind == Kind::create) of_file_[op.file] = node;
      change(op.path, {{name(op.path), node}});
      return;
    }
    case Kind::resize:
    case Kind::write: file_node().writes.push_back(op); return;
    case Kind::sync:
      for (const DiskOp& w : file_node().writes) write(file_node().content, w, w.bytes.size());
      file_node().writes.clear();
      return;
    case Kind::rename: change(op.path, {{name(op.to), find(op.path)}, {name(op.path), -1}}); return;
    case Kind::exchange:
      change(op.path, {{name(op.to), find(op.path)}, {name(op.path), find(op.to)}});
      return;
    case Kind::remove: change(op.path, {{name(op.path), -1}}); return;
    case Kind::sync_folder: {
      Node& folder = nodes_[static_cast<std::size_t>(find(op.path))];
      folder.durable = folder.now;
      folder.changes.clear();
      return;
    }
  }
}

inline void PowerCut::build(const std::filesystem::path& target, std::uint64_t mode) const {
  Dice dice{.mode = mode};
  build_node(0, target, dice);
}

inline void PowerCut::build_node(int index, const std::filesystem::path& target, Dice& dice) const {
  const Node& node = nodes_[static_cast<std::size_t>(index)];
  if (node.is_file) {
    std::vector<std::byte> content = node.content;
    for (const DiskOp& w : node.writes) {
      if (dice.arrived()) write(content, w, dice.part(w.bytes.size()));
    }
    File::create(target).write_at(0, content);
    return;
  }
  std::filesystem::create_directories(target);
  std::map<std::string, int> entries = node.durable;
  for (const Change& c : node.changes) {
    if (dice.arrived()) set(entries, c);
  }
  for (const auto& [name, child] : entries) build_node(child, target / name, dice);
}

}  // namespace grist::test
