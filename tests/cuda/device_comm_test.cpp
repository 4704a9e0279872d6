// Communicators of device memory: through pinned memory, and by NCCL (on the emulation a shim of
// it). Ranks are threads, each with its own streams.
#include "grist/comm/device.h"

#include <cuda_runtime.h>
#include <nccl.h>

#include <cstdlib>

#include "cuda/fixture.h"
#include "grist/comm/collectives.h"
#include "grist/comm/local.h"
#include "grist/core/error.h"
#include "grist/ops/optimizer.h"
#include "nccl_communicator.h"
#include "staged.h"

namespace grist {
namespace {

using namespace test;
using comm::Communicator;
using comm::NcclLibrary;
using comm::Pending;

static_assert(sizeof(comm::NcclId) == sizeof(ncclUniqueId));
static_assert(NcclLibrary::kSuccess == ncclSuccess && NcclLibrary::kInProgress == ncclInProgress);
static_assert(NcclLibrary::kBytes == ncclInt8);

template <class To, class From> To as(From* f) {
  return reinterpret_cast<To>(reinterpret_cast<void*>(f));  // as dlsym() gives them
}
// Linked here; the product loads it.
const NcclLibrary& linked_nccl() {
  static const NcclLibrary library = {
      .get_version = as<decltype(NcclLibrary::get_version)>(&ncclGetVersion),
      .get_unique_id = as<decltype(NcclLibrary::get_unique_id)>(&ncclGetUniqueId),
      .comm_init_rank = as<decltype(NcclLibrary::comm_init_rank)>(&ncclCommInitRank),
      .comm_destroy = as<decltype(NcclLibrary::comm_destroy)>(&ncclCommDestroy),
      .comm_abort = as<decltype(NcclLibrary::comm_abort)>(&ncclCommAbort),
      .comm_get_async_error =
          as<decltype(NcclLibrary::comm_get_async_error)>(&ncclCommGetAsyncError),
      .get_error_string = as<decltype(NcclLibrary::get_error_string)>(&ncclGetErrorString),
      .get_last_error = as<decltype(NcclLibrary::get_last_error)>(&ncclGetLastError),
      .group_start = as<decltype(NcclLibrary::group_start)>(&ncclGroupStart),
      .group_end = as<decltype(NcclLibrary::group_end)>(&ncclGroupEnd),
      .send = as<decltype(NcclLibrary::send)>(&ncclSend),
      .receive = as<decltype(NcclLibrary::receive)>(&ncclRecv)};
  return library;
}

enum class Kind { staged, nccl };

// Ranks have GPUs of their own with NCCL, where there are so many. The emulation is asked for four.
[[maybe_unused]] const int kAsked = setenv("GRIST_EMU_DEVICES", "4", 0);
std::unique_ptr<Communicator> make(Kind kind, Communicator& host, const Context& ctx) {
  if (kind == Kind::staged)
    return comm::staged_communicator(host.split(0), {ctx.device, ctx.stream});
  return comm::nccl_communicator(host.split(0), {ctx.device, ctx.stream}, linked_nccl());
}
void take_gpu(Kind kind, int rank) {
  const int wanted = kind == Kind::nccl ? rank : 0;
  runtime(Device::cuda)
      .destroy_stream(runtime(Device::cuda).make_stream());  // binds the thread to the process's
  ASSERT_EQ(cudaSetDevice(wanted), cudaSuccess);
}
const Schedule kStreams[] = {{"in the call", 0, 0, 1},
                             {"deferred 1", 0, 0, 1, true},
                             {"deferred 2", 3, 1, 2, true},
                             {"deferred 3", 1, 0, 3, true}};

// body(host communicator, device communicator, context) on so many ranks, for each kind and order
// of the streams' work.
template <class Body> void on_ranks(std::initializer_list<int> ranks, Body&& body) {
  for (const Schedule& s : kStreams) {
    for (const Kind kind : {Kind::staged, Kind::nccl}) {
      for (const int n : ranks) {
        SCOPED_TRACE(s.name + (kind == Kind::nccl ? ", nccl, " : ", staged, ") + std::to_string(n) +
                     " ranks");
        use(s);
        comm::run_local(n, [&](Communicator& host) {
          take_gpu(kind, host.rank());
          const CudaContext ctx;
          const auto device = make(kind, host, *ctx);
          ASSERT_EQ(device->rank(), host.rank());
          ASSERT_EQ(device->size(), n);
          body(host, *device, *ctx);
        });
      }
    }
  }
  use(schedules().front());
}

float element(int from, int to, int round, std::int64_t i) {
  return static_cast<float>((from * 16 + to) * 1000 + round * 100) + 0.25F * static_cast<float>(i);
}

// An uneven all-to-all of floats whose values are made on the compute stream.
struct Shuffle {
  template <class Count>
  Shuffle(const Context& context, Communicator& c, int round_, Count count)
      : ctx(context), round(round_) {
    const int r = c.rank();
    std::vector<float> values;
    for (int p = 0; p < c.size(); ++p) {
      for (std::int64_t i = 0; i < count(r, p); ++i) values.push_back(element(r, p, round, i) - 1);
      sends.push_back(static_cast<std::int64_t>(values.size()));
      receives.push_back(receives.back() + count(p, r));
    }
    sent = std::make_unique<OnDevice>(ctx, values, Shape{sends.back()});
    received = std::make_unique<OnDevice>(ctx, DType::f32, Shape{receives.back()});
    const OnDevice one(ctx, std::vector<float>(values.size(), 1.0F), {sends.back()});
    if (sends.back() > 0) ops::add(ctx, {.y = *sent, .x = one});
    pending = comm::all_to_all(c, *sent, sends, *received, receives);
  }
  // Spoils what was sent as soon as it may, then looks at what came.
  void check(const Communicator& c) {
    pending.wait();
    if (sends.back() > 0) ops::fill(ctx, {.x = *sent, .value = -1.0F});
    const std::vector<float> got = received->floats();
    for (int p = 0; p < c.size(); ++p) {
      const auto begin = receives[static_cast<std::size_t>(p)];
      for (auto i = begin; i < receives[static_cast<std::size_t>(p) + 1]; ++i)
        ASSERT_EQ(got[static_cast<std::size_t>(i)], element(p, c.rank(), round, i - begin))
            << "from rank " << p << " in round " << round;
    }
  }
  const Context& ctx;
  int round;
  std::vector<std::int64_t> sends = {0}, receives = {0};
  std::unique_ptr<OnDevice> sent, received;
  Pending pending;
};

TEST(DeviceCommunicator, SendsWhatTheComputeStreamMade) {
  on_ranks({1, 2, 3, 4}, [](Communicator&, Communicator& device, const Context& ctx) {
    for (int round = 0; round < 4; ++round) {
      Shuffle s(ctx, device, round,
                [&](int from, int to) { return (from * 7 + to * 3 + round) % 5; });
      s.check(device);
    }
    Shuffle none(ctx, device, 9, [](int, int) { return 0; });
    none.check(device);
    device.exchange({}, {}).wait();
  });
}

TEST(DeviceCommunicator, HasSeveralExchangesUnderWay) {
  on_ranks({2, 3}, [](Communicator& host, Communicator& device, const Context& ctx) {
    Shuffle first(ctx, device, 0, [](int from, int to) { return from + to + 1; });
    Shuffle second(ctx, device, 1, [](int from, int to) { return 300 + from + 2 * to; });
    comm::barrier(host);  // the host's messages do not disturb the device's
    Shuffle third(ctx, device, 2, [](int, int) { return 2; });
    second.check(device);
    first.check(device);
    third.check(device);
  });
}

TEST(DeviceCommunicator, AnExchangeThatNobodyWaitsForStillHappens) {
  on_ranks({2}, [](Communicator&, Communicator& device, const Context& ctx) {
    const int peer = 1 - device.rank();
    const OnDevice mine(ctx, std::vector<float>(8, static_cast<float>(device.rank())), {8});
    const OnDevice theirs(ctx, DType::f32, {8});
    const TensorView from = mine, to = theirs;
    const comm::Send send{peer, {static_cast<const std::byte*>(from.data), 32}};
    const comm::Receive receive{peer, {static_cast<std::byte*>(to.data), 32}};
    { const Pending dropped = device.exchange({&send, 1}, {&receive, 1}); }
    EXPECT_EQ(theirs.floats(), std::vector<float>(8, static_cast<float>(peer)));
  });
}

TEST(DeviceCommunicator, GathersPartsAndAllRows) {
  on_ranks({1, 2, 4}, [](Communicator&, Communicator& device, const Context& ctx) {
    const int n = device.size();
    std::vector<std::int64_t> offsets = {0};
    for (int p = 0; p < n; ++p) offsets.push_back(offsets.back() + 3 + p);
    const auto self = static_cast<std::size_t>(device.rank());
    const OnDevice buffer(
        ctx,
        std::vector<float>(static_cast<std::size_t>(offsets.back()), static_cast<float>(self + 1)),
        {offsets.back()});
    const OnDevice staging(ctx, DType::f32, {n, offsets[self + 1] - offsets[self]});

    comm::gather_parts(device, buffer, offsets, staging).wait();
    ops::tree_add(ctx,
                  {.sum = rows(buffer.view(), offsets[self], offsets[self + 1]), .parts = staging});
    comm::all_gather(device, buffer, offsets).wait();

    EXPECT_EQ(buffer.floats(), std::vector<float>(static_cast<std::size_t>(offsets.back()),
                                                  static_cast<float>(n * (n + 1) / 2)));
  });
}

TEST(DeviceCommunicator, SplitsIntoIndependentGroups) {
  on_ranks({4}, [](Communicator&, Communicator& device, const Context& ctx) {
    const auto row = device.split(device.rank() / 2);
    const auto column = device.split(device.rank() % 2);
    ASSERT_EQ(row->size(), 2);
    ASSERT_EQ(column->rank(), device.rank() / 2);
    Shuffle in_row(ctx, *row, 0, [](int, int) { return 5; });
    Shuffle in_column(ctx, *column, 1, [](int, int) { return 7; });
    Shuffle among_all(ctx, device, 2, [](int, int) { return 3; });
    among_all.check(device);
    in_row.check(*row);
    in_column.check(*column);
  });
}

TEST(DeviceCommunicator, IsStagedWhereRanksShareAGpu) {
  comm::set_nccl(&linked_nccl());
  comm::run_local(2, [](Communicator& host) {
    const CudaContext ctx;
    const auto chosen = comm::device_communicator(host, {Device::cuda, (*ctx).stream});
    EXPECT_NE(chosen.description.find("several ranks share the GPU at"), std::string::npos)
        << chosen.description;
    Shuffle s(*ctx, *chosen.communicator, 0, [](int, int) { return 6; });
    s.check(*chosen.communicator);
    EXPECT_THROW(
        comm::device_communicator(host, {Device::cuda, (*ctx).stream}, comm::DeviceTransport::nccl),
        Error);
    EXPECT_EQ(comm::device_communicator(host, {Device::cuda, (*ctx).stream},
                                        comm::DeviceTransport::staged)
                  .description,
              "staged: asked for");
  });
  comm::run_local(1, [](Communicator& host) {
    const CudaContext ctx;
    EXPECT_EQ(comm::device_communicator(host, {Device::cuda, (*ctx).stream}).description,
              "staged: one rank");
  });
  comm::set_nccl(nullptr);
}

TEST(DeviceCommunicator, AFailedRankEndsTheOthersWaits) {
  for (const Kind kind : {Kind::staged, Kind::nccl}) {
    const auto job = [kind](Communicator& host) {
      take_gpu(kind, host.rank());
      const CudaContext ctx;
      const auto device = make(kind, host, *ctx);
      if (host.rank() == 1) throw Error(ExitCode::internal, "this rank fails");
      Shuffle s(*ctx, *device, 0, [](int, int) { return 4; });
      s.check(*device);
    };
    EXPECT_THROW(comm::run_local(2, job), Error);
  }
}

}  // namespace
}  // namespace grist
