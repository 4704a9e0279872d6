// The CUDA runtime's entry points but for streams and launches, against the toolkit's prototypes.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "capture.h"
#include "device_memory.h"
#include "emulation/control.h"
#include "shared_memory.h"
#include "state.h"
#include "streams.h"

namespace grist::emu {

namespace {

constinit thread_local cudaError_t error_of_thread = cudaSuccess;
constinit thread_local int device_of_thread = 0;

struct Words {
  std::mutex mutex;
  cudaError_t code = cudaSuccess;
  std::string text;
};
Words& words() {
  static Words* w = new Words;
  return *w;
}

int number_from(const char* variable, int otherwise) {
  const char* s = std::getenv(variable);
  return s == nullptr ? otherwise : std::atoi(s);
}
int device_count() {
  static const int count = std::clamp(number_from("GRIST_EMU_DEVICES", 1), 0, 16);
  return count;
}
int driver_version() {  // 0: there is no driver
  return number_from("GRIST_EMU_DRIVER", CUDART_VERSION);
}
// "90" is that of all devices, "90,80" of the first and of those behind it.
int capability_of(int device) {
  const char* s = std::getenv("GRIST_EMU_CAPABILITY");
  for (const char* next = s; device > 0 && next != nullptr; --device) {
    next = std::strchr(s, ',');
    if (next != nullptr) s = next + 1;
  }
  return s == nullptr ? 90 : std::atoi(s);
}

struct Current {
  std::mutex mutex;
  Options options;
};
Current& current_options() {
  static Current* c = new Current{{},
                                  {static_cast<Order>(number_from("GRIST_EMU_ORDER", 0)),
                                   static_cast<Async>(number_from("GRIST_EMU_ASYNC", 0)),
                                   static_cast<Streams>(number_from("GRIST_EMU_STREAMS", 0)),
                                   static_cast<std::uint64_t>(number_from("GRIST_EMU_SEED", 0))}};
  return *c;
}

std::string bytes_of(std::size_t n, const Range& r, const void* p) {
  return std::to_string(n) + " bytes at offset " +
         std::to_string(static_cast<const std::byte*>(p) - r.begin) + " of an allocation of " +
         std::to_string(r.bytes);
}

// Empty: [p, p+bytes) may be used as `what` says.
std::string bad_operand(const void* p, std::size_t bytes, bool on_device, const char* what) {
  const Range r = find_range(p);
  if (on_device && r.place == Place::pageable)
    return std::string(what) + " is not device memory: " + describe_address(p);
  if (!on_device && r.place == Place::device)
    return std::string(what) + " is device memory, not the host's";
  if (r.place != Place::pageable && static_cast<const std::byte*>(p) + bytes > r.begin + r.bytes)
    return std::string(what) + ": " + bytes_of(bytes, r, p);
  return "";
}

// For calls that act at once, whatever waits on streams.
#define GRIST_REFUSE_UNSAFE(call) \
  if (const cudaError_t bad = refuse_unsafe(call)) return bad

bool is_device(const void* p) {
  return find_range(p).place == Place::device;
}

}  // namespace

cudaError_t report(cudaError_t code, const std::string& what) {
  Words& w = words();
  const std::lock_guard lock(w.mutex);
  w.code = code;
  w.text = what;
  error_of_thread = code;
  return code;
}
cudaError_t last_error(bool clear) {
  return clear ? std::exchange(error_of_thread, cudaSuccess) : error_of_thread;
}
const char* words_of(cudaError_t code) {
  Words& w = words();
  const std::lock_guard lock(w.mutex);
  if (w.code != code || w.text.empty()) return nullptr;
  thread_local std::string copy;
  copy = w.text;
  return copy.c_str();
}
int current_device() {
  return device_of_thread;
}

std::string take_report() {
  Words& w = words();
  const std::lock_guard lock(w.mutex);
  w.code = cudaSuccess;
  error_of_thread = cudaSuccess;
  return std::exchange(w.text, "");
}

Options options() {
  Current& c = current_options();
  const std::lock_guard lock(c.mutex);
  return c.options;
}
void set_options(const Options& o) {
  set_deferred(o.streams == Streams::deferred, o.seed);
  Current& c = current_options();
  const std::lock_guard lock(c.mutex);
  c.options = o;
}

}  // namespace grist::emu

using namespace grist::emu;

