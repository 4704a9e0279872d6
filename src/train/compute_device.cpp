#include "compute_device.h"

#include <algorithm>
#include <vector>

#include "grist/comm/collectives.h"
#include "grist/core/check.h"
#include "grist/core/device.h"

namespace grist::train {

namespace {

DeviceChoice choose_here(const Config& config, int local_rank) {
  DeviceChoice choice;
  if (config.device != WantedDevice::cpu && enable_cuda(local_rank, choice.why_not_cuda)) {
    choice.device = Device::cuda;
  } else if (config.device == WantedDevice::cuda) {
    fail(ExitCode::device_unavailable, "device: cuda: {}; use device: cpu", choice.why_not_cuda);
  }
  if (choice.device == Device::cpu && config.precision == Precision::bf16)
    fail(ExitCode::config, "precision: bf16 needs device: cuda{}; use precision: fp32",
         config.device == WantedDevice::auto_ ? fmt::format(" ({})", choice.why_not_cuda) : "");
  return choice;
}

// Kernels differ by kind of GPU, and with them the last bits: ranks would drift apart.
void check_same_kind(comm::Communicator& world) {
  const std::vector<std::string> kinds = comm::all_gather(world, cuda_device().kind());
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

DeviceChoice choose_device(const Config& config, comm::Communicator& world, int local_rank) {
  DeviceChoice choice;
  comm::agree(world, [&] { choice = choose_here(config, local_rank); });
  const std::int64_t cuda = choice.device == Device::cuda ? 1 : 0;
  const std::int64_t with_cuda = comm::all_reduce_sum(world, cuda);
  comm::agree(world, [&] {
    if (with_cuda != cuda * world.size())
      fail(ExitCode::device_unavailable,
           "device: auto: some ranks have a GPU and others have none; set device: cpu");
  });
  if (cuda != 0) check_same_kind(world);
  return choice;
}

ComputeDevice::ComputeDevice(Device device, int threads, MemoryLedger* ledger,
                             std::atomic<std::uint64_t>* beats)
    : pool_(threads), scratch_(device, ledger) {
  context_.device = device;
  context_.scratch = &scratch_;
  context_.beats = beats;
  if (device == Device::cpu)
    context_.pool = &pool_;
  else
    context_.stream = cuda_device().make_stream();
}

ComputeDevice::~ComputeDevice() {
  if (context_.stream != nullptr) cuda_device().destroy_stream(context_.stream);
}

}  // namespace grist::train
