#include "grist/parallel/choose_device.h"

#include <algorithm>
#include <string>
#include <vector>

#include "grist/comm/collectives.h"
#include "grist/core/check.h"
#include "grist/core/device.h"

namespace grist::parallel {

namespace {

// Kernels differ by kind of GPU, and with them the last bits: ranks would drift apart.
void check_same_kind(comm::Communicator& world, Device device) {
  const std::vector<std::string> kinds = comm::all_gather(world, runtime(device).kind());
  const auto other = std::find_if(kinds.begin(), kinds.end(),
                                  [&](const std::string& kind) { return kind != kinds[0]; });
  comm::agree(world, [&] {
    if (other != kinds.end())
      fail(ExitCode::device_unavailable,
           "the GPU of rank 0 has {}, that of rank {} has {}; all ranks need GPUs of one kind "
           "(CUDA_VISIBLE_DEVICES chooses)",
           kinds[0], other - kinds.begin(), *other);
  });
}

}  // namespace

nn::DeviceChoice choose_device(const Config& config, comm::Communicator& world, int local_rank) {
  nn::DeviceChoice choice;
  comm::agree(world, [&] { choice = nn::choose_device(config, local_rank); });
  const bool apart = !properties(choice.device).reads_host_memory;
  const std::int64_t one = apart ? 1 : 0, sum = comm::all_reduce_sum(world, one);
  comm::agree(world, [&] {
    if (sum != one * world.size())
      fail(ExitCode::device_unavailable,
           "device: auto: some ranks have a GPU and others have none; set device: cpu");
  });
  if (apart) check_same_kind(world, choice.device);
  return choice;
}

}  // namespace grist::parallel
