#pragma once
// Streams and events. Immediate: work is done in the call. Deferred: when the host waits, one piece
// at a time, from a random stream whose next piece may start.
#include <driver_types.h>

#include <cstdint>
#include <functional>

namespace grist::emu {

using Work = std::function<cudaError_t()>;
// Immediate: the result of the work. Deferred: cudaSuccess, or an earlier piece's error.
cudaError_t enqueue(cudaStream_t stream, Work work);
// Work that waits on the stream until may_start(), which is asked under the queues' lock.
// Immediate: the call waits.
cudaError_t enqueue_when(cudaStream_t stream, std::function<bool()> may_start, Work work);
// Host data that must be read in the call although the work is done later.
bool deferred();
bool is_default(cudaStream_t stream);
bool is_blocking(cudaStream_t stream);  // with regard to the default stream
cudaError_t drain_all();
cudaError_t drain_device();  // the current one's streams
void set_deferred(bool on, std::uint64_t seed);

}  // namespace grist::emu