extern "C" {

const char* cudaGetErrorString(cudaError_t code) {
  const char* words = words_of(code);
  if (words != nullptr) return words;
  switch (code) {
    case cudaSuccess: return "no error";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorNotReady: return "device not ready";
    case cudaErrorNoDevice: return "no CUDA-capable device is detected";
    case cudaErrorInsufficientDriver:
      return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorIllegalAddress: return "an illegal memory access was encountered";
    case cudaErrorInvalidDevice: return "invalid device ordinal";
    case cudaErrorLaunchFailure: return "unspecified launch failure";
    default: return "an error of the emulated CUDA runtime";
  }
}
const char* cudaGetErrorName(cudaError_t code) {
  return code == cudaSuccess ? "cudaSuccess" : "cudaError";
}
cudaError_t cudaGetLastError() {
  return last_error(true);
}
cudaError_t cudaPeekAtLastError() {
  return last_error(false);
}

// ---- devices ------------------------------------------------------------------------------------

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 0;
  if (driver_version() < CUDART_VERSION) return cudaErrorInsufficientDriver;
  *count = device_count();
  return *count > 0 ? cudaSuccess : cudaErrorNoDevice;
}
cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= device_count())
    return report(cudaErrorInvalidDevice, "no device " + std::to_string(device));
  device_of_thread = device;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = device_of_thread;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int device) {
  if (device < 0 || device >= device_count()) return cudaErrorInvalidDevice;
  *p = {};
  std::strncpy(p->name, "CUDA emulation", sizeof p->name - 1);
  const int capability = capability_of(device);
  p->major = capability / 10;
  p->minor = capability % 10;
  // Few, so that kernels whose grid fills the device stay small here.
  p->multiProcessorCount = number_from("GRIST_EMU_MULTIPROCESSORS", 6);
  p->totalGlobalMem = device_bytes_total();
  p->warpSize = 32;
  p->maxThreadsPerBlock = 1024;
  p->maxThreadsPerMultiProcessor = 2048;
  p->sharedMemPerBlock = 48 * 1024;
  p->sharedMemPerBlockOptin = kMaxSharedBytes;
  p->sharedMemPerMultiprocessor = 228 * 1024;
  p->l2CacheSize = 50 * 1024 * 1024;
  p->concurrentKernels = 1;
  p->asyncEngineCount = 3;
  p->unifiedAddressing = 1;
  p->cooperativeLaunch = 0;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  cudaDeviceProp p;
  const cudaError_t status = cudaGetDeviceProperties(&p, device);
  if (status != cudaSuccess) return status;
  switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor: *value = p.major; break;
    case cudaDevAttrComputeCapabilityMinor: *value = p.minor; break;
    case cudaDevAttrMultiProcessorCount: *value = p.multiProcessorCount; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = static_cast<int>(p.sharedMemPerBlockOptin);
      break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = static_cast<int>(p.sharedMemPerBlock); break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
      *value = static_cast<int>(p.sharedMemPerMultiprocessor);
      break;
    case cudaDevAttrMaxThreadsPerBlock: *value = p.maxThreadsPerBlock; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *value = p.maxThreadsPerMultiProcessor; break;
    case cudaDevAttrWarpSize: *value = p.warpSize; break;
    case cudaDevAttrL2CacheSize: *value = p.l2CacheSize; break;
    case cudaDevAttrCooperativeLaunch: *value = p.cooperativeLaunch; break;
    default: return report(cudaErrorNotSupported, "a device attribute that the emulation lacks");
  }
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = driver_version();
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetPCIBusId(char* text, int size, int device) {
  std::snprintf(text, static_cast<std::size_t>(size), "0000:%02x:00.0", device);
  return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void*, int threads,
                                                          std::size_t shared_bytes) {
  const std::size_t by_shared = (228 * 1024) / (shared_bytes + 1024);
  *blocks =
      static_cast<int>(std::min<std::size_t>(by_shared, 2048 / static_cast<std::size_t>(threads)));
  return cudaSuccess;
}

// ---- memory -------------------------------------------------------------------------------------

