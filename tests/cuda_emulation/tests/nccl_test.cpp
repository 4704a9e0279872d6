// The shim of NCCL: messages arrive in the order of the streams, and what a program does wrong is
// found.
#include <nccl.h>

#include <latch>
#include <thread>

#include "emulated.h"

namespace grist::emu {
namespace {

// One rank: a GPU, a stream and device memory of its own.
class Rank {
 public:
  Rank(int ranks, int rank, const ncclUniqueId& id) {
    cudaSetDevice(0);
    cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    cudaMalloc(&memory, 256 * sizeof(int));
    EXPECT_EQ(ncclCommInitRank(&comm, ranks, id, rank), ncclSuccess);
  }
  ~Rank() {
    cudaFree(memory);
    cudaStreamDestroy(stream);
  }
  Rank(const Rank&) = delete;
  Rank& operator=(const Rank&) = delete;
  ncclComm_t comm = nullptr;
  cudaStream_t stream = nullptr;
  void* memory = nullptr;
};

// body(rank) on two threads.
template <class Body> void on_two_ranks(Body&& body) {
  set_options({});
  take_report();
  ncclUniqueId id;
  ASSERT_EQ(ncclGetUniqueId(&id), ncclSuccess);
  std::thread other([&] {
    Rank r(2, 1, id);
    body(r, 1);
  });
  {
    Rank r(2, 0, id);
    body(r, 0);
  }
  other.join();
}

ncclResult_t both_ways(Rank& r, int peer, std::size_t sent, std::size_t received) {
  ncclGroupStart();
  ncclSend(r.memory, sent, ncclInt8, peer, r.comm, r.stream);
  ncclRecv(static_cast<std::byte*>(r.memory) + 512, received, ncclInt8, peer, r.comm, r.stream);
  return ncclGroupEnd();
}

TEST(NcclShim, ExchangesMessagesInOrder) {
  on_two_ranks([](Rank& r, int rank) {
    for (int round = 0; round < 3; ++round) {
      const int mine = 10 * rank + round;
      int theirs = -1;
      cudaMemcpyAsync(r.memory, &mine, sizeof mine, cudaMemcpyHostToDevice, r.stream);
      EXPECT_EQ(both_ways(r, 1 - rank, sizeof mine, sizeof mine), ncclSuccess);
      cudaMemcpyAsync(&theirs, static_cast<std::byte*>(r.memory) + 512, sizeof theirs,
                      cudaMemcpyDeviceToHost, r.stream);
      cudaStreamSynchronize(r.stream);
      EXPECT_EQ(theirs, 10 * (1 - rank) + round);
    }
    EXPECT_EQ(ncclCommDestroy(r.comm), ncclSuccess);
  });
}

TEST(NcclShim, FindsSizesThatDiffer) {
  on_two_ranks([](Rank& r, int rank) {
    const ncclResult_t result = both_ways(r, 1 - rank, rank == 0 ? 8 : 4, 4);
    ncclResult_t later = ncclSuccess;
    ncclCommGetAsyncError(r.comm, &later);
    if (rank == 1) {
      EXPECT_TRUE(result != ncclSuccess && later != ncclSuccess);
    }
    ncclCommAbort(r.comm);
  });
  EXPECT_NE(take_report().find("rank 0 sent 8 bytes, 4 expected"), std::string::npos);
}

TEST(NcclShim, FindsMemoryThatIsNotTheDevices) {
  on_two_ranks([](Rank& r, int rank) {
    int on_host = 0;
    EXPECT_NE(ncclSend(&on_host, 4, ncclInt8, 1 - rank, r.comm, r.stream), ncclSuccess);
    EXPECT_NE(ncclSend(r.memory, 1025, ncclInt8, 1 - rank, r.comm, r.stream), ncclSuccess);
    EXPECT_NE(ncclSend(r.memory, 4, ncclInt8, 2, r.comm, r.stream), ncclSuccess);
    ncclCommAbort(r.comm);
  });
}

TEST(NcclShim, FindsMessagesThatNobodyReceives) {
  std::latch all_sent(1);
  on_two_ranks([&](Rank& r, int rank) {
    if (rank == 0) {
      EXPECT_EQ(ncclSend(r.memory, 4, ncclInt8, 1, r.comm, r.stream), ncclSuccess);
      EXPECT_EQ(both_ways(r, 1, 4, 4), ncclSuccess);
      all_sent.count_down();
      EXPECT_EQ(ncclCommDestroy(r.comm), ncclSuccess);
    } else {
      EXPECT_EQ(both_ways(r, 0, 4, 4), ncclSuccess);
      all_sent.wait();
      EXPECT_NE(ncclCommDestroy(r.comm), ncclSuccess);
    }
  });
}

}  // namespace
}  // namespace grist::emu
