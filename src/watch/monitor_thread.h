#pragma once
// The monitor's thread: what both ends of the star share (requests of other threads, own heartbeat,
// the end of the process). Hub is rank 0's end, Spoke that of any other rank.
#include <sys/types.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "grist/watch/monitor.h"
#include "monitor_link.h"

namespace grist::watch {

struct Fatal {
  ExitCode code = ExitCode::internal;
  std::string message;
};

class Monitor::Thread {
 public:
  Thread(const Member& member, std::vector<Process> members, Options options);
  virtual ~Thread() = default;
  static std::unique_ptr<Thread> connect(const Member& member, const Options& options);

  void start();
  void fail(const Fatal& fatal);
  void stop();

 protected:
  virtual void run() = 0;  // on the thread; returns when the job ends, well or not

  // Seconds between heartbeats, and how often rank 0 looks.
  double interval() const;
  double limit() const { return options_.watchdog_seconds; }
  bool looks_for_hangs() const { return limit() > 0; }
  std::string name(int rank) const;  // "rank 3 (host a, pid 17)"
  Heartbeat sample() const;

  // Waits for a frame, a request or `seconds`; then writes what was queued. Returns how long this
  // process did not run although it should have: a stopped job must not look like a hung one.
  double poll(const std::vector<Link*>& links, double seconds);
  std::optional<Fatal> take_fatal();  // what fail() asked for, once
  bool take_leaving();                // true once after stop()

  void write_own_stacks() const;
  static void arm(
      ExitCode code);  // from now on the process ends within two seconds, whatever sticks
  void end(ExitCode code) const;  // the last call of run() after a failure

  int rank_;
  std::vector<Process> members_;
  std::shared_ptr<comm::Activity> activity_;
  Options options_;

 private:
  void wake();

  Descriptor wake_;  // an eventfd
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<Fatal> fatal_;
  bool leaving_ = false;
  bool finished_ = false;
  double polled_ = 0;
  std::thread thread_;
};

std::string fatal_line(int rank, const std::string& message);  // "rank 3: message", one line
// Verdict frame: "CODE 0|1".
std::string verdict_text(ExitCode code, bool stacks);

class Spoke final : public Monitor::Thread {
 public:
  Spoke(const Monitor::Member& member, std::vector<Process> members, Monitor::Options options,
        Link root, std::string token);

 private:
  void run() override;
  bool handle_requests();  // false: the job has ended
  bool handle_frames(double now);
  void obey(const std::string& verdict);
  void root_lost(const std::string& how);
  bool speaks_for_lost_root(Descriptor& word) const;
  void wait_for_neighbours() const;

  Link root_;
  std::string token_;  // of the job
  double pulse_ = 0, next_beat_ = 0;
  std::optional<double> fatal_deadline_;
  Fatal fatal_;
};

class Hub final : public Monitor::Thread {
 public:
  Hub(const Monitor::Member& member, std::vector<Process> members, Monitor::Options options,
      std::vector<Link> links);

 private:
  struct Peer {
    Link link;  // none for rank 0 itself
    Heartbeat last;
    double heard = 0, changed = 0;
    bool left = false, lost = false, ready = false;
  };
  struct Verdict {
    ExitCode code = ExitCode::ok;
    std::string text;
    bool stacks = false;
  };
  void run() override;
  std::optional<Verdict> turn();
  std::vector<Link*> open_links();
  static void beat(Peer& peer, const Heartbeat& heartbeat, double now);
  std::optional<Verdict> read_peers(double now);
  void handle(int rank, const Frame& frame, double now);
  void hold(int rank, const Fatal& fatal, double now);
  std::optional<Verdict> death(const std::vector<int>& dead) const;
  std::optional<Verdict> hang(double now) const;
  void send_all(FrameKind kind, const std::string& payload = {});
  void carry_out(const Verdict& verdict);
  bool all_left() const;

  std::vector<Peer> peers_;
  double next_pulse_ = 0, next_look_ = 0;
  // A rank's fatal error; that it lost a peer is held back, for the closed connection says more.
  std::optional<Verdict> held_;
  double held_until_ = 0;
};

}  // namespace grist::watch
