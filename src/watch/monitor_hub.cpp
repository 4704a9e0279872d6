// The monitor of rank 0: knows every rank, and decides.
#include <fmt/core.h>
#include <poll.h>

#include <algorithm>
#include <cstring>

#include "hang.h"
#include "monitor_thread.h"

namespace grist::watch {

namespace {

constexpr double kReadySeconds = 0.7;  // for the other ranks' stacks after a verdict
// A thousand ranks send two thousand frames a second; they are read so long after the first of
// them.
constexpr int kGatherMilliseconds = 5;
constexpr double kHoldSeconds = 0.5;  // a rank's "a peer was lost", until we know which

const char* const kAgain =
    "; the last committed checkpoint is whole: start the same command again (exit code 76)";

}  // namespace

Hub::Hub(const Monitor::Member& member, std::vector<Process> members, Monitor::Options options,
         std::vector<Link> links)
    : Thread(member, std::move(members), std::move(options)), peers_(links.size()) {
  for (std::size_t r = 0; r < links.size(); ++r) peers_[r].link = std::move(links[r]);
}

void Hub::run() {
  for (Peer& peer : peers_) peer.heard = peer.changed = monitor_clock();
  while (!all_left()) {
    if (const auto verdict = turn()) {
      carry_out(*verdict);
      return;
    }
  }
  send_all(FrameKind::all_clear);
}

// One turn of the loop: requests, heartbeats, a wait, what came, what did not come.
std::optional<Hub::Verdict> Hub::turn() {
  double now = monitor_clock();
  if (auto fatal = take_fatal()) hold(0, *fatal, now);
  if (take_leaving()) {
    beat(peers_[0], sample(), now);
    peers_[0].left = true;
  }
  if (now >= next_pulse_) {
    beat(peers_[0], sample(), now);
    send_all(FrameKind::pulse);
    next_pulse_ = now + interval();
  }
  if (held_ && now >= held_until_) return held_;
  ::poll(nullptr, 0, kGatherMilliseconds);
  const double until = held_ ? std::min(held_until_, next_pulse_) : next_pulse_;
  const double paused = poll(open_links(), until - now);
  for (Peer& peer : peers_) {
    peer.heard += paused;
    peer.changed += paused;
  }
  now = monitor_clock();
  if (auto verdict = read_peers(now)) return verdict;
  if (!looks_for_hangs() || now < next_look_) return std::nullopt;
  next_look_ = now + interval();
  return hang(now);
}

std::vector<Link*> Hub::open_links() {
  std::vector<Link*> links;
  for (Peer& peer : peers_)
    if (peer.link.fd() >= 0) links.push_back(&peer.link);
  return links;
}

void Hub::beat(Peer& peer, const Heartbeat& heartbeat, double now) {
  const Heartbeat& last = peer.last;
  if (heartbeat.beats != last.beats || heartbeat.operations != last.operations ||
      heartbeat.waits != last.waits)
    peer.changed = now;
  peer.heard = now;
  peer.last = heartbeat;
}

std::optional<Hub::Verdict> Hub::read_peers(double now) {
  std::vector<int> dead;
  for (std::size_t r = 1; r < peers_.size(); ++r) {
    Peer& peer = peers_[r];
    if (peer.link.fd() < 0 || !peer.link.readable()) continue;
    std::vector<Frame> frames;
    const bool open = peer.link.receive(frames);
    for (const Frame& frame : frames) handle(static_cast<int>(r), frame, now);
    if (open) continue;
    peer.link.close();
    peer.lost = !peer.left;
    if (peer.lost) dead.push_back(static_cast<int>(r));
  }
  return dead.empty() ? std::nullopt : death(dead);
}

void Hub::handle(int rank, const Frame& frame, double now) {
  Peer& peer = peers_[static_cast<std::size_t>(rank)];
  if (frame.kind == FrameKind::heartbeat && frame.payload.size() == sizeof(Heartbeat)) {
    Heartbeat h;
    std::memcpy(&h, frame.payload.data(), sizeof h);
    h.phase[sizeof h.phase - 1] = '\0';
    beat(peer, h, now);
  } else if (frame.kind == FrameKind::good_bye) {
    peer.left = true;
  } else if (frame.kind == FrameKind::ready) {
    peer.ready = true;
  } else if (frame.kind == FrameKind::fatal) {
    const std::size_t space = frame.payload.find(' ');
    hold(rank,
         {static_cast<ExitCode>(std::atoi(frame.payload.c_str())), frame.payload.substr(space + 1)},
         now);
  }
}

// The first error is the verdict, but a cause goes before a rank's word that it lost somebody.
void Hub::hold(int rank, const Fatal& fatal, double now) {
  const bool consequence = fatal.code == ExitCode::peer_lost;
  if (held_ && (consequence || held_->code != ExitCode::peer_lost)) return;
  held_ = Verdict{fatal.code, fatal_line(rank, fatal.message)};
  held_until_ = consequence ? now + kHoldSeconds : now;
}

std::optional<Hub::Verdict> Hub::death(const std::vector<int>& dead) const {
  if (held_ && held_->code != ExitCode::peer_lost) return held_;  // it said why before
  const Heartbeat& last = peers_[static_cast<std::size_t>(dead[0])].last;
  std::string text =
      fmt::format("{} died, last seen at step {} in {}", name(dead[0]), last.step, last.phase);
  if (dead.size() > 1) text += "; so did " + rank_list(std::span(dead).subspan(1));
  return Verdict{ExitCode::peer_lost, text + kAgain};
}

std::optional<Hub::Verdict> Hub::hang(double now) const {
  std::vector<RankSeen> seen;
  for (std::size_t r = 0; r < peers_.size(); ++r) {
    const Peer& p = peers_[r];
    seen.push_back({.rank = static_cast<int>(r),
                    .name = name(static_cast<int>(r)),
                    .step = p.last.step,
                    .phase = p.last.phase,
                    .operations = p.last.operations,
                    .waits = p.last.waits,
                    .waiting = p.last.waiting > 0,
                    .left = p.left,
                    .silent = now - p.changed,
                    .unheard = now - p.heard});
  }
  const auto text = find_hang(seen, limit());
  if (!text) return std::nullopt;
  return Verdict{ExitCode::peer_lost, *text + kAgain, true};
}

void Hub::send_all(FrameKind kind, const std::string& payload) {
  for (Peer& peer : peers_)
    if (peer.link.fd() >= 0 && (kind != FrameKind::pulse || !peer.link.blocked()))
      peer.link.send(kind, payload);
}

void Hub::carry_out(const Verdict& verdict) {
  arm(verdict.code);
  options_.say(verdict.text);
  send_all(FrameKind::verdict, verdict_text(verdict.code, verdict.stacks));
  if (verdict.stacks && options_.stacks) write_own_stacks();
  const double deadline = monitor_clock() + kReadySeconds;
  const auto waits_for = [&](const Peer& p) {  // not for a stopped rank
    const bool stopped = looks_for_hangs() && deadline - p.heard > limit();
    return p.link.fd() >= 0 && !p.ready && !stopped;
  };
  while (monitor_clock() < deadline && std::any_of(peers_.begin(), peers_.end(), waits_for)) {
    poll(open_links(), 0.05);
    read_peers(monitor_clock());
  }
  end(verdict.code);
}

bool Hub::all_left() const {
  return std::all_of(peers_.begin(), peers_.end(), [](const Peer& p) { return p.left; });
}

}  // namespace grist::watch
