// NCCL between threads of one process: the entry points that we call, against the prototypes of
// nccl.h. Messages are copied when their group's turn on the stream comes; receives hold the stream
// until all of them are there, as on a GPU.
#include <cuda_runtime.h>
#include <nccl.h>
#include <sched.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "device_memory.h"
#include "state.h"
#include "streams.h"

namespace {

using Bytes = std::vector<std::byte>;

// What the ranks of one communicator share; under mutex().
struct Group {
  int ranks = 0;
  int present = 0;
  std::map<std::pair<int, int>, std::deque<Bytes>> messages;  // (from, to): sent, not received
  ncclResult_t error = ncclSuccess;
};

std::mutex& mutex() {
  static std::mutex* m = new std::mutex;
  return *m;
}
std::map<std::uint64_t, std::shared_ptr<Group>>& groups() {
  static auto* all = new std::map<std::uint64_t, std::shared_ptr<Group>>;
  return *all;
}

}  // namespace

struct ncclComm {
  std::shared_ptr<Group> group;
  int rank = 0;
};

namespace {

// Work on a stream may outlive the communicator, when that is aborted.
struct Message {
  std::shared_ptr<Group> group;
  int rank;
  cudaStream_t stream;
  int peer;
  std::size_t bytes;
  const void* from;  // one of the two
  void* to;
};

struct Calls {  // of a group in the making
  int depth = 0;
  std::vector<Message> messages;
};
thread_local Calls calls;

ncclResult_t fail(Group& group, const std::string& what) {
  grist::emu::report(cudaErrorInvalidValue, what);
  const std::lock_guard lock(mutex());
  if (group.error == ncclSuccess) group.error = ncclInvalidUsage;
  return ncclInvalidUsage;
}

cudaError_t post(const std::vector<Message>& sends) {
  const std::lock_guard lock(mutex());
  for (const Message& m : sends) {
    const auto* data = static_cast<const std::byte*>(m.from);
    m.group->messages[{m.rank, m.peer}].emplace_back(data, data + m.bytes);
  }
  return cudaSuccess;
}

bool all_there(const std::vector<Message>& receives) {
  const std::lock_guard lock(mutex());
  for (const Message& m : receives) {
    if (m.group->error != ncclSuccess) return true;
    if (m.group->messages[{m.peer, m.rank}].empty()) return false;
  }
  return true;
}

cudaError_t take(const std::vector<Message>& receives) {
  for (const Message& m : receives) {
    Bytes bytes;
    {
      const std::lock_guard lock(mutex());
      auto& queue = m.group->messages[{m.peer, m.rank}];
      if (queue.empty()) return cudaErrorUnknown;  // the group has failed
      bytes = std::move(queue.front());
      queue.pop_front();
    }
    if (bytes.size() != m.bytes) {
      fail(*m.group, "rank " + std::to_string(m.peer) + " sent " + std::to_string(bytes.size()) +
                         " bytes, " + std::to_string(m.bytes) + " expected");
      return cudaErrorInvalidValue;
    }
    std::memcpy(m.to, bytes.data(), bytes.size());
  }
  return cudaSuccess;
}

ncclResult_t add(const Message& m, ncclDataType_t dtype) {
  const void* data = m.from == nullptr ? m.to : m.from;
  const grist::emu::Range r = grist::emu::find_range(data);
  if (dtype != ncclInt8) return fail(*m.group, "the emulated NCCL sends bytes only");
  if (m.peer < 0 || m.peer >= m.group->ranks)
    return fail(*m.group, "no rank " + std::to_string(m.peer));
  if (r.place != grist::emu::Place::device)
    return fail(*m.group, "a message is not device memory: " + grist::emu::describe_address(data));
  if (static_cast<const std::byte*>(data) + m.bytes > r.begin + r.bytes)
    return fail(*m.group,
                "a message of " + std::to_string(m.bytes) + " bytes overruns its allocation");
  for (const Message& other : calls.messages) {
    if (other.group == m.group && other.peer == m.peer &&
        (other.to == nullptr) == (m.to == nullptr))
      return fail(*m.group, "two messages of a pair of ranks in one group");
  }
  calls.messages.push_back(m);
  return calls.depth > 0 ? ncclSuccess : ncclGroupEnd();
}

}  // namespace

