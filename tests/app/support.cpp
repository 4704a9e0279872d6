#include "app/support.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <future>
#include <iterator>
#include <ostream>
#include <thread>

#include "grist/ckpt/checkpoint.h"
#include "grist/ckpt/safetensors.h"
#include "grist/core/random.h"

namespace grist::test {

namespace fs = std::filesystem;

std::ostream& operator<<(std::ostream& stream, const Outcome& o) {
  return stream << "exit " << o.code << ", signal " << o.signal << "\n--- stdout\n"
                << o.out << "--- stderr\n"
                << o.err << "---\n";
}

// ---- processes -------------------------------------------------------------------------------

namespace {
// Ranks that wait give up their core: there are more of them than cores.
Arguments mpirun(int ranks) {
  return {
      GRIST_MPIRUN, "-n",        std::to_string(ranks), "--oversubscribe", "--allow-run-as-root",
      "--mca",      "btl",       "self,vader",          "--mca",           "mpi_yield_when_idle",
      "1",          GRIST_BINARY};
}
}  // namespace

Child::Child(const fs::path& folder, const Arguments& arguments, int ranks) : ranks_(ranks) {
  static std::atomic<int> number{0};
  output_ = (folder / ("output-" + std::to_string(number++))).string();
  const std::string out = output_ + ".out", err = output_ + ".err";
  Arguments all = ranks > 0 ? mpirun(ranks) : Arguments{GRIST_BINARY};
  all.insert(all.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& a : all) argv.push_back(a.data());
  argv.push_back(nullptr);
  pid_ = ::fork();
  if (pid_ < 0) throw std::runtime_error("fork failed");
  if (pid_ > 0) return;
  // Only calls that are safe after fork.
  const int o = ::open(out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
  const int e = ::open(err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
  const int i = ::open("/dev/null", O_RDONLY);
  if (::dup2(i, 0) < 0 || ::dup2(o, 1) < 0 || ::dup2(e, 2) < 0 || ::chdir(folder.c_str()) != 0)
    ::_exit(126);
  ::execv(argv[0], argv.data());
  ::_exit(127);
}

Child::~Child() {
  if (pid_ < 0) return;
  kill_all();
  wait();
}

void Child::kill_all() const {
  const std::vector<int> ranks = rank_pids();
  send(SIGKILL);
  for (const int pid : ranks)
    if (pid > 0) ::kill(pid, SIGKILL);
}

// mpirun's children that know their rank.
std::vector<int> Child::rank_pids() const {
  std::vector<int> pids(static_cast<std::size_t>(std::max(ranks_, 0)), 0);
  const fs::path children = "/proc/" + std::to_string(pid_) + "/task";
  std::error_code gone;
  for (const auto& task : fs::directory_iterator(children, gone)) {
    std::ifstream list(task.path() / "children");
    for (int pid = 0; list >> pid;) {
      std::ifstream file("/proc/" + std::to_string(pid) + "/environ", std::ios::binary);
      const std::string environment{std::istreambuf_iterator<char>(file), {}};
      const std::string key = std::string(1, '\0') + "OMPI_COMM_WORLD_RANK=";
      const std::size_t at = environment.find(key);
      if (at == std::string::npos) continue;
      const auto rank = static_cast<std::size_t>(std::stoi(environment.substr(at + key.size())));
      if (rank < pids.size()) pids[rank] = pid;
    }
  }
  return pids;
}

void Child::send(int signal) const {
  if (pid_ > 0) ::kill(pid_, signal);
}

bool Child::running() {
  if (pid_ < 0) return false;
  int status = 0;
  struct rusage usage {};
  if (::wait4(pid_, &status, WNOHANG, &usage) == 0) return true;
  outcome_.peak_bytes = usage.ru_maxrss * 1024;
  collect(status);
  return false;
}

bool Child::outlives(std::chrono::microseconds time) {
  const auto end = std::chrono::steady_clock::now() + time;
  while (running()) {
    const auto left = end - std::chrono::steady_clock::now();
    if (left.count() <= 0) return true;
    std::this_thread::sleep_for(
        std::min<std::chrono::steady_clock::duration>(left, std::chrono::milliseconds(2)));
  }
  return false;
}

std::string Child::warnings_so_far() const {
  const std::string file = output_ + ".err";  // which the child makes
  return fs::exists(file) ? read_text(file) : "";
}

namespace {
std::atomic<bool> launcher_hung{false};
}

bool Child::a_launcher_hung() {
  return launcher_hung;
}

// Open MPI 4.1 with PMIx 4.2 can wait for itself in PMIx_server_finalize, about once in a thousand
// jobs. Its ranks are gone then (rank_pids() names no zombie); half a minute later it is ended.
Outcome Child::wait() {
  constexpr std::chrono::seconds kAlone(30);
  auto last_seen = std::chrono::steady_clock::now();
  while (outlives(std::chrono::milliseconds(ranks_ > 0 ? 200 : 10'000))) {
    const bool alive =
        ranks_ == 0 || std::ranges::any_of(rank_pids(), [](int pid) { return pid != 0; });
    if (alive) last_seen = std::chrono::steady_clock::now();
    if (std::chrono::steady_clock::now() - last_seen > kAlone) {
      launcher_hung = true;
      send(SIGKILL);
    }
  }
  return outcome_;
}

void Child::collect(int status) {
  pid_ = -1;
  if (WIFEXITED(status)) outcome_.code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) outcome_.signal = WTERMSIG(status);
  std::error_code ignored;
  for (const char* end : {".out", ".err"}) {
    if (fs::exists(output_ + end))
      (end[1] == 'o' ? outcome_.out : outcome_.err) = read_text(output_ + end);
    fs::remove(output_ + end, ignored);
  }
}

// ---- the world -------------------------------------------------------------------------------

const char* const kTinyConfig = R"(run: {dir: run}
seed: 7
device: cpu
threads: 1
model:
  num_hidden_layers: 2
  hidden_size: 32
  num_attention_heads: 2
  intermediate_size: 64
  moe: {expansion_rate: 2, granularity: 4, flops_multiplier: 0.5}
data:
  tokenizer: tokenizer/tokenizer.json
  train: [{path: train}]
  validation: [{path: validation}]
  seq_length: 32
train: {micro_batch_size: 2, global_batch_size: 4, train_iters: 24, eval_interval: 6}
optim: {lr: 3.0e-3, lr_warmup_iters: 4}
checkpoint: {save_interval: 4, keep: 3}
log: {interval: 1}
)";

std::string word_salad(int documents, std::uint64_t seed) {
  const Random random(seed, "word salad");
  std::uint64_t at = 0;
  const auto draw = [&](std::uint64_t n) { return random.below(at++, n); };
  std::vector<std::string> words;
  for (int w = 0; w < 120; ++w) {
    std::string word;
    for (std::uint64_t n = 2 + draw(6); n > 0; --n) word += static_cast<char>('a' + draw(22));
    words.push_back(w % 10 == 0 ? word + "\xC3\xA9" : word);
  }
  std::string out;
  for (int d = 0; d < documents; ++d) {
    std::string text;
    for (std::uint64_t n = 20 + draw(100); n > 0; --n)
      text += (text.empty() ? "" : " ") + words[draw(words.size())];
    Json line = Json::object();
    line.set("text", text + ".");
    out += line.dump() + "\n";
  }
  return out;
}

World::World() {
  write("train.jsonl", word_salad(60, 1));
  write("validation.jsonl", word_salad(8, 1));
  write("tiny.yaml", kTinyConfig);
  const auto must = [&](const Arguments& arguments) {
    const Outcome o = run(arguments);
    if (o.code != 0) throw std::runtime_error("cannot set up: " + o.err);
  };
  must({"tokenizer", "train", "--input", "train.jsonl", "--vocab-size", "320", "--output",
        "tokenizer"});
  for (const std::string name : {"train", "validation"}) {
    must({"prepare", "--input", name + ".jsonl", "--tokenizer", "tokenizer/tokenizer.json",
          "--output", name});
  }
}

Arguments World::train_arguments(const std::string& run, const Arguments& sets) const {
  Arguments a{"train", "tiny.yaml", "--set", "run.dir=" + run};
  for (const std::string& s : sets) {
    a.emplace_back("--set");
    a.push_back(s);
  }
  return a;
}

Outcome World::train(const std::string& run, const Arguments& sets, int ranks) const {
  return this->run(train_arguments(run, sets), ranks);
}

const World& world() {
  static const World instance;
  return instance;
}

SmallDisk::SmallDisk(fs::path at, const char* size) : at_(std::move(at)) {
  fs::create_directories(at_);
  const std::string options = std::string("size=") + size;
  mounted_ = ::mount("tmpfs", at_.c_str(), "tmpfs", 0, options.c_str()) == 0;
}

SmallDisk::~SmallDisk() {
  filler_ = {};
  if (mounted_) ::umount2(at_.c_str(), MNT_DETACH);
}

// What a save that is under way gives back, or a step that is removed, is filled again.
void SmallDisk::leave(std::uint64_t kib) {
  std::promise<void> filled;
  std::future<void> once = filled.get_future();
  filler_ =
      std::jthread([this, kib, filled = std::move(filled)](const std::stop_token& stop) mutable {
        File filler = File::create(at_ / "filler");
        std::uint64_t size = 0;
        for (bool first = true; !stop.stop_requested(); first = false) {
          const std::uint64_t free = free_bytes(at_);
          if (free > kib * 1024) {
            const std::string zeros(free - kib * 1024, '\0');
            try {
              filler.write_at(size, std::as_bytes(std::span(zeros)));
              size += zeros.size();
            } catch (const Error&) {  // the save was faster
            }
          }
          if (first) filled.set_value();
          std::this_thread::sleep_for(std::chrono::milliseconds(2));
        }
      });
  once.wait();
}

void SmallDisk::make_space() {
  filler_ = {};
  fs::remove(at_ / "filler");
}

int steps_reached(const std::string& run) {
  const fs::path metrics = world() / run / "metrics.jsonl";
  return fs::exists(metrics) ? static_cast<int>(std::ssize(lines(read_text(metrics)))) : 0;
}

bool reaches_step(Child& child, const std::string& run, int step) {
  for (int i = 0; i < 6000 && child.running(); ++i) {
    if (fs::exists(world() / run / "metrics.jsonl") && steps_reached(run) >= step) return true;
    child.outlives(std::chrono::milliseconds(10));
  }
  return false;
}

int rank_at_step(Child& child, const std::string& run, int rank, int step) {
  if (!reaches_step(child, run, step)) return 0;
  return child.rank_pids()[static_cast<std::size_t>(rank)];
}

// ---- what a run leaves -----------------------------------------------------------------------

std::vector<std::string> lines(const std::string& text) {
  std::vector<std::string> out;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    out.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return out;
}

std::vector<std::string> warnings_and_errors(const Outcome& o) {
  std::vector<std::string> out = lines(o.err);
  std::erase_if(out, [](const std::string& line) {
    const bool said = line.starts_with("warning: ") || line.starts_with("error: ");
    return !said || line.find(" is slow: ") != std::string::npos;
  });
  return out;
}

bool is_of_repetition(const std::string& line) {
  return line.find("a repetition teaches little") != std::string::npos;
}

int occurrences(const std::string& text, const std::string& word) {
  int n = 0;
  for (std::size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) ++n;
  return n;
}

std::vector<Json> metrics_records(const fs::path& run) {
  std::vector<Json> out;
  for (const std::string& line : lines(read_text(run / "metrics.jsonl")))
    out.push_back(Json::parse(line, "metrics.jsonl"));
  return out;
}

std::vector<std::string> metrics_lines(const fs::path& run) {
  std::vector<std::string> out;
  for (Json& record : metrics_records(run)) {
    std::erase_if(record.as_object(), [](const auto& field) {
      for (const char* time :
           {"seconds", "tokens_per_second", "flops_per_second", "peak_fraction"}) {
        if (field.first == time) return true;
      }
      return false;
    });
    out.push_back(record.dump());
  }
  return out;
}

std::vector<int> saved_steps(const fs::path& run) {
  std::vector<int> out;
  for (const StepInfo& s : list_steps(run / "checkpoints"))
    out.insert(out.begin(), static_cast<int>(s.step));
  return out;
}

fs::path step_folder(const fs::path& run, int step) {
  return run / "checkpoints" / step_name(step);
}

fs::path shard_of(const fs::path& run, int step) {
  return step_folder(run, step) / "shard-00000-of-00001.safetensors";
}

std::map<std::string, std::string> tensors(const fs::path& step) {
  std::map<std::string, std::string> out;
  for (const auto& entry : fs::directory_iterator(step)) {
    if (entry.path().extension() != ".safetensors") continue;
    const SafetensorsReader reader(entry.path());
    for (const SafetensorsEntry& e : reader.header().entries) {
      std::string bytes(e.end - e.begin, '\0');
      reader.read(e, std::as_writable_bytes(std::span(bytes)));
      out[e.name] = std::move(bytes);
    }
  }
  return out;
}

Json manifest_state(const fs::path& step) {
  return CheckpointReader(step).state();
}

void flip_byte(const fs::path& file, std::uint64_t at) {
  std::string text = read_text(file);
  text.at(at) = static_cast<char>(text[at] ^ 0x10);
  File f = File::create(file);
  f.write_at(0, std::as_bytes(std::span(text)));
}

std::vector<std::string> tree(const fs::path& folder) {
  std::vector<std::string> out;
  if (!fs::exists(folder)) return out;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    out.push_back(fs::relative(entry.path(), folder).string());
  std::sort(out.begin(), out.end());
  return out;
}

void expect_same_run(const fs::path& got, const fs::path& want) {
  EXPECT_EQ(metrics_lines(got), metrics_lines(want));
  ASSERT_FALSE(saved_steps(got).empty());
  ASSERT_FALSE(saved_steps(want).empty());
  ASSERT_EQ(saved_steps(got).back(), saved_steps(want).back());
  const auto a = tensors(step_folder(got, saved_steps(got).back()));
  const auto b = tensors(step_folder(want, saved_steps(want).back()));
  ASSERT_EQ(a.size(), b.size());
  EXPECT_GT(a.size(), 100U);
  for (const auto& [name, bytes] : b) {
    ASSERT_TRUE(a.contains(name)) << name;
    EXPECT_TRUE(a.at(name) == bytes) << name << " differs";
  }
}

void expect_refusal(const Outcome& o, int code, const std::vector<std::string>& words) {
  EXPECT_EQ(o.code, code) << o;
  const std::vector<std::string> said = lines(o.err);
  EXPECT_EQ(said.size(), 1U) << o;
  EXPECT_TRUE(o.err.starts_with("error: ")) << o;
  EXPECT_TRUE(o.err.ends_with("\n")) << o;
  for (const std::string& word : words) EXPECT_NE(o.err.find(word), std::string::npos) << word << o;
}

}  // namespace grist::test
