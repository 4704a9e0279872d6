#include "row_space.h"

namespace grist::parallel {

std::size_t RowSpace::add(DType dtype, std::int64_t columns) {
  arrays_.push_back({dtype, columns, 0});
  return arrays_.size() - 1;
}

void RowSpace::allocate(std::int64_t rows) {
  buffer_ = {};  // first: the old memory may be what the new needs
  capacity_ = 0;
  constexpr std::size_t kAlign = 64;
  std::size_t bytes = 0;
  for (Array& a : arrays_) {
    a.offset = bytes;
    const std::size_t own = static_cast<std::size_t>(a.shape(rows).numel()) * size_of(a.dtype);
    bytes += (own + kAlign - 1) / kAlign * kAlign;
  }
  buffer_ = Buffer(bytes, device_, label_, ledger_);
  capacity_ = rows;
}

TensorView RowSpace::array(std::size_t number) const {
  const Array& a = arrays_[number];
  return buffer_.view(a.dtype, a.shape(capacity_), a.offset);
}

}  // namespace grist::parallel
