#include "nccl_library.h"

#include <dlfcn.h>

#include <optional>

#include "grist/core/check.h"

namespace grist::comm {

namespace {

const NcclLibrary* given = nullptr;

struct Loaded {
  std::optional<NcclLibrary> library;
  std::string why;
};

Loaded load() {
  void* handle = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) return {std::nullopt, dlerror()};
  NcclLibrary n = {};
  std::string missing;
  const auto find = [&](auto& function, const char* name) {
    void* p = dlsym(handle, name);
    if (p == nullptr) missing = name;
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(p);
  };
  find(n.get_version, "ncclGetVersion");
  find(n.get_unique_id, "ncclGetUniqueId");
  find(n.comm_init_rank, "ncclCommInitRank");
  find(n.comm_destroy, "ncclCommDestroy");
  find(n.comm_abort, "ncclCommAbort");
  find(n.comm_get_async_error, "ncclCommGetAsyncError");
  find(n.get_error_string, "ncclGetErrorString");
  find(n.get_last_error, "ncclGetLastError");
  find(n.group_start, "ncclGroupStart");
  find(n.group_end, "ncclGroupEnd");
  find(n.send, "ncclSend");
  find(n.receive, "ncclRecv");
  if (!missing.empty()) return {std::nullopt, "libnccl.so.2 has no " + missing};
  return {n, ""};
}

}  // namespace

void set_nccl(const NcclLibrary* library) {
  given = library;
}

const NcclLibrary* find_nccl(std::string& why) {
  if (given != nullptr) return given;
  static const Loaded loaded = load();
  why = loaded.why;
  return loaded.library ? &*loaded.library : nullptr;
}

std::string nccl_version(const NcclLibrary& nccl) {
  int v = 0;
  if (nccl.get_version(&v) != NcclLibrary::kSuccess) return "of unknown version";
  return fmt::format("{}.{}.{}", v / 10000, v / 100 % 100, v % 100);
}

}  // namespace grist::comm
