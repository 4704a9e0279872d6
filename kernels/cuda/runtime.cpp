// The device itself: memory, streams and copies for the rest of the program (core/device.h), and
// the choice of a GPU.
#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string>
#include <vector>

#include "cublas.h"
#include "grist/core/device.h"
#include "grist/core/error.h"
#include "kernels/backends.h"
#include "launch.h"

namespace grist::cuda {

namespace {

cudaStream_t native(CUstream_st* s) {
  return reinterpret_cast<cudaStream_t>(s);
}

// CUDA's current device belongs to a thread; every thread that comes here gets ours.
int device = 0;
void bind_thread() {
  thread_local bool bound = false;
  if (!bound) check(cudaSetDevice(device), "the GPU");
  bound = true;
}

class Runtime final : public DeviceRuntime {
 public:
  std::string description, kind_of_device;
  DeviceProperties properties() const override {
    return {.asynchronous = true, .bf16 = true, .graphs = true, .nccl = true};
  }
  std::string describe() const override { return description; }
  std::string kind() const override { return kind_of_device; }
  void set_dense_matmul(DenseMatmul choice) override { cuda::set_dense_matmul(choice); }
  std::string address() const override {
    char text[32] = "";
    check(cudaDeviceGetPCIBusId(text, sizeof text, device), "the GPU's address");
    return text;
  }

  std::byte* allocate(std::size_t bytes) override {
    bind_thread();
    void* p = nullptr;
    const cudaError_t status = cudaMalloc(&p, bytes);
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();  // the error is told; later calls must not meet it again
      return nullptr;
    }
    check(status, "device memory");
    return static_cast<std::byte*>(p);
  }
  void release(std::byte* p) noexcept override { cudaFree(p); }

  std::byte* allocate_pinned(std::size_t bytes) override {
    bind_thread();
    void* p = nullptr;
    const cudaError_t status = cudaMallocHost(&p, bytes);
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      return nullptr;
    }
    check(status, "pinned host memory");
    return static_cast<std::byte*>(p);
  }
  void release_pinned(std::byte* p) noexcept override { cudaFreeHost(p); }

  CUstream_st* make_stream() override {
    bind_thread();
    cudaStream_t s = nullptr;
    check(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking), "stream");
    return reinterpret_cast<CUstream_st*>(s);
  }
  void destroy_stream(CUstream_st* s) noexcept override { cudaStreamDestroy(native(s)); }
  void wait(CUstream_st* s) override { check(cudaStreamSynchronize(native(s)), "the GPU's work"); }

  void order(CUstream_st* earlier, CUstream_st* later) override {
    if (earlier == later) return;
    CUevent_st* m = mark(earlier);
    order(m, later);
    destroy_mark(m);  // at once: the wait keeps what it needs
  }
  CUevent_st* mark(CUstream_st* s) override {
    cudaEvent_t event = nullptr;
    check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "event");
    check(cudaEventRecord(event, native(s)), "event");
    return event;
  }
  void order(CUevent_st* earlier, CUstream_st* later) override {
    check(cudaStreamWaitEvent(native(later), earlier, 0), "event");
  }
  void wait(CUevent_st* m) override { check(cudaEventSynchronize(m), "the GPU's work"); }
  void destroy_mark(CUevent_st* m) noexcept override { cudaEventDestroy(m); }

  // Other threads' calls (a background save, other ranks in tests) are theirs to make.
  void begin_capture(CUstream_st* s) override {
    check(cudaStreamBeginCapture(native(s), cudaStreamCaptureModeThreadLocal), "capture");
  }
  CUgraphExec_st* end_capture(CUstream_st* s) override {
    cudaGraph_t graph = nullptr;
    check(cudaStreamEndCapture(native(s), &graph), "capture");
    std::size_t nodes = 0;
    cudaGraphExec_t exec = nullptr;
    cudaError_t status = cudaGraphGetNodes(graph, nullptr, &nodes);
    if (status == cudaSuccess && nodes > 0) status = cudaGraphInstantiate(&exec, graph, 0);
    cudaGraphDestroy(graph);
    check(status, "graph");
    return exec;
  }
  void abandon_capture(CUstream_st* s) noexcept override {
    cudaStreamCaptureStatus capturing = cudaStreamCaptureStatusNone;
    cudaStreamIsCapturing(native(s), &capturing);
    if (capturing != cudaStreamCaptureStatusNone) {
      cudaGraph_t graph = nullptr;
      cudaStreamEndCapture(native(s), &graph);
      if (graph != nullptr) cudaGraphDestroy(graph);
    }
    cudaGetLastError();  // the failure was told; later calls must not meet it again
  }
  void launch(CUgraphExec_st* graph, CUstream_st* s) override {
    check(cudaGraphLaunch(graph, native(s)), "launch of a graph");
  }
  void destroy_graph(CUgraphExec_st* graph) noexcept override { cudaGraphExecDestroy(graph); }

  void copy_in(CUstream_st* s, void* to, const void* from, std::size_t bytes) override {
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, native(s)), "copy to the GPU");
  }
  void copy_out(CUstream_st* s, void* to, const void* from, std::size_t bytes) override {
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, native(s)), "copy from the GPU");
  }
  void copy(CUstream_st* s, void* to, const void* from, std::size_t bytes) override {
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, native(s)), "copy on the GPU");
  }
  void clear(CUstream_st* s, void* to, std::size_t bytes) override {
    check(cudaMemsetAsync(to, 0, bytes, native(s)), "clearing on the GPU");
  }
};

