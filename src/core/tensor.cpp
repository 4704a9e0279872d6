#include "grist/core/tensor.h"

#include "grist/core/check.h"

namespace grist {

std::size_t size_of(DType dtype) {
  switch (dtype) {
    case DType::f32: return 4;
    case DType::bf16: return 2;
    case DType::f64: return 8;
    case DType::i32: return 4;
    case DType::i64: return 8;
    case DType::u8: return 1;
  }
  return 0;
}

const char* name_of(DType dtype) {
  switch (dtype) {
    case DType::f32: return "f32";
    case DType::bf16: return "bf16";
    case DType::f64: return "f64";
    case DType::i32: return "i32";
    case DType::i64: return "i64";
    case DType::u8: return "u8";
  }
  return "?";
}

Shape::Shape(std::initializer_list<std::int64_t> extents) {
  for (const std::int64_t e : extents) append(e);
}

void Shape::append(std::int64_t extent) {
  GRIST_CHECK(rank_ < kMaxRank, "a tensor has at most {} dims", kMaxRank);
  GRIST_CHECK(extent >= 0, "negative extent {}", extent);
  extents_[static_cast<std::size_t>(rank_++)] = extent;
}

std::int64_t Shape::numel() const {
  std::int64_t n = 1;
  for (int i = 0; i < rank_; ++i) n *= (*this)[i];
  return n;
}

std::string Shape::str() const {
  std::string s = "(";
  for (int i = 0; i < rank_; ++i) s += (i == 0 ? "" : ", ") + std::to_string((*this)[i]);
  return s + ")";
}

bool Shape::operator==(const Shape& other) const {
  if (rank_ != other.rank_) return false;
  for (int i = 0; i < rank_; ++i) {
    if ((*this)[i] != other[i]) return false;
  }
  return true;
}

void wrong_dtype(DType have, DType want) {
  fail(ExitCode::internal, "tensor is {}, {} was asked for", name_of(have), name_of(want));
}

namespace {

template <class View> View reshaped(View v, const Shape& shape) {
  GRIST_CHECK(v.shape.numel() == shape.numel(), "cannot view {} as {}", v.shape.str(), shape.str());
  v.shape = shape;
  return v;
}

template <class View, class Byte> View row_range(View v, std::int64_t begin, std::int64_t end) {
  GRIST_CHECK(v.shape.rank() > 0 && 0 <= begin && begin <= end && end <= v.shape[0],
              "rows [{}, {}) of {}", begin, end, v.shape.str());
  const std::int64_t row = v.shape[0] == 0 ? 0 : v.shape.numel() / v.shape[0];
  v.data = static_cast<Byte*>(v.data) + static_cast<std::size_t>(begin * row) * size_of(v.dtype);
  v.shape[0] = end - begin;
  return v;
}

}  // namespace

TensorView reshape(const TensorView& v, const Shape& shape) {
  return reshaped(v, shape);
}
ConstTensorView reshape(const ConstTensorView& v, const Shape& shape) {
  return reshaped(v, shape);
}
TensorView rows(const TensorView& v, std::int64_t begin, std::int64_t end) {
  return row_range<TensorView, std::byte>(v, begin, end);
}
ConstTensorView rows(const ConstTensorView& v, std::int64_t begin, std::int64_t end) {
  return row_range<ConstTensorView, const std::byte>(v, begin, end);
}

}  // namespace grist
