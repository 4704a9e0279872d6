#include "backends.h"

#include "grist/core/device.h"
#include "kernels/backends.h"

namespace grist::app {

void offer_backends() {
#ifdef GRIST_HAS_CUDA
  offer_device(Device::cuda, &cuda::enable);
#endif
}

}  // namespace grist::app
