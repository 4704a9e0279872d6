// Communicators over MPI, without MPI's own: every message goes through MPI_COMM_WORLD, and the tag
// says which communicator and exchange it belongs to. The receiver chose the communicator's number,
// which it told the others in split(), so no two communicators of a rank share one and ranks need
// not agree on numbers; splitting is one exchange, and cannot block the others' progress as
// MPI_Comm_split can. MPI keeps messages with the same source and tag in order.
#include "mpi_world.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <numeric>
#include <utility>
#include <vector>

#include "grist/core/check.h"

namespace grist::comm {

namespace {

constexpr int kSequenceBits = 12;  // a message that nobody expects is not taken for a later one
constexpr std::size_t kPiece = std::size_t{64}
                               << 20;  // a copy of so many bytes holds MPI for ~10 ms

// What the communicators of this process share.
struct Job {
  std::shared_ptr<MpiEngine> engine;
  int numbers = 0;           // communicators that tags have room for
  std::atomic<int> next{0};  // number of the next communicator

  int take_number() {
    const int number = next++;
    GRIST_CHECK(number < numbers, "more than {} communicators", numbers);
    return number;
  }
};

struct Member {
  int world_rank = 0;
  int number = 0;  // of this communicator at that rank
};

class MpiOperation final : public Pending::Operation {
 public:
  explicit MpiOperation(std::shared_ptr<MpiEngine> engine) : engine_(std::move(engine)) {}
  MpiEngine::Operation& state() { return state_; }
  void wait() override { engine_->wait(state_); }

 private:
  std::shared_ptr<MpiEngine> engine_;
  MpiEngine::Operation state_;
};

class MpiCommunicator final : public Communicator {
 public:
  MpiCommunicator(std::shared_ptr<Job> job, std::vector<Member> members, int rank,
                  std::shared_ptr<Activity> activity)
      : Communicator(rank, static_cast<int>(members.size()), std::move(activity)),
        job_(std::move(job)),
        members_(std::move(members)) {}

  Pending exchange(std::span<const Send> sends, std::span<const Receive> receives) override {
    activity().operations += 1;
    messages_.clear();
    std::span<std::byte> to_self;
    std::span<const std::byte> from_self;
    for (const Receive& r : receives) {
      if (r.peer == rank()) {
        to_self = r.bytes;
      } else {
        add_receive(r);
      }
    }
    for (const Send& s : sends) {
      if (s.peer == rank()) {
        from_self = s.bytes;
      } else {
        add_send(s);
      }
    }
    GRIST_CHECK(from_self.size() == to_self.size(),
                "rank {} sends {} bytes to itself, and expects {}", rank(), from_self.size(),
                to_self.size());
    sequence_ = (sequence_ + 1) % (1 << kSequenceBits);
    auto operation = std::make_unique<MpiOperation>(job_->engine);
    if (!messages_.empty()) job_->engine->start(operation->state(), messages_);
    // After the start: the others' messages need not wait for the copy.
    if (!to_self.empty() && to_self.data() != from_self.data())
      std::memmove(to_self.data(), from_self.data(), to_self.size());
    return Pending(std::move(operation), &activity());
  }

  std::unique_ptr<Communicator> split(int color, std::shared_ptr<Activity> own) override {
    struct Answer {
      int color;
      int number;
    };
    const int number = job_->take_number();
    const Answer mine{color, number};
    std::vector<Answer> answers(members_.size());
    std::vector<Send> sends;
    std::vector<Receive> receives;
    for (int p = 0; p < size(); ++p) {
      sends.push_back({p, std::as_bytes(std::span(&mine, 1))});
      receives.push_back(
          {p, std::as_writable_bytes(std::span(&answers[static_cast<std::size_t>(p)], 1))});
    }
    exchange(sends, receives).wait();
    std::vector<Member> group;
    int place = 0;
    for (std::size_t p = 0; p < answers.size(); ++p) {
      if (answers[p].color != color) continue;
      if (static_cast<int>(p) == rank()) place = static_cast<int>(group.size());
      group.push_back({members_[p].world_rank, answers[p].number});
    }
    return std::make_unique<MpiCommunicator>(job_, std::move(group), place,
                                             own ? std::move(own) : shared_activity());
  }

 private:
  const Member& member(int peer) const {
    GRIST_CHECK(peer >= 0 && peer < size(), "rank {} of {}", peer, size());
    return members_[static_cast<std::size_t>(peer)];
  }
  int tag(int number) const { return (number << kSequenceBits) | sequence_; }

  void add_receive(const Receive& r) {
    const int own = tag(member(rank()).number);
    for (std::size_t at = 0; at < r.bytes.size(); at += kPiece)
      messages_.push_back({.peer = member(r.peer).world_rank,
                           .tag = own,
                           .bytes = std::min(kPiece, r.bytes.size() - at),
                           .receive = r.bytes.data() + at});
  }
  void add_send(const Send& s) {
    const Member& to = member(s.peer);
    for (std::size_t at = 0; at < s.bytes.size(); at += kPiece)
      messages_.push_back({.peer = to.world_rank,
                           .tag = tag(to.number),
                           .bytes = std::min(kPiece, s.bytes.size() - at),
                           .send = s.bytes.data() + at});
  }

  std::shared_ptr<Job> job_;
  std::vector<Member> members_;
  int sequence_ = 0;
  std::vector<MpiEngine::Message> messages_;  // of the exchange being started
};

}  // namespace

std::unique_ptr<Communicator> mpi_world(std::shared_ptr<MpiEngine> engine) {
  auto job = std::make_shared<Job>();
  job->engine = std::move(engine);
  int rank = 0;
  int size = 0;
  int* largest_tag = nullptr;
  int found = 0;
  {
    const std::lock_guard lock(mpi_mutex());
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    MPI_Comm_get_attr(MPI_COMM_WORLD, MPI_TAG_UB, static_cast<void*>(&largest_tag), &found);
  }
  // At least 32767 by the standard, which is room for 7; a run needs 4.
  job->numbers = (found != 0 ? *largest_tag : 32767) >> kSequenceBits;
  const int number = job->take_number();  // the first, so it is the same on all ranks
  std::vector<Member> members(static_cast<std::size_t>(size), Member{0, number});
  for (int p = 0; p < size; ++p) members[static_cast<std::size_t>(p)].world_rank = p;
  return std::make_unique<MpiCommunicator>(std::move(job), std::move(members), rank,
                                           std::make_shared<Activity>());
}

}  // namespace grist::comm