extern "C" {

ncclResult_t ncclGetVersion(int* version) {
  *version = NCCL_VERSION_CODE;
  return ncclSuccess;
}
const char* ncclGetErrorString(ncclResult_t result) {
  return result == ncclSuccess ? "no error" : "an error of the emulated NCCL";
}
const char* ncclGetLastError(ncclComm_t) {
  const char* words = grist::emu::words_of(cudaErrorInvalidValue);
  return words == nullptr ? "" : words;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  static std::atomic<std::uint64_t> next{1};
  const std::uint64_t number = next++;
  std::memset(id, 0, sizeof *id);
  std::memcpy(id->internal, &number, sizeof number);
  return ncclSuccess;
}

ncclResult_t ncclCommInitRank(ncclComm_t* comm, int ranks, ncclUniqueId id, int rank) {
  std::uint64_t number = 0;
  std::memcpy(&number, id.internal, sizeof number);
  if (number == 0 || rank < 0 || rank >= ranks) return ncclInvalidArgument;
  std::unique_lock lock(mutex());
  std::shared_ptr<Group>& slot = groups()[number];
  if (!slot) slot = std::make_shared<Group>();
  const std::shared_ptr<Group> group = slot;
  group->ranks = ranks;
  if (++group->present == ranks) groups().erase(number);
  const auto begin = std::chrono::steady_clock::now();
  while (group->present < ranks) {
    if (std::chrono::steady_clock::now() - begin > std::chrono::seconds(20)) return ncclRemoteError;
    lock.unlock();
    sched_yield();
    lock.lock();
  }
  *comm = new ncclComm{group, rank};
  return ncclSuccess;
}

// What nobody has received is a mistake of the program.
ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  const std::unique_ptr<ncclComm> owner(comm);
  grist::emu::drain_device();
  const std::lock_guard lock(mutex());
  for (const auto& [pair, queue] : comm->group->messages) {
    if (pair.second == comm->rank && !queue.empty()) {
      grist::emu::report(cudaErrorInvalidValue, "a message was sent that nobody received");
      return ncclInvalidUsage;
    }
  }
  return ncclSuccess;
}
ncclResult_t ncclCommAbort(ncclComm_t comm) {
  {
    const std::lock_guard lock(mutex());
    comm->group->error = ncclRemoteError;
  }
  delete comm;
  return ncclSuccess;
}
ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* error) {
  const std::lock_guard lock(mutex());
  *error = comm->group->error;
  return ncclSuccess;
}

ncclResult_t ncclGroupStart() {
  ++calls.depth;
  return ncclSuccess;
}
ncclResult_t ncclGroupEnd() {
  if (calls.depth > 0) --calls.depth;
  if (calls.depth > 0) return ncclSuccess;
  const std::vector<Message> all = std::exchange(calls.messages, {});
  if (all.empty()) return ncclSuccess;
  std::vector<Message> sends, receives;
  for (const Message& m : all) {
    if (m.stream != all[0].stream)
      return fail(*m.group, "the emulated NCCL takes one stream a group");
    (m.to == nullptr ? sends : receives).push_back(m);
  }
  const cudaStream_t stream = all[0].stream;
  const auto posting = [sends] { return post(sends); };
  const auto taking = [receives] { return take(receives); };
  if (!sends.empty() && grist::emu::enqueue(stream, posting) != cudaSuccess)
    return ncclUnhandledCudaError;
  if (receives.empty()) return ncclSuccess;
  const auto there = [receives] { return all_there(receives); };
  return grist::emu::enqueue_when(stream, there, taking) == cudaSuccess ? ncclSuccess
                                                                        : ncclUnhandledCudaError;
}
ncclResult_t ncclSend(const void* data, size_t count, ncclDataType_t dtype, int peer,
                      ncclComm_t comm, cudaStream_t stream) {
  return add({comm->group, comm->rank, stream, peer, count, data, nullptr}, dtype);
}
ncclResult_t ncclRecv(void* data, size_t count, ncclDataType_t dtype, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  return add({comm->group, comm->rank, stream, peer, count, nullptr, data}, dtype);
}

}  // extern "C"
