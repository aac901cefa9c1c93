#include "weft/tensor.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/half.h"

namespace weft {
namespace {

TEST(Shape, CountsElementsAndIndexesFromBothEnds) {
  const Shape shape{2, 3, 5};
  EXPECT_EQ(shape.elements(), 30);
  EXPECT_EQ(shape[0], 2);
  EXPECT_EQ(shape[-1], 5);
  EXPECT_EQ(shape.str(), "[2,3,5]");
  EXPECT_EQ(Shape{}.elements(), 1);
  EXPECT_EQ((Shape{std::int64_t{1} << 62, 4, 0}).elements(), 0);
  EXPECT_THROW((void)shape[3], ShapeError);
}

TEST(Shape, RefusesNegativeAndOverflowingExtents) {
  EXPECT_THROW((Shape{2, -1}), ShapeError);
  EXPECT_THROW((Shape{std::int64_t{1} << 40, std::int64_t{1} << 40}), ShapeError);
  EXPECT_THROW(Tensor(DType::kF64, Shape{std::int64_t{1} << 61}), ShapeError);
}

TEST(Tensor, CopiesShareStorageAndClonesDoNot) {
  Tensor a = Tensor::zeros({DType::kF32, {4}});
  Tensor b = a;
  Tensor c = a.clone();
  a.mutable_data<float>()[2] = 7;
  EXPECT_EQ(b.data<float>()[2], 7);
  EXPECT_EQ(c.data<float>()[2], 0);
  EXPECT_THROW((void)a.data<double>(), ShapeError);
  EXPECT_THROW((void)a.reshaped({5}), ShapeError);
}

TEST(Tensor, BorrowedStorageIsReadOnly) {
  const float values[2] = {1, 2};
  Tensor t = Tensor::borrow({DType::kF32, {2}}, reinterpret_cast<const std::byte*>(values), nullptr);
  EXPECT_EQ(t.data<float>()[1], 2);
  EXPECT_THROW((void)t.mutable_raw(), Error);
}

TEST(Tensor, EveryHalfSurvivesTheWayThroughFloat) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const Half half{static_cast<std::uint16_t>(bits)};
    if ((bits & 0x7C00U) == 0x7C00U && (bits & 0x3FFU) != 0) {
      EXPECT_TRUE(std::isnan(to_float(half)));
      EXPECT_TRUE(std::isnan(to_float(to_half(to_float(half)))));
    } else {
      EXPECT_EQ(to_half(to_float(half)).bits, half.bits);
    }
    const BFloat16 brain{static_cast<std::uint16_t>(bits)};
    if (!std::isnan(to_float(brain))) {
      EXPECT_EQ(to_bfloat16(to_float(brain)).bits, brain.bits);
    }
  }
}

TEST(Tensor, HalfRoundsToNearestEven) {
  EXPECT_EQ(to_float(to_half(1.0F + 0x1p-11F)), 1.0F);                // tie, even below
  EXPECT_EQ(to_float(to_half(1.0F + 3 * 0x1p-11F)), 1.0F + 0x1p-9F);  // tie, even above
  EXPECT_EQ(to_float(to_half(65519.0F)), 65504.0F);
  EXPECT_TRUE(std::isinf(to_float(to_half(65520.0F))));
  EXPECT_EQ(to_float(to_half(0x1p-25F)), 0.0F);
  EXPECT_EQ(to_float(to_half(0x1.8p-25F)), 0x1p-24F);
  EXPECT_EQ(to_float(to_bfloat16(1.0F + 0x1p-8F)), 1.0F);
}

TEST(Tensor, ConvertsBetweenTypesAndSaturates) {
  const float values[4] = {-1.5F, 300.0F, std::numeric_limits<float>::quiet_NaN(), 0.0F};
  const Tensor t = Tensor::of(values, {4});
  const Tensor u8 = t.to(DType::kU8);
  EXPECT_EQ(u8.data<std::uint8_t>()[0], 0);
  EXPECT_EQ(u8.data<std::uint8_t>()[1], 255);
  EXPECT_EQ(u8.data<std::uint8_t>()[2], 0);
  EXPECT_EQ(t.to(DType::kF64).data<double>()[0], -1.5);
  EXPECT_EQ(t.to(DType::kBool).to(DType::kF32).data<float>()[1], 1.0F);
}

}  // namespace
}  // namespace weft
