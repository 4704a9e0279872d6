#pragma once
// Views of dense row-major tensors. A view never owns; what it points into must outlive it. Pass
// TensorView for outputs, ConstTensorView for inputs, both by value.
#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <type_traits>

namespace grist {

enum class DType : std::uint8_t { f32, bf16, f64, i32, i64, u8 };

std::size_t size_of(DType dtype);
const char* name_of(DType dtype);  // "f32", ...

struct Bf16 {  // storage only
  std::uint16_t bits;
};

template <class T> constexpr DType dtype_of() {
  using U = std::remove_const_t<T>;
  if constexpr (std::is_same_v<U, float>)
    return DType::f32;
  else if constexpr (std::is_same_v<U, Bf16>)
    return DType::bf16;
  else if constexpr (std::is_same_v<U, double>)
    return DType::f64;
  else if constexpr (std::is_same_v<U, std::int32_t>)
    return DType::i32;
  else if constexpr (std::is_same_v<U, std::int64_t>)
    return DType::i64;
  else {
    static_assert(std::is_same_v<U, std::uint8_t> || std::is_same_v<U, std::byte>,
                  "no DType for this type");
    return DType::u8;
  }
}

// Extents, outermost first. At most five; an empty Shape is a scalar with one element.
class Shape {
 public:
  static constexpr int kMaxRank = 5;
  Shape() = default;
  Shape(std::initializer_list<std::int64_t> extents);
  int rank() const { return rank_; }
  std::int64_t operator[](int dim) const { return extents_[static_cast<std::size_t>(dim)]; }
  std::int64_t& operator[](int dim) { return extents_[static_cast<std::size_t>(dim)]; }
  std::int64_t numel() const;
  std::string str() const;  // "(3, 257)"
  void append(std::int64_t extent);
  bool operator==(const Shape& other) const;

 private:
  std::array<std::int64_t, kMaxRank> extents_{};
  int rank_ = 0;
};

[[noreturn]] void wrong_dtype(DType have, DType want);  // throws Error{internal}

struct TensorView {
  void* data = nullptr;
  DType dtype = DType::f32;
  Shape shape;

  template <class T> T* as() const {
    if (dtype != dtype_of<T>()) wrong_dtype(dtype, dtype_of<T>());
    return static_cast<T*>(data);
  }
  explicit operator bool() const { return data != nullptr; }
  std::int64_t numel() const { return shape.numel(); }
  std::size_t bytes() const { return static_cast<std::size_t>(shape.numel()) * size_of(dtype); }
};

struct ConstTensorView {
  const void* data = nullptr;
  DType dtype = DType::f32;
  Shape shape;

  ConstTensorView() = default;
  ConstTensorView(const void* d, DType t, const Shape& s) : data(d), dtype(t), shape(s) {}
  ConstTensorView(const TensorView& v)
      : data(v.data), dtype(v.dtype), shape(v.shape) {}  // NOLINT: an input view of an output

  template <class T> const T* as() const {
    if (dtype != dtype_of<T>()) wrong_dtype(dtype, dtype_of<T>());
    return static_cast<const T*>(data);
  }
  explicit operator bool() const { return data != nullptr; }
  std::int64_t numel() const { return shape.numel(); }
  std::size_t bytes() const { return static_cast<std::size_t>(shape.numel()) * size_of(dtype); }
};

// The same bytes under another shape of equal size.
TensorView reshape(const TensorView& v, const Shape& shape);
ConstTensorView reshape(const ConstTensorView& v, const Shape& shape);
// Rows [begin, end) of the outermost dim.
TensorView rows(const TensorView& v, std::int64_t begin, std::int64_t end);
ConstTensorView rows(const ConstTensorView& v, std::int64_t begin, std::int64_t end);

}  // namespace grist
