// The monitor of a rank other than 0.
#include <fmt/core.h>

#include <algorithm>
#include <csignal>
#include <cstdio>

#include "monitor_thread.h"

namespace grist::watch {

namespace {

constexpr double kVerdictSeconds = 1;  // for rank 0's answer to a fatal error
constexpr double kRootSeconds = 1;     // for rank 0 to end first after its verdict
constexpr double kLastWords = 0.3;     // for the one that speaks for a lost rank 0
constexpr double kHeldSeconds = 1;     // for the others to see that one has spoken

void sleep_seconds(double seconds) {
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
}

}  // namespace

Spoke::Spoke(const Monitor::Member& member, std::vector<Process> members, Monitor::Options options,
             Link root, std::string token)
    : Thread(member, std::move(members), std::move(options)),
      root_(std::move(root)),
      token_(std::move(token)) {}

void Spoke::run() {
  pulse_ = monitor_clock();
  for (;;) {
    if (!handle_requests()) return;
    double now = monitor_clock();
    if (now >= next_beat_ && !root_.blocked()) {
      const Heartbeat h = sample();
      root_.send(FrameKind::heartbeat, {reinterpret_cast<const char*>(&h), sizeof h});
      next_beat_ = now + interval();
    }
    pulse_ += poll({&root_}, next_beat_ - now);
    now = monitor_clock();
    if (!handle_frames(now)) return;
    if (looks_for_hangs() && now - pulse_ >= limit()) {
      root_lost(fmt::format("is stopped or its machine is lost: no pulse for {:.1f} s", limit()));
      return;
    }
    if (fatal_deadline_ && now >= *fatal_deadline_) {  // rank 0 has no time for this
      arm(fatal_.code);
      options_.say(fatal_line(rank_, fatal_.message));
      end(fatal_.code);
      return;
    }
  }
}

bool Spoke::handle_requests() {
  if (auto fatal = take_fatal()) {
    fatal_ = *fatal;
    root_.send(FrameKind::fatal,
               fmt::format("{} {}", static_cast<int>(fatal->code), fatal->message));
    fatal_deadline_ = monitor_clock() + kVerdictSeconds;
  }
  if (take_leaving()) {
    const Heartbeat h = sample();  // the last count of operations
    root_.send(FrameKind::heartbeat, {reinterpret_cast<const char*>(&h), sizeof h});
    root_.send(FrameKind::good_bye);
  }
  return true;
}

bool Spoke::handle_frames(double now) {
  std::vector<Frame> frames;
  const bool open = root_.receive(frames);
  for (const Frame& frame : frames) {
    if (frame.kind == FrameKind::all_clear) return false;
    if (frame.kind == FrameKind::verdict) {
      obey(frame.payload);
      return false;
    }
    if (frame.kind == FrameKind::pulse) pulse_ = now;
  }
  if (!open) root_lost("died");
  return open;
}

// Rank 0 has said why. It ends first, so that a launcher that then kills the job loses no stacks.
void Spoke::obey(const std::string& verdict) {
  int code = static_cast<int>(ExitCode::internal), stacks = 0;
  std::sscanf(verdict.c_str(), "%d %d", &code, &stacks);
  arm(static_cast<ExitCode>(code));
  if (stacks != 0 && options_.stacks) write_own_stacks();
  root_.send(FrameKind::ready);
  const double deadline = monitor_clock() + kRootSeconds;
  std::vector<Frame> frames;
  while (monitor_clock() < deadline && root_.receive(frames)) poll({&root_}, 0.05);
  end(static_cast<ExitCode>(code));
}

void Spoke::root_lost(const std::string& how) {
  arm(ExitCode::peer_lost);
  Descriptor word;
  if (speaks_for_lost_root(word)) {
    options_.say(fmt::format(
        "{} {}; this rank is at step {} in {}; the last committed checkpoint is whole: start the "
        "same command again (exit code 76)",
        name(0), how, activity_->step.load(), activity_->phase.load()));
    wait_for_neighbours();
  } else {
    sleep_seconds(kLastWords);
  }
  end(ExitCode::peer_lost);
}

// One rank of rank 0's machine, and one of the next machine in case that one is gone: the first
// that takes the word. Whether a lower rank lives is no rule, for it may be dying or stopped too.
bool Spoke::speaks_for_lost_root(Descriptor& word) const {
  const std::string& own = members_[static_cast<std::size_t>(rank_)].host;
  const auto is_elsewhere = [&](const Process& m) { return m.host != members_[0].host; };
  const auto second = std::find_if(members_.begin(), members_.end(), is_elsewhere);
  if (own != members_[0].host && (second == members_.end() || own != second->host)) return false;
  return is_first_on_machine("grist-monitor-" + token_, word);
}

// Keeps the word until the other ranks of this machine have ended, so that none takes it after.
void Spoke::wait_for_neighbours() const {
  const std::string& own = members_[static_cast<std::size_t>(rank_)].host;
  const auto lives = [&](const Process& m) {
    const bool asked = &m != &members_[0] && &m != &members_[static_cast<std::size_t>(rank_)];
    return asked && m.host == own && ::kill(m.pid, 0) == 0;
  };
  const double deadline = monitor_clock() + kHeldSeconds;
  while (monitor_clock() < deadline && std::any_of(members_.begin(), members_.end(), lives))
    sleep_seconds(0.01);
}

}  // namespace grist::watch
