#include "grist/comm/local.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include "grist/core/check.h"
#include "grist/core/context.h"

namespace grist::comm {

namespace {

// While an exception unwinds, an operation is waited for so long: its buffers are going.
constexpr std::chrono::seconds kGraceWhileUnwinding{1};

// Set once, when a rank has failed: every wait of the job ends.
struct Job {
  std::mutex mutex;
  std::condition_variable changed;
  bool failed = false;
};

class TornDown : public Error {
 public:
  TornDown() : Error(ExitCode::peer_lost, "another rank has failed") {}
};

// What the ranks of one communicator share. The second rank of a pair to come copies both ways.
struct Group {
  struct Posted {
    bool here = false;
    std::map<int, std::span<const std::byte>> sends;
    std::map<int, std::span<std::byte>> receives;
    std::size_t open = 0;  // messages that have not moved yet
  };
  struct Round {
    std::vector<Posted> ranks;
    int present = 0;
  };
  struct Split {
    std::vector<int> colors;
    int present = 0;
    std::map<int, std::shared_ptr<Group>> groups;
  };

  Group(std::shared_ptr<Job> j, int n) : job(std::move(j)), size(n) {}
  std::shared_ptr<Job> job;  // its mutex guards everything here
  int size;
  std::map<std::uint64_t, std::shared_ptr<Round>> rounds;
  std::map<std::uint64_t, std::shared_ptr<Split>> splits;
};

void move_message(Group::Posted& from, int from_rank, Group::Posted& to, int to_rank) {
  const auto send = from.sends.find(to_rank);
  const auto receive = to.receives.find(from_rank);
  const std::size_t sent = send == from.sends.end() ? 0 : send->second.size();
  const std::size_t wanted = receive == to.receives.end() ? 0 : receive->second.size();
  GRIST_CHECK(sent == wanted, "rank {} sends {} bytes to rank {}, which expects {}", from_rank,
              sent, to_rank, wanted);
  if (sent == 0) return;
  std::memmove(receive->second.data(), send->second.data(), sent);
  --from.open;
  --to.open;
}

class LocalOperation final : public Pending::Operation {
 public:
  LocalOperation(std::shared_ptr<Group> group, std::shared_ptr<Group::Round> round, int rank)
      : group_(std::move(group)), round_(std::move(round)), rank_(rank) {}
  void wait() override {
    Job& job = *group_->job;
    std::unique_lock lock(job.mutex);
    const Group::Posted& mine = round_->ranks[static_cast<std::size_t>(rank_)];
    const auto over = [&] { return mine.open == 0 || job.failed; };
    if (std::uncaught_exceptions() == 0) {
      job.changed.wait(lock, over);
    } else if (!job.changed.wait_for(lock, kGraceWhileUnwinding, over)) {
      job.failed = true;  // the others may wait for this rank, as it does for them
      job.changed.notify_all();
    }
    if (mine.open != 0) throw TornDown();
  }

 private:
  std::shared_ptr<Group> group_;
  std::shared_ptr<Group::Round> round_;
  int rank_;
};

class LocalCommunicator final : public Communicator {
 public:
  LocalCommunicator(std::shared_ptr<Group> group, int rank, std::shared_ptr<Activity> activity)
      : Communicator(rank, group->size, std::move(activity)), group_(std::move(group)) {}

  Pending exchange(std::span<const Send> sends, std::span<const Receive> receives) override {
    activity().operations += 1;
    Job& job = *group_->job;
    const std::lock_guard lock(job.mutex);
    if (job.failed) throw TornDown();
    std::shared_ptr<Group::Round>& round = group_->rounds[sequence_];
    if (!round) {
      round = std::make_shared<Group::Round>();
      round->ranks.resize(static_cast<std::size_t>(size()));
    }
    const std::shared_ptr<Group::Round> kept = round;
    post(*kept, sends, receives);
    if (++kept->present == size()) group_->rounds.erase(sequence_);
    ++sequence_;
    job.changed.notify_all();
    return Pending(std::make_unique<LocalOperation>(group_, kept, rank()), &activity());
  }

  std::unique_ptr<Communicator> split(int color, std::shared_ptr<Activity> own) override {
    Job& job = *group_->job;
    std::unique_lock lock(job.mutex);
    std::shared_ptr<Group::Split>& slot = group_->splits[sequence_];
    if (!slot) {
      slot = std::make_shared<Group::Split>();
      slot->colors.resize(static_cast<std::size_t>(size()));
    }
    const std::shared_ptr<Group::Split> split = slot;
    split->colors[static_cast<std::size_t>(rank())] = color;
    if (++split->present == size()) {
      for (const int c : split->colors) {
        const auto members = std::count(split->colors.begin(), split->colors.end(), c);
        auto& group = split->groups[c];
        if (!group) group = std::make_shared<Group>(group_->job, static_cast<int>(members));
      }
      group_->splits.erase(sequence_);
      job.changed.notify_all();
    }
    ++sequence_;
    job.changed.wait(lock, [&] { return split->present == size() || job.failed; });
    if (split->present != size()) throw TornDown();
    const auto place = std::count(split->colors.begin(), split->colors.begin() + rank(), color);
    return std::make_unique<LocalCommunicator>(split->groups.at(color), static_cast<int>(place),
                                               own ? std::move(own) : shared_activity());
  }

 private:
  // Under the job's mutex.
  void post(Group::Round& round, std::span<const Send> sends,
            std::span<const Receive> receives) const {
    Group::Posted& mine = round.ranks[static_cast<std::size_t>(rank())];
    mine.here = true;
    for (const Send& s : sends)
      if (!s.bytes.empty()) mine.sends[s.peer] = s.bytes;
    for (const Receive& r : receives)
      if (!r.bytes.empty()) mine.receives[r.peer] = r.bytes;
    mine.open = mine.sends.size() + mine.receives.size();
    for (int peer = 0; peer < size(); ++peer) {
      Group::Posted& theirs = round.ranks[static_cast<std::size_t>(peer)];
      if (!theirs.here) continue;
      move_message(mine, rank(), theirs, peer);
      if (peer != rank()) move_message(theirs, peer, mine, rank());
    }
  }

  std::shared_ptr<Group> group_;
  std::uint64_t sequence_ = 0;
};

}  // namespace

void run_local(int size, const std::function<void(Communicator&)>& body) {
  GRIST_CHECK(size >= 1, "{} ranks", size);
  const auto job = std::make_shared<Job>();
  const auto world = std::make_shared<Group>(job, size);
  std::exception_ptr first, torn_down;
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      flush_denormals();
      try {
        LocalCommunicator c(world, rank, std::make_shared<Activity>());
        body(c);
      } catch (const TornDown&) {
        const std::lock_guard lock(job->mutex);
        torn_down = std::current_exception();
      } catch (...) {
        const std::lock_guard lock(job->mutex);
        if (!first) first = std::current_exception();
        job->failed = true;
        job->changed.notify_all();
      }
    });
  }
  for (std::thread& t : threads) t.join();
  if (first) std::rethrow_exception(first);
  if (torn_down) std::rethrow_exception(torn_down);
}

}  // namespace grist::comm
