#include "grist/core/tensor.h"

#include <gtest/gtest.h>

#include <vector>

#include "grist/core/error.h"

namespace grist {
namespace {

TEST(Shape, CountsAndPrints) {
  EXPECT_EQ(Shape{}.numel(), 1);
  EXPECT_EQ((Shape{3, 0, 5}).numel(), 0);
  EXPECT_EQ((Shape{3, 257}).str(), "(3, 257)");
  EXPECT_EQ((Shape{1LL << 20, 1LL << 20}).numel(), 1LL << 40);
  EXPECT_FALSE((Shape{3}) == (Shape{3, 1}));
  EXPECT_THROW((Shape{1, 2, 3, 4, 5, 6}), Error);
  EXPECT_THROW((Shape{-1}), Error);
}

TEST(TensorView, RefusesTheWrongType) {
  std::vector<float> x(6);
  const TensorView v{x.data(), DType::f32, {2, 3}};
  EXPECT_EQ(v.as<float>(), x.data());
  EXPECT_EQ(v.bytes(), 24U);
  EXPECT_THROW(v.as<double>(), Error);
  EXPECT_THROW(ConstTensorView(v).as<std::int32_t>(), Error);
  EXPECT_FALSE(static_cast<bool>(ConstTensorView()));
}

TEST(TensorView, RowsAndReshapeKeepTheBytes) {
  std::vector<float> x(24);
  const TensorView v{x.data(), DType::f32, {4, 3, 2}};
  const TensorView r = rows(v, 1, 3);
  EXPECT_EQ(r.shape, (Shape{2, 3, 2}));
  EXPECT_EQ(r.data, x.data() + 6);
  EXPECT_EQ(rows(ConstTensorView(v), 4, 4).numel(), 0);
  EXPECT_EQ(reshape(v, {24}).data, x.data());
  EXPECT_THROW(reshape(v, {23}), Error);
  EXPECT_THROW(rows(v, 3, 5), Error);
  EXPECT_THROW(rows(v, 3, 2), Error);
}

TEST(DType, HasSizesAndNames) {
  EXPECT_EQ(size_of(DType::bf16), 2U);
  EXPECT_EQ(size_of(DType::i64), 8U);
  EXPECT_STREQ(name_of(DType::bf16), "bf16");
  EXPECT_EQ(dtype_of<const double>(), DType::f64);
}

}  // namespace
}  // namespace grist
