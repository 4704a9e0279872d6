// Capture of streams: nothing runs before a launch, arguments are those of the capture, and what
// cannot be recorded is an error.
#include <array>
#include <cstring>
#include <thread>

#include "emulated.h"

namespace grist::emu {
namespace {

using Ints = std::vector<int>;
constexpr cudaStreamCaptureMode kMode = cudaStreamCaptureModeThreadLocal;

__global__ void add_kernel(int* x, int value) {
  x[threadIdx.x] += value;
}
__global__ void double_kernel(int* x) {
  x[threadIdx.x] *= 2;
}

__global__ void nothing_kernel() {}

class Graph {
 public:
  explicit Graph(const Stream& s) {
    cudaGraph_t graph = nullptr;
    EXPECT_EQ(cudaStreamEndCapture(s, &graph), cudaSuccess) << take_report();
    if (graph == nullptr) return;
    cudaGraphGetNodes(graph, nullptr, &nodes_);
    EXPECT_EQ(cudaGraphInstantiate(&exec_, graph, 0), cudaSuccess);
    EXPECT_EQ(cudaGraphDestroy(graph), cudaSuccess);
  }
  ~Graph() { cudaGraphExecDestroy(exec_); }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  void launch(const Stream& s) const { EXPECT_EQ(cudaGraphLaunch(exec_, s), cudaSuccess); }
  std::size_t nodes() const { return nodes_; }

