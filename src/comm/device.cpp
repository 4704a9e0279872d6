#include "grist/comm/device.h"

#include <set>
#include <vector>

#include "grist/comm/collectives.h"
#include "grist/core/check.h"
#include "grist/core/device.h"
#include "grist/core/host.h"
#include "nccl_communicator.h"
#include "staged.h"

namespace grist::comm {

namespace {

// Which GPU of which machine.
std::string address_of(Device device) {
  return fmt::format("{} {}", host_name(), runtime(device).address());
}

// Empty where all ranks have NCCL and GPUs of their own, else why not; the same line on all of
// them.
std::string why_not_nccl(Communicator& host, Device device, const NcclLibrary*& nccl) {
  if (!properties(device).nccl)
    return fmt::format("NCCL does not take memory of device {}", name_of(device));
  std::set<std::string> gpus;
  for (const std::string& gpu : all_gather(host, address_of(device)))
    if (!gpus.insert(gpu).second) return "several ranks share the GPU at " + gpu;
  std::string here;
  nccl = find_nccl(here);
  const std::vector<std::string> problems = all_gather(host, nccl == nullptr ? here : "");
  for (std::size_t p = 0; p < problems.size(); ++p)
    if (!problems[p].empty()) return fmt::format("rank {}: {}", p, problems[p]);
  return "";
}

}  // namespace

DeviceCommunicator device_communicator(Communicator& host, const ComputeStream& compute,
                                       DeviceTransport wanted) {
  std::unique_ptr<Communicator> own = host.split(0);
  std::string why = "asked for";
  if (own->size() == 1) {
    why = "one rank";
  } else if (wanted != DeviceTransport::staged) {
    const NcclLibrary* nccl = nullptr;
    why = why_not_nccl(*own, compute.device, nccl);
    if (why.empty())
      return {nccl_communicator(std::move(own), compute, *nccl), "nccl " + nccl_version(*nccl)};
    if (wanted == DeviceTransport::nccl)
      fail(ExitCode::device_unavailable, "messages by NCCL: {}; use parallel.transport: staged",
           why);
  }
  return {staged_communicator(std::move(own), compute), "staged: " + why};
}

}  // namespace grist::comm
