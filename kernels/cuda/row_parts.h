#pragma once
// A value a row that several tiles of columns have a part in.
#include <cstdint>

#include "grist/core/context.h"

namespace grist::cuda {

struct RowParts {
  float* sums;                  // out (R); rows of no expert stay as they are
  const float* partial;         // in  (parts, R)
  const std::int32_t* offsets;  // in  (experts + 1)
  int experts, parts;
  std::int64_t R;
};
// In ascending order of the parts (kernels/cuda/experts.cu).
void add_parts(const Context& ctx, const RowParts& p);

}  // namespace grist::cuda
