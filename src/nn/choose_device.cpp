#include "grist/nn/choose_device.h"

#include "grist/core/check.h"
#include "grist/core/device.h"

namespace grist::nn {

namespace {

DenseMatmul dense_matmul(DenseProducts wanted) {
  switch (wanted) {
    case DenseProducts::auto_: return DenseMatmul::automatic;
    case DenseProducts::own: return DenseMatmul::own;
    case DenseProducts::cublas: return DenseMatmul::cublas;
  }
  return DenseMatmul::automatic;
}

void use_dense_matmul(Device device, DenseProducts wanted) {
  try {
    runtime(device).set_dense_matmul(dense_matmul(wanted));
  } catch (const Error& e) {
    fail(e.code(), "train.dense_matmul: {}: {}; use auto or own", word(wanted), e.what());
  }
}

}  // namespace

DeviceChoice choose_device(const Config& config, int index, const char* instead) {
  DeviceChoice choice;
  if (config.device == WantedDevice::auto_) {
    if (enable_device(Device::cuda, index, choice.why_not_cuda)) choice.device = Device::cuda;
  } else {
    choice.device = device_named(word(config.device));
    std::string why;
    if (!enable_device(choice.device, index, why))
      fail(ExitCode::device_unavailable, "device: {}: {}; use {}", word(config.device), why,
           instead);
  }
  if (config.precision == Precision::bf16 && !properties(choice.device).bf16)
    fail(ExitCode::config, "precision: bf16 needs device: cuda{}; use precision: fp32",
         config.device == WantedDevice::auto_ ? fmt::format(" ({})", choice.why_not_cuda) : "");
  use_dense_matmul(choice.device, config.train.dense_matmul);
  return choice;
}

}  // namespace grist::nn
