// An exchange is one group of sends and receives on a stream of the communicator's own. It starts
// behind the compute stream's work so far; wait() puts the compute stream behind the exchange and
// returns at once. A peer that dies shows as an asynchronous error of NCCL at some later call, or
// to the monitor.
#include "nccl_communicator.h"

#include <exception>
#include <utility>

#include "grist/comm/collectives.h"
#include "grist/core/check.h"
#include "grist/core/device.h"
#include "self_message.h"

namespace grist::comm {

namespace {

// What a communicator and its operations share.
class Channel {
 public:
  Channel(Communicator& host, const ComputeStream& compute, const NcclLibrary& nccl)
      : nccl_(nccl), compute_(compute), device_(runtime(compute.device)) {
    NcclId id = {};
    agree(host, [&] {
      if (host.rank() == 0) check(nccl_.get_unique_id(&id), "ncclGetUniqueId");
    });
    broadcast(host, std::as_writable_bytes(std::span(&id, 1)), 0);
    agree(host, [&] {
      check(nccl_.comm_init_rank(&comm_, host.size(), id, host.rank()), "ncclCommInitRank");
      stream_ = device_.make_stream();
    });
  }
  // Destroying ends what is on its way; aborting does not wait for peers that may be gone.
  ~Channel() {
    if (stream_ != nullptr && healthy_ && std::uncaught_exceptions() == 0) {
      nccl_.comm_destroy(comm_);
    } else if (comm_ != nullptr) {
      nccl_.comm_abort(comm_);
    }
    if (stream_ != nullptr) device_.destroy_stream(stream_);
  }
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;
  DeviceRuntime& device() const { return device_; }
  const ComputeStream& compute() const { return compute_; }
  CUstream_st* stream() const { return stream_; }
  const NcclLibrary& nccl() const { return nccl_; }

  void move(int own, std::span<const Send> sends, std::span<const Receive> receives) {
    check(nccl_.group_start(), "ncclGroupStart");
    for (const Receive& r : receives)
      if (r.peer != own && !r.bytes.empty())
        check(nccl_.receive(r.bytes.data(), r.bytes.size(), NcclLibrary::kBytes, r.peer, comm_,
                            stream_),
              "ncclRecv");
    for (const Send& s : sends)
      if (s.peer != own && !s.bytes.empty())
        check(
            nccl_.send(s.bytes.data(), s.bytes.size(), NcclLibrary::kBytes, s.peer, comm_, stream_),
            "ncclSend");
    check(nccl_.group_end(), "ncclGroupEnd");
  }

  void throw_if_broken() {
    int error = NcclLibrary::kSuccess;
    check(nccl_.comm_get_async_error(comm_, &error), "ncclCommGetAsyncError");
    check(error, "messages between GPUs");
  }

 private:
  void check(int result, const char* what) {
    if (result == NcclLibrary::kSuccess || result == NcclLibrary::kInProgress) return;
    healthy_ = false;
    const char* details = nccl_.get_last_error(comm_);
    fail(ExitCode::peer_lost, "{}: {}{}{}; NCCL_DEBUG=WARN tells more", what,
         nccl_.get_error_string(result), details == nullptr || *details == '\0' ? "" : ": ",
         details == nullptr ? "" : details);
  }

  const NcclLibrary& nccl_;
  ComputeStream compute_;
  DeviceRuntime& device_;
  CUstream_st* stream_ = nullptr;
  ncclComm* comm_ = nullptr;
  bool healthy_ = true;
};

class NcclOperation final : public Pending::Operation {
 public:
  explicit NcclOperation(std::shared_ptr<Channel> channel)
      : channel_(std::move(channel)), done_(channel_->device().mark(channel_->stream())) {}
  ~NcclOperation() override { channel_->device().destroy_mark(done_); }
  NcclOperation(const NcclOperation&) = delete;
  NcclOperation& operator=(const NcclOperation&) = delete;
  void wait() override {
    channel_->device().order(done_, channel_->compute().stream);
    channel_->throw_if_broken();
  }

 private:
  std::shared_ptr<Channel> channel_;
  CUevent_st* done_;
};

class NcclCommunicator final : public Communicator {
 public:
  NcclCommunicator(std::unique_ptr<Communicator> host, const ComputeStream& compute,
                   const NcclLibrary& nccl)
      : Communicator(host->rank(), host->size(), host->shared_activity()),
        host_(std::move(host)),
        channel_(std::make_shared<Channel>(*host_, compute, nccl)) {}

  Pending exchange(std::span<const Send> sends, std::span<const Receive> receives) override {
    activity().operations += 1;
    channel_->device().order(channel_->compute().stream, channel_->stream());
    copy_to_self(*this, {channel_->compute().device, channel_->stream()}, sends, receives);
    channel_->move(rank(), sends, receives);
    return Pending(std::make_unique<NcclOperation>(channel_), &activity());
  }

  std::unique_ptr<Communicator> split(int color, std::shared_ptr<Activity> own) override {
    return nccl_communicator(host_->split(color, std::move(own)), channel_->compute(),
                             channel_->nccl());
  }

 private:
  std::unique_ptr<Communicator> host_;
  std::shared_ptr<Channel> channel_;
};

}  // namespace

std::unique_ptr<Communicator> nccl_communicator(std::unique_ptr<Communicator> host,
                                                const ComputeStream& compute,
                                                const NcclLibrary& nccl) {
  return std::make_unique<NcclCommunicator>(std::move(host), compute, nccl);
}

}  // namespace grist::comm
