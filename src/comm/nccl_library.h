#pragma once
// The few functions of NCCL that we call, found in libnccl.so.2 when somebody wants it, so that
// neither building nor starting a program needs NCCL. Declared here as in nccl.h of NCCL 2, whose
// binary interface has not changed; a test compares the two.
#include <cstddef>
#include <string>

struct ncclComm;
struct CUstream_st;

namespace grist::comm {

struct NcclId {  // ncclUniqueId
  char bytes[128];
};

struct NcclLibrary {
  static constexpr int kSuccess = 0, kInProgress = 7;  // ncclResult_t
  static constexpr int kBytes = 0;                     // ncclDataType_t: ncclInt8
  int (*get_version)(int* version);
  int (*get_unique_id)(NcclId* id);
  int (*comm_init_rank)(ncclComm** comm, int ranks, NcclId id, int rank);
  int (*comm_destroy)(ncclComm* comm);
  int (*comm_abort)(ncclComm* comm);
  int (*comm_get_async_error)(ncclComm* comm, int* error);
  const char* (*get_error_string)(int result);
  const char* (*get_last_error)(ncclComm* comm);
  int (*group_start)();
  int (*group_end)();
  int (*send)(const void* data, std::size_t count, int dtype, int peer, ncclComm* comm,
              CUstream_st* stream);
  int (*receive)(void* data, std::size_t count, int dtype, int peer, ncclComm* comm,
                 CUstream_st* stream);
};

// libnccl.so.2, or what set_nccl() gave; null: `why` says in one line why not.
const NcclLibrary* find_nccl(std::string& why);
// Instead of libnccl.so.2; for tests. Before the first find_nccl().
void set_nccl(const NcclLibrary* library);

std::string nccl_version(const NcclLibrary& nccl);  // "2.27.3"

}  // namespace grist::comm
