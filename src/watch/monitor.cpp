#include "grist/watch/monitor.h"

#include <fmt/core.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <sstream>
#include <utility>

#include "grist/comm/collectives.h"
#include "grist/core/host.h"
#include "monitor_thread.h"
#include "stacks.h"

namespace grist::watch {

namespace {

constexpr unsigned kEndSeconds = 2;
constexpr double kAnswerSeconds = 3;  // fail() waits so long for the monitor to end the process

std::atomic<int> alarm_code;  // read by the signal handler

// Past the log: a stuck thread may hold its lock. One write, so that ranks do not mix.
void say_on_stderr(const std::string& line) {
  const std::string text = "error: " + line + "\n";
  if (::write(STDERR_FILENO, text.data(), text.size()) < 0) return;  // nobody to tell
}

Monitor::Options with_defaults(Monitor::Options options) {
  if (!options.end) options.end = [](ExitCode code) { ::_exit(static_cast<int>(code)); };
  if (!options.say) options.say = say_on_stderr;
  return options;
}

// One line: a message of several stays readable in a log.
std::string one_line(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

}  // namespace

std::string fatal_line(int rank, const std::string& message) {
  return one_line(fmt::format("rank {}: {}", rank, message));
}

std::string verdict_text(ExitCode code, bool stacks) {
  return fmt::format("{} {}", static_cast<int>(code), stacks ? 1 : 0);
}

Monitor::Thread::Thread(const Member& member, std::vector<Process> members, Options options)
    : rank_(member.rank),
      members_(std::move(members)),
      activity_(member.activity),
      options_(std::move(options)),
      wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

std::unique_ptr<Monitor::Thread> Monitor::Thread::connect(const Member& member,
                                                          const Options& options) {
  std::vector<Process> members;
  for (const std::string& text : member.all_gather(fmt::format("{} {}", host_name(), ::getpid()))) {
    std::istringstream words(text);
    words >> members.emplace_back().host >> members.back().pid;
  }
  std::string address, token;
  Descriptor listener;
  if (member.rank == 0) {
    listener = listen_anywhere(address);
    token = random_token();
  }
  const std::string root = member.all_gather(token + " " + address)[0];
  const std::size_t space = root.find(' ');
  token = root.substr(0, space);
  if (member.rank == 0) {
    std::vector<Link> links = accept_ranks(listener, member.size, token, members);
    return std::make_unique<Hub>(member, std::move(members), options, std::move(links));
  }
  const bool same_host = members[0].host == members[static_cast<std::size_t>(member.rank)].host;
  Link link = connect_to_root(root.substr(space + 1), same_host, members[0],
                              token + std::to_string(member.rank));
  return std::make_unique<Spoke>(member, std::move(members), options, std::move(link), token);
}

void Monitor::Thread::start() {
  if (options_.stacks) install_stack_handler();
  polled_ = monitor_clock();
  thread_ = std::thread([this] {
    run();
    const std::lock_guard lock(mutex_);
    finished_ = true;
    changed_.notify_all();
  });
}

void Monitor::Thread::wake() {
  const std::uint64_t one = 1;
  if (::write(wake_.get(), &one, sizeof one) < 0) return;  // already awake
}

void Monitor::Thread::fail(const Fatal& fatal) {
  std::unique_lock lock(mutex_);
  if (!fatal_) fatal_ = fatal;
  wake();
  const auto patience = std::chrono::duration<double>(kAnswerSeconds + kEndSeconds);
  if (changed_.wait_for(lock, patience, [this] { return finished_; })) return;
  lock.unlock();
  options_.say(fatal_line(rank_, fatal.message));
  options_.end(fatal.code);
}

void Monitor::Thread::stop() {
  {
    const std::lock_guard lock(mutex_);
    leaving_ = true;
    wake();
  }
  if (thread_.joinable()) thread_.join();
}

double Monitor::Thread::interval() const {
  return looks_for_hangs() ? std::min(0.5, limit() / 6) : 0.5;
}

std::string Monitor::Thread::name(int rank) const {
  const Process& m = members_[static_cast<std::size_t>(rank)];
  return fmt::format("rank {} (host {}, pid {})", rank, m.host, m.pid);
}

Heartbeat Monitor::Thread::sample() const {
  Heartbeat h;
  h.step = activity_->step;
  h.beats = activity_->beats;
  h.operations = activity_->operations;
  h.waits = activity_->waits;
  h.waiting = activity_->waiting;
  std::snprintf(h.phase, sizeof h.phase, "%s", activity_->phase.load());
  return h;
}

double Monitor::Thread::poll(const std::vector<Link*>& links, double seconds) {
  std::vector<pollfd> polls{{wake_.get(), POLLIN, 0}};
  for (const Link* link : links)
    polls.push_back(
        {link->fd(), static_cast<short>(link->blocked() ? POLLIN | POLLOUT : POLLIN), 0});
  seconds = std::clamp(seconds, 0.0, interval());
  ::poll(polls.data(), polls.size(), static_cast<int>(std::ceil(seconds * 1000)));
  std::uint64_t count = 0;
  if (::read(wake_.get(), &count, sizeof count) < 0 && errno != EAGAIN) count = 0;
  for (std::size_t i = 0; i < links.size(); ++i) {
    links[i]->set_readable(polls[i + 1].revents != 0);
    links[i]->flush();
  }
  const double now = monitor_clock();
  const double gap = now - polled_ - seconds;
  polled_ = now;
  return gap > interval() ? gap : 0;
}

std::optional<Fatal> Monitor::Thread::take_fatal() {
  const std::lock_guard lock(mutex_);
  return std::exchange(fatal_, std::nullopt);
}

bool Monitor::Thread::take_leaving() {
  const std::lock_guard lock(mutex_);
  return std::exchange(leaving_, false);
}

void Monitor::Thread::write_own_stacks() const {
  write_stacks(fmt::format("rank {}", rank_).c_str());
}

void Monitor::Thread::arm(ExitCode code) {
  alarm_code = static_cast<int>(code);
  std::signal(SIGALRM, [](int) { ::_exit(alarm_code); });
  ::alarm(kEndSeconds);
}

void Monitor::Thread::end(ExitCode code) const {
  options_.end(code);
  ::alarm(0);
}

Monitor::Monitor(comm::Communicator& c, Options options)
    : Monitor(Member{c.rank(), c.size(), c.shared_activity(),
                     [&c](const std::string& text) { return comm::all_gather(c, text); }},
              std::move(options)) {}

Monitor::Monitor(const Member& member, Options options)
    : options_(with_defaults(std::move(options))) {
  if (member.size == 1) return;
  thread_ = Thread::connect(member, options_);
  thread_->start();
}

Monitor::~Monitor() {
  stop();
}

void Monitor::fail(ExitCode code, const std::string& message) {
  if (thread_) {
    thread_->fail({code, message});
  } else {
    options_.say(one_line(message));
    options_.end(code);
  }
}

void Monitor::stop() {
  if (thread_) thread_->stop();
}

}  // namespace grist::watch
