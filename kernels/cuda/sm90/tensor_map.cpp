#include "tensor_map.h"

#include <cudaTypedefs.h>
#include <cuda_runtime.h>

#include <algorithm>

#include "grist/core/error.h"
#include "kernels/cuda/launch.h"

namespace grist::cuda::sm90 {

namespace {

// The driver's function, found through the runtime so that nothing links with the driver.
PFN_cuTensorMapEncodeTiled_v12000 find_encode() {
  void* entry = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000, cudaEnableDefault,
                                         &found),
        "cuTensorMapEncodeTiled");
  if (found != cudaDriverEntryPointSuccess || entry == nullptr)
    throw Error(ExitCode::device_unavailable, "the CUDA driver has no tensor maps; want 12.0");
  return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(entry);
}

}  // namespace

CUtensorMap swizzled_map(const void* data, const Shape& shape, int box_rows) {
  static const PFN_cuTensorMapEncodeTiled_v12000 encode = find_encode();
  constexpr int kLine = 64;
  const int rank = shape.rank();
  cuuint64_t extents[3] = {}, strides[3] = {};  // innermost first; strides of all but the first
  cuuint64_t bytes = 2;
  for (int i = 0; i < rank; ++i) {
    // A tensor without rows is not read, but a map needs some.
    extents[i] = static_cast<cuuint64_t>(std::max<std::int64_t>(shape[rank - 1 - i], 1));
    bytes *= extents[i];
    strides[i] = bytes;
  }
  const cuuint32_t box[3] = {kLine, static_cast<cuuint32_t>(box_rows), 1};
  const cuuint32_t steps[3] = {1, 1, 1};
  CUtensorMap map;
  const CUresult status =
      encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, static_cast<cuuint32_t>(rank),
             const_cast<void*>(data), extents, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
             CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
             CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (status != CUDA_SUCCESS) {
    throw Error(ExitCode::internal, "cuTensorMapEncodeTiled refuses " + shape.str() + ": error " +
                                        std::to_string(static_cast<int>(status)));
  }
  return map;
}

}  // namespace grist::cuda::sm90
