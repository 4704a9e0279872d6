#include "grist/comm/communicator.h"

#include <chrono>
#include <cstring>
#include <utility>

#include "grist/core/check.h"

namespace grist::comm {

Pending& Pending::operator=(Pending&& other) noexcept {
  if (this != &other) {
    Pending old(std::move(*this));
    operation_ = std::move(other.operation_);
    activity_ = other.activity_;
  }
  return *this;
}

Pending::~Pending() {
  if (!operation_) return;
  try {
    wait();
  } catch (const std::exception&) {
    // Somebody else reports the end of the job; a destructor cannot.
  }
}

void Pending::wait() {
  if (!operation_) return;
  const std::unique_ptr<Operation> operation = std::move(operation_);
  if (activity_ == nullptr) {
    operation->wait();
    return;
  }
  struct Waiting {  // for the watchdog: also when the wait throws
    Activity& activity;
    std::chrono::steady_clock::time_point begin = std::chrono::steady_clock::now();
    ~Waiting() {
      const auto time = std::chrono::steady_clock::now() - begin;
      activity.waited_ns += std::chrono::duration_cast<std::chrono::nanoseconds>(time).count();
      activity.waiting -= 1;
      activity.beat();
    }
  };
  activity_->waits += 1;
  activity_->waiting += 1;
  const Waiting waiting{*activity_};
  operation->wait();
}

namespace {

class Alone final : public Communicator {
 public:
  explicit Alone(std::shared_ptr<Activity> activity) : Communicator(0, 1, std::move(activity)) {}

  Pending exchange(std::span<const Send> sends, std::span<const Receive> receives) override {
    activity().operations += 1;
    GRIST_CHECK(sends.size() == receives.size() && sends.size() <= 1,
                "{} sends and {} receives with one rank", sends.size(), receives.size());
    if (sends.empty()) return {};
    GRIST_CHECK(sends[0].bytes.size() == receives[0].bytes.size(), "{} bytes sent, {} expected",
                sends[0].bytes.size(), receives[0].bytes.size());
    if (!sends[0].bytes.empty() && sends[0].bytes.data() != receives[0].bytes.data())
      std::memmove(receives[0].bytes.data(), sends[0].bytes.data(), sends[0].bytes.size());
    return {};
  }

  std::unique_ptr<Communicator> split(int /*color*/, std::shared_ptr<Activity> own) override {
    return std::make_unique<Alone>(own ? std::move(own) : shared_activity());
  }
};

}  // namespace

std::unique_ptr<Communicator> alone() {
  return std::make_unique<Alone>(std::make_shared<Activity>());
}

std::unique_ptr<Communicator> alone(const Communicator& c) {
  return std::make_unique<Alone>(c.shared_activity());
}

}  // namespace grist::comm
