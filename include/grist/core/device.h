#pragma once
// What the rest of the program needs of a device: memory, copies, waiting, and what it can do. The
// CPU is one of them and always there; others register themselves under a name. Code above the
// kernels asks properties() and never which device it is; the helpers below work on all.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "grist/core/context.h"
#include "grist/core/device_id.h"
#include "grist/core/tensor.h"

struct CUevent_st;
struct CUgraphExec_st;
struct CUstream_st;

namespace grist {

struct DeviceProperties {
  // Operations take pointers to any memory of this process, and the host reads their results where
  // they lie. False: what they take is copied in first, what they give is copied out.
  bool reads_host_memory = false;
  // Operations return before they are done, and go on in the order of their stream. False: they are
  // done by the calling thread and the context's pool.
  bool asynchronous = false;
  bool bf16 = false;    // activations and compute weights may be bf16
  bool graphs = false;  // streams can be recorded (core/graph.h)
  bool nccl = false;    // NCCL moves its memory, on its streams
};

// Who computes the products of dense layers; the bits differ. automatic: cuBLAS where it can be
// opened, own kernels elsewhere.
enum class DenseMatmul : std::uint8_t { automatic, own, cublas };

class DeviceRuntime {
 public:
  virtual ~DeviceRuntime() = default;
  virtual DeviceProperties properties() const = 0;
  virtual std::string describe() const = 0;  // "NVIDIA H200, compute capability 9.0, 139.8 GiB"
  // What kernels are chosen by: on GPUs of one kind the same numbers. "compute capability 9.0"
  virtual std::string kind() const = 0;

  // Which one of this machine it is: "0000:3b:00.0".
  virtual std::string address() const = 0;

  // For the products from now on. Error{device_unavailable} with the reason where cuBLAS is
  // demanded and cannot be had; a device that does not say otherwise has its own kernels alone.
  virtual void set_dense_matmul(DenseMatmul choice);

  // Device memory, 256-byte aligned (64 on the CPU), not cleared unless it is the CPU's; null when
  // there is not enough. release() waits until the device has finished with it.
  virtual std::byte* allocate(std::size_t bytes) = 0;
  virtual void release(std::byte* p) noexcept = 0;
  // Host memory that the device reads and writes directly; copies from and to it are asynchronous.
  virtual std::byte* allocate_pinned(std::size_t bytes) = 0;
  virtual void release_pinned(std::byte* p) noexcept = 0;

  // Work on one stream is done in order. A stream belongs to its maker; null where the device is
  // not asynchronous.
  virtual CUstream_st* make_stream() = 0;
  virtual void destroy_stream(CUstream_st* s) noexcept = 0;
  virtual void wait(CUstream_st* s) = 0;  // until all work on it is done
  // Work put on `later` after this call starts only when the work on `earlier` so far is done.
  virtual void order(CUstream_st* earlier, CUstream_st* later) = 0;
  // The same in two steps: the mark stands for all work on the stream so far. Its maker destroys
  // it.
  virtual CUevent_st* mark(CUstream_st* s) = 0;
  virtual void order(CUevent_st* earlier, CUstream_st* later) = 0;
  virtual void wait(CUevent_st* m) = 0;
  virtual void destroy_mark(CUevent_st* m) noexcept = 0;

  // What this thread puts on the stream between begin and end is recorded, not done; it may neither
  // wait for the device nor take memory meanwhile. The graph is its maker's; null: there was no
  // work. abandon ends a capture that failed, or that nobody wants.
  virtual void begin_capture(CUstream_st* s) = 0;
  virtual CUgraphExec_st* end_capture(CUstream_st* s) = 0;
  virtual void abandon_capture(CUstream_st* s) noexcept = 0;
  virtual void launch(CUgraphExec_st* graph, CUstream_st* s) = 0;
  // When its launches are done.
  virtual void destroy_graph(CUgraphExec_st* graph) noexcept = 0;

  // In the order of the stream. `from` of copy_in may be reused at once unless it is pinned; what
  // copy_out writes is there after wait().
  virtual void copy_in(CUstream_st* s, void* to, const void* from, std::size_t bytes) = 0;
  virtual void copy_out(CUstream_st* s, void* to, const void* from, std::size_t bytes) = 0;
  virtual void copy(CUstream_st* s, void* to, const void* from, std::size_t bytes) = 0;
  virtual void clear(CUstream_st* s, void* to, std::size_t bytes) = 0;
};

// ---- the registry ------------------------------------------------------------------------------
// Filled at start, by the thread that runs main; read by all.

constexpr std::size_t kMostDevices = 8;

// The device of that name: cpu and cuda have their numbers, any other name gets the next one.
Device device_named(std::string_view name);
std::string_view name_of(Device device);

// A program offers what it contains; a device is made ready when somebody wants it: once, as number
// `index` modulo those there are. False: `why` says in one line why not.
using EnableDevice = bool (*)(int index, std::string& why);
void offer_device(Device device, EnableDevice enable);
bool enable_device(Device device, int index, std::string& why);

// For the device itself, when it is ready (kernels/backends.h registers its operations). Null takes
// it away.
void register_runtime(Device device, DeviceRuntime* runtime);
DeviceRuntime* find_runtime(Device device);  // null: it is not ready in this process
// Error{device_unavailable} where there is none.
DeviceRuntime& runtime(Device device);
DeviceProperties properties(Device device);

// A stream for as long as this lives; its work is done when it goes.
class OwnStream {
 public:
  explicit OwnStream(Device device) : device_(device), stream_(runtime(device).make_stream()) {}
  ~OwnStream();
  OwnStream(const OwnStream&) = delete;
  OwnStream& operator=(const OwnStream&) = delete;
  CUstream_st* get() const { return stream_; }

 private:
  Device device_;
  CUstream_st* stream_;
};

// ---- any device --------------------------------------------------------------------------------
// These end when the data is there, except start_copy_out(), and copy_in(), whose source may be
// reused at once.

void copy_in(const Context& ctx, const TensorView& to, const void* from);
void copy_out(const Context& ctx, void* to, const ConstTensorView& from);
// Does not wait: the values are there after wait().
void start_copy_out(const Context& ctx, void* to, const ConstTensorView& from);
void copy(const Context& ctx, const TensorView& to, const ConstTensorView& from);
void wait(const Context& ctx);
template <class T> std::vector<T> to_host(const Context& ctx, const ConstTensorView& v) {
  std::vector<T> out(static_cast<std::size_t>(v.numel()));
  v.template as<T>();  // checks the type
  copy_out(ctx, out.data(), v);
  return out;
}

}  // namespace grist
