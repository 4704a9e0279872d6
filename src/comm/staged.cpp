#include "staged.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "grist/core/check.h"
#include "grist/core/device.h"
#include "grist/core/memory.h"
#include "self_message.h"

namespace grist::comm {

namespace {

constexpr std::size_t kAlignment = 256;

std::size_t aligned(std::size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

// What a communicator and its operations share: the copies' stream, and pinned memory that
// operations borrow. A block may be borrowed again while a copy from it is still on the stream: the
// next exchange waits for the stream before the host writes.
class Staging {
 public:
  explicit Staging(const ComputeStream& compute)
      : compute_(compute),
        device_(runtime(compute.device)),
        copies_{compute.device, device_.make_stream()} {}
  ~Staging() {
    device_.destroy_stream(copies_.stream);
    for (const Block& b : blocks_) device_.release_pinned(b.data);
  }
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;
  DeviceRuntime& device() const { return device_; }
  const ComputeStream& compute() const { return compute_; }
  const ComputeStream& copies() const { return copies_; }

  std::byte* borrow(std::size_t bytes) {
    if (bytes == 0) return nullptr;
    const auto free =
        std::find_if(blocks_.begin(), blocks_.end(), [](const Block& b) { return !b.borrowed; });
    Block& block = free == blocks_.end() ? blocks_.emplace_back() : *free;
    if (block.bytes < bytes) grow(block, bytes);
    block.borrowed = true;
    return block.data;
  }
  void give_back(const std::byte* data) {
    for (Block& b : blocks_)
      if (data != nullptr && b.data == data) b.borrowed = false;
  }

 private:
  struct Block {
    std::byte* data = nullptr;
    std::size_t bytes = 0;
    bool borrowed = false;
  };
  void grow(Block& block, std::size_t bytes) const {
    device_.wait(copies_.stream);
    if (block.data != nullptr) device_.release_pinned(block.data);
    block = {};
    block.data = device_.allocate_pinned(bytes);
    if (block.data == nullptr)
      fail(ExitCode::out_of_memory, "{} of pinned host memory for messages", human_bytes(bytes));
    block.bytes = bytes;
  }

  ComputeStream compute_;
  DeviceRuntime& device_;
  ComputeStream copies_;
  std::vector<Block> blocks_;
};

// The stretch of pinned memory of one operation.
class Borrowed {
 public:
  Borrowed(std::shared_ptr<Staging> staging, std::size_t bytes)
      : staging_(std::move(staging)), data_(staging_->borrow(bytes)) {}
  ~Borrowed() { staging_->give_back(data_); }
  Borrowed(const Borrowed&) = delete;
  Borrowed& operator=(const Borrowed&) = delete;
  Staging& staging() const { return *staging_; }
  std::span<std::byte> take(std::size_t bytes) {
    const std::span<std::byte> out(data_ + used_, bytes);
    used_ += aligned(bytes);
    return out;
  }

 private:
  std::shared_ptr<Staging> staging_;
  std::byte* data_;
  std::size_t used_ = 0;
};

class StagedOperation final : public Pending::Operation {
 public:
  StagedOperation(const std::shared_ptr<Staging>& staging, std::size_t bytes)
      : memory_(staging, bytes) {}
  Borrowed& memory() { return memory_; }
  void expect(std::span<std::byte> device, std::span<const std::byte> pinned) {
    arrivals_.push_back({device, pinned});
  }
  void set_messages(Pending messages) { messages_ = std::move(messages); }

  void wait() override {
    messages_.wait();
    DeviceRuntime& device = memory_.staging().device();
    CUstream_st* copies = memory_.staging().copies().stream;
    for (const Arrival& a : arrivals_)
      device.copy_in(copies, a.device.data(), a.pinned.data(), a.pinned.size());
    device.order(copies, memory_.staging().compute().stream);
  }

 private:
  struct Arrival {
    std::span<std::byte> device;
    std::span<const std::byte> pinned;
  };
  Borrowed memory_;
  std::vector<Arrival> arrivals_;
  Pending messages_;  // after the memory: ends before it
};

class StagedCommunicator final : public Communicator {
 public:
  StagedCommunicator(std::unique_ptr<Communicator> host, const ComputeStream& compute)
      : Communicator(host->rank(), host->size(), host->shared_activity()),
        host_(std::move(host)),
        staging_(std::make_shared<Staging>(compute)) {}

  Pending exchange(std::span<const Send> sends, std::span<const Receive> receives) override {
    auto operation = std::make_unique<StagedOperation>(staging_, bytes_of(sends, receives));
    DeviceRuntime& device = staging_->device();
    CUstream_st* copies = staging_->copies().stream;
    device.order(staging_->compute().stream, copies);
    copy_to_self(*this, staging_->copies(), sends, receives);
    std::vector<Send> host_sends;
    for (const Send& s : sends) {
      if (s.peer == rank() || s.bytes.empty()) continue;
      const std::span<std::byte> pinned = operation->memory().take(s.bytes.size());
      device.copy_out(copies, pinned.data(), s.bytes.data(), s.bytes.size());
      host_sends.push_back({s.peer, pinned});
    }
    std::vector<Receive> host_receives;
    for (const Receive& r : receives) {
      if (r.peer == rank() || r.bytes.empty()) continue;
      host_receives.push_back({r.peer, operation->memory().take(r.bytes.size())});
      operation->expect(r.bytes, host_receives.back().bytes);
    }
    device.wait(copies);
    operation->set_messages(host_->exchange(host_sends, host_receives));
    return Pending(std::move(operation));  // the messages count themselves in the activity
  }

  std::unique_ptr<Communicator> split(int color, std::shared_ptr<Activity> own) override {
    return staged_communicator(host_->split(color, std::move(own)), staging_->compute());
  }

 private:
  std::size_t bytes_of(std::span<const Send> sends, std::span<const Receive> receives) const {
    std::size_t bytes = 0;
    for (const Send& s : sends)
      if (s.peer != rank()) bytes += aligned(s.bytes.size());
    for (const Receive& r : receives)
      if (r.peer != rank()) bytes += aligned(r.bytes.size());
    return bytes;
  }

  std::unique_ptr<Communicator> host_;
  std::shared_ptr<Staging> staging_;
};

}  // namespace

std::unique_ptr<Communicator> staged_communicator(std::unique_ptr<Communicator> host,
                                                  const ComputeStream& compute) {
  return std::make_unique<StagedCommunicator>(std::move(host), compute);
}

}  // namespace grist::comm