 private:
  cudaGraphExec_t exec_ = nullptr;
  std::size_t nodes_ = 0;
};

void use(Streams streams, std::uint64_t seed = 0) {
  Options o;
  o.streams = streams;
  o.seed = seed;
  set_options(o);
}
template <class F> void for_both_kinds_of_streams(F&& body) {
  for (const Streams streams : {Streams::immediate, Streams::deferred}) {
    use(streams);
    body();
    set_options({});
  }
}

void begin(const Stream& s) {
  ASSERT_EQ(cudaStreamBeginCapture(s, kMode), cudaSuccess) << take_report();
}

// The capture was made invalid: its end says so, and the stream can be used again.
void expect_invalid(const Stream& s) {
  EXPECT_EQ(s.try_to_run(nothing_kernel), cudaErrorStreamCaptureInvalidated);
  cudaGraph_t graph = nullptr;
  EXPECT_EQ(cudaStreamEndCapture(s, &graph), cudaErrorStreamCaptureInvalidated);
  EXPECT_EQ(graph, nullptr);
  EXPECT_EQ(cudaStreamSynchronize(s), cudaSuccess);
  take_report();
}

TEST(Graphs, NothingRunsBeforeALaunch) {
  for_both_kinds_of_streams([] {
    const Stream s;
    const DeviceArray<int> x(Ints(32, 1));
    begin(s);
    s.run(add_kernel, x.get(), 2);
    s.run(double_kernel, x.get());
    const Graph graph(s);
    EXPECT_EQ(graph.nodes(), 2U);
    EXPECT_EQ(cudaStreamSynchronize(s), cudaSuccess);
    EXPECT_EQ(x.host(), Ints(32, 1));
    for (const int want : {6, 16, 36}) {
      graph.launch(s);
      EXPECT_EQ(cudaStreamSynchronize(s), cudaSuccess);
      EXPECT_EQ(x.host(), Ints(32, want));
    }
  });
}

// A host value is an argument of the capture; what is read from pinned memory is read at a launch.
TEST(Graphs, ArgumentsAreThoseOfTheCapture) {
  for_both_kinds_of_streams([] {
    const Stream s;
    const DeviceArray<int> x(Ints(32, 0));
    void* pinned = nullptr;
    ASSERT_EQ(cudaMallocHost(&pinned, 32 * sizeof(int)), cudaSuccess);
    Ints host(32, 1);
    int value = 5;
    begin(s);
    cudaMemcpyAsync(x.get(), pinned, 32 * sizeof(int), cudaMemcpyHostToDevice, s);
    s.run(add_kernel, x.get(), value);
    const Graph graph(s);
    value = 7;
    for (const int now : {1, 2}) {
      host.assign(32, now);
      std::memcpy(pinned, host.data(), 32 * sizeof(int));
      graph.launch(s);
      EXPECT_EQ(cudaStreamSynchronize(s), cudaSuccess);
      EXPECT_EQ(x.host(), Ints(32, now + 5)) << "a value that changed after the capture was seen";
    }
    cudaFreeHost(pinned);
  });
}

// Two streams in one capture; `waits`: the second waits for the first's work.
bool fork_and_join(std::uint64_t seed, bool waits) {
  use(Streams::deferred, seed);
  bool right = false;
  {
    const Stream first, second;
    const DeviceArray<int> x(Ints(32, 1));
    std::array<cudaEvent_t, 3> events = {};
    for (cudaEvent_t& e : events) cudaEventCreate(&e);
    begin(first);
    cudaEventRecord(events[0], first);
    cudaStreamWaitEvent(second, events[0], 0);
    first.run(add_kernel, x.get(), 2);
    cudaEventRecord(events[1], first);
    if (waits) cudaStreamWaitEvent(second, events[1], 0);
    second.run(double_kernel, x.get());
    cudaEventRecord(events[2], second);
    cudaStreamWaitEvent(first, events[2], 0);
    const Graph graph(first);
    graph.launch(first);
    EXPECT_EQ(cudaStreamSynchronize(first), cudaSuccess);
    right = x.host() == Ints(32, 6);
    for (const cudaEvent_t e : events) cudaEventDestroy(e);
  }
  set_options({});
  return right;
}

TEST(Graphs, EventsOrderStreamsOfACapture) {
  int without = 0;
  for (std::uint64_t seed = 0; seed < 8; ++seed) {
    EXPECT_TRUE(fork_and_join(seed, true)) << seed;
    without += fork_and_join(seed, false) ? 1 : 0;
  }
  EXPECT_LT(without, 8) << "a missing wait was never found";
}

TEST(Graphs, AStreamThatNobodyAwaitsIsAnError) {
  const Stream first, second;
  const DeviceArray<int> x(Ints(32, 1));
  cudaEvent_t e = nullptr;
  cudaEventCreate(&e);
  begin(first);
  cudaEventRecord(e, first);
  cudaStreamWaitEvent(second, e, 0);
  second.run(add_kernel, x.get(), 2);
  cudaGraph_t graph = nullptr;
  EXPECT_EQ(cudaStreamEndCapture(second, &graph), cudaErrorStreamCaptureUnmatched);
  EXPECT_EQ(cudaStreamEndCapture(first, &graph), cudaErrorStreamCaptureInvalidated);
  begin(first);
  cudaEventRecord(e, first);
  cudaStreamWaitEvent(second, e, 0);
  second.run(add_kernel, x.get(), 2);
  EXPECT_EQ(cudaStreamEndCapture(first, &graph), cudaErrorStreamCaptureUnjoined);
  EXPECT_EQ(cudaEventSynchronize(e), cudaErrorCapturedEvent);
  EXPECT_EQ(x.host(), Ints(32, 1));
  cudaEventDestroy(e);
  take_report();
}

TEST(Graphs, WhatWaitsOrAllocatesMakesTheCaptureInvalid) {
  const Stream s;
  const DeviceArray<int> x(Ints(32, 1));
  Ints host(32);
  void* p = nullptr;
  const auto refuses = [&](cudaError_t want, auto&& call) {
    begin(s);
    EXPECT_EQ(call(), want);
    expect_invalid(s);
  };
  const cudaError_t no = cudaErrorStreamCaptureUnsupported;
  refuses(no, [&] { return cudaStreamSynchronize(s); });
  refuses(no, [&] { return cudaStreamQuery(s); });
  refuses(no, [&] { return cudaDeviceSynchronize(); });
  refuses(no, [&] { return cudaMalloc(&p, 4); });
  refuses(no, [&] { return cudaMallocHost(&p, 4); });
  refuses(no, [&] { return cudaFree(x.get()); });
  refuses(no, [&] { return cudaMemcpy(host.data(), x.get(), 4, cudaMemcpyDeviceToHost); });
  refuses(no, [&] { return cudaMemcpyAsync(host.data(), x.get(), 4, cudaMemcpyDeviceToHost, s); });
  refuses(no, [&] { return cudaMemcpyAsync(x.get(), host.data(), 4, cudaMemcpyHostToDevice, s); });
}

TEST(Graphs, AnEventFromOutsideIsAnError) {
  const Stream s, other;
  cudaEvent_t e = nullptr;
  cudaEventCreate(&e);
  cudaEventRecord(e, other);
  begin(s);
  EXPECT_EQ(cudaStreamWaitEvent(s, e, 0), cudaErrorStreamCaptureIsolation);
  expect_invalid(s);
  cudaEventDestroy(e);
}

// With the mode of a thread, other threads may do as they like.
TEST(Graphs, OtherThreadsAreFree) {
  const Stream s;
  const DeviceArray<int> x(Ints(32, 1));
  begin(s);
  s.run(add_kernel, x.get(), 1);
  std::thread([] {
    void* p = nullptr;
    EXPECT_EQ(cudaMalloc(&p, 4), cudaSuccess);
    EXPECT_EQ(cudaFree(p), cudaSuccess);
  }).join();
  std::thread([&] {
    cudaGraph_t graph = nullptr;
    EXPECT_EQ(cudaStreamEndCapture(s, &graph), cudaErrorStreamCaptureWrongThread);
  }).join();
  const Graph graph(s);
  graph.launch(s);
  EXPECT_EQ(x.host(), Ints(32, 2));
  take_report();
}

}  // namespace
}  // namespace grist::emu