cudaError_t cudaMalloc(void** p, std::size_t bytes) {
  GRIST_REFUSE_UNSAFE("cudaMalloc");
  *p = bytes == 0 ? nullptr : allocate_device(bytes, current_device());
  if (bytes != 0 && *p == nullptr) return report(cudaErrorMemoryAllocation, "out of memory");
  return cudaSuccess;
}
cudaError_t cudaFree(void* p) {
  if (p == nullptr) return cudaSuccess;
  GRIST_REFUSE_UNSAFE("cudaFree");
  const cudaError_t status = drain_device();
  bool overrun = false;
  if (!release_device(p, overrun))
    return report(cudaErrorInvalidValue, "cudaFree of what cudaMalloc did not give");
  if (overrun)
    return report(cudaErrorIllegalAddress,
                  "a write past the end of an allocation, found by cudaFree");
  return status;
}
cudaError_t cudaMallocAsync(void** p, std::size_t bytes, cudaStream_t) {
  return cudaMalloc(p, bytes);
}
cudaError_t cudaFreeAsync(void* p, cudaStream_t stream) {
  return enqueue(stream, [p] {
    bool overrun = false;
    if (p == nullptr || release_device(p, overrun)) return cudaSuccess;
    return report(cudaErrorInvalidValue, "cudaFreeAsync of what cudaMalloc did not give");
  });
}
cudaError_t cudaHostAlloc(void** p, std::size_t bytes, unsigned) {
  GRIST_REFUSE_UNSAFE("cudaMallocHost");
  *p = allocate_pinned(bytes);
  return *p == nullptr ? report(cudaErrorMemoryAllocation, "out of memory") : cudaSuccess;
}
cudaError_t cudaMallocHost(void** p, std::size_t bytes) {
  return cudaHostAlloc(p, bytes, 0);
}
cudaError_t cudaFreeHost(void* p) {
  if (p == nullptr) return cudaSuccess;
  GRIST_REFUSE_UNSAFE("cudaFreeHost");
  const cudaError_t status = drain_device();
  if (!release_pinned(p))
    return report(cudaErrorInvalidValue, "cudaFreeHost of what cudaMallocHost did not give");
  return status;
}
cudaError_t cudaMemGetInfo(std::size_t* free_bytes, std::size_t* total) {
  *total = device_bytes_total();
  *free_bytes = *total - device_bytes_used(current_device());
  return cudaSuccess;
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* a, const void* p) {
  const Range r = find_range(p);
  *a = {};
  a->device = r.device;
  a->type = r.place == Place::device   ? cudaMemoryTypeDevice
            : r.place == Place::pinned ? cudaMemoryTypeHost
                                       : cudaMemoryTypeUnregistered;
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  if (bytes == 0) return cudaSuccess;
  const bool guess = kind == cudaMemcpyDefault;
  const bool to_device =
      guess ? is_device(to) : kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device =
      guess ? is_device(from) : kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  std::string bad = bad_operand(to, bytes, to_device, "destination of a copy");
  if (bad.empty()) bad = bad_operand(from, bytes, from_device, "source of a copy");
  if (!bad.empty()) return report(cudaErrorInvalidValue, bad);
  if (find_range(to_device ? from : to).place == Place::pageable && !(to_device && from_device)) {
    if (const cudaError_t refused = refuse_on_captured(stream, "a copy of pageable host memory"))
      return refused;
  }
  if (deferred() && !from_device && find_range(from).place == Place::pageable) {
    auto staged = std::make_shared<std::vector<std::byte>>(
        static_cast<const std::byte*>(from), static_cast<const std::byte*>(from) + bytes);
    return enqueue(stream, [to, staged] {
      std::memcpy(to, staged->data(), staged->size());
      return cudaSuccess;
    });
  }
  const cudaError_t status = enqueue(stream, [to, from, bytes] {
    std::memmove(to, from, bytes);
    return cudaSuccess;
  });
  if (status != cudaSuccess || to_device || find_range(to).place == Place::pinned) return status;
  return cudaStreamSynchronize(stream);  // pageable host memory is written before the call ends
}
cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  GRIST_REFUSE_UNSAFE("cudaMemcpy");
  const cudaError_t status = cudaMemcpyAsync(to, from, bytes, kind, nullptr);
  return status != cudaSuccess ? status : cudaStreamSynchronize(nullptr);
}
cudaError_t cudaMemcpyPeerAsync(void* to, int, const void* from, int, std::size_t bytes,
                                cudaStream_t stream) {
  return cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream);
}
cudaError_t cudaMemcpy2DAsync(void* to, std::size_t to_pitch, const void* from,
                              std::size_t from_pitch, std::size_t width, std::size_t rows,
                              cudaMemcpyKind kind, cudaStream_t stream) {
  for (std::size_t r = 0; r < rows; ++r) {
    const cudaError_t status =
        cudaMemcpyAsync(static_cast<std::byte*>(to) + r * to_pitch,
                        static_cast<const std::byte*>(from) + r * from_pitch, width, kind, stream);
    if (status != cudaSuccess) return status;
  }
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t stream) {
  if (bytes == 0) return cudaSuccess;
  const std::string bad = bad_operand(to, bytes, true, "memory to set");
  if (!bad.empty()) return report(cudaErrorInvalidValue, bad);
  return enqueue(stream, [to, value, bytes] {
    std::memset(to, value, bytes);
    return cudaSuccess;
  });
}
cudaError_t cudaMemset(void* to, int value, std::size_t bytes) {
  return cudaMemsetAsync(to, value, bytes, nullptr);
}

}  // extern "C"