DeviceInfo info;
Runtime runtime;

#define GRIST_ENTRY(name, Args) name,
const Backend kBackend = {GRIST_OPS(GRIST_ENTRY) weight_bytes};
#undef GRIST_ENTRY

constexpr int kLeastCapability = 80;  // bf16 mma.sync and cp.async

std::string version(int number) {
  return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10);
}

std::string why_no_device(cudaError_t status) {
  int driver = 0;  // stays 0 without one
  cudaDriverGetVersion(&driver);
  if (status == cudaErrorInsufficientDriver && driver == 0) return "there is no NVIDIA driver";
  if (status == cudaErrorInsufficientDriver)
    return "the NVIDIA driver is for CUDA " + version(driver) + ", " + version(CUDART_VERSION) +
           " is needed: a newer driver";
  if (status == cudaSuccess || status == cudaErrorNoDevice)
    return "no GPU is visible to this process";
  return cudaGetErrorString(status);
}

}  // namespace

const DeviceInfo& device_info() {
  return info;
}

int override_compute_capability(int capability) {
  const int before = info.compute_capability;
  info.compute_capability = capability;
  return before;
}

int device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  cudaGetLastError();
  return 0;
}

bool enable(int device_index, std::string& why) {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess || count == 0) {
    cudaGetLastError();
    why = why_no_device(status);
    return false;
  }
  device = device_index % count;
  cudaDeviceProp properties = {};
  if (cudaGetDeviceProperties(&properties, device) != cudaSuccess ||
      cudaSetDevice(device) != cudaSuccess) {
    why = cudaGetErrorString(cudaGetLastError());
    return false;
  }
  info.compute_capability = properties.major * 10 + properties.minor;
  info.multiprocessors = properties.multiProcessorCount;
  info.shared_memory_per_block = properties.sharedMemPerBlockOptin;
  runtime.kind_of_device = "compute capability " + std::to_string(properties.major) + "." +
                           std::to_string(properties.minor);
  if (info.compute_capability < kLeastCapability) {
    why =
        std::string(properties.name) + " has " + runtime.kind_of_device + ", 8.0 or more is needed";
    return false;
  }
  char text[32];
  std::snprintf(text, sizeof text, ", %.1f GiB",
                static_cast<double>(properties.totalGlobalMem) / (1 << 30));
  runtime.description = std::string(properties.name) + ", " + runtime.kind_of_device + text;
  register_runtime(Device::cuda, &runtime);
  ops::register_backend(Device::cuda, &kBackend);
  return true;
}

}  // namespace grist::cuda
