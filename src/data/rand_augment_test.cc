#include "data/rand_augment.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>

#include "data/testing/pictures.h"

namespace weft {
namespace {

using Op = PictureOp;

TEST(RandAugment, LevelsMeanWhatTheyDoInTimm) {
  struct Case {
    Op op;
    double at9, at9_negative, at10, at9_increasing, at9_increasing_negative;
  };
  const std::vector<Case> cases = {
      {Op::kAutoContrast, 0, 0, 0, 0, 0},
      {Op::kEqualize, 0, 0, 0, 0, 0},
      {Op::kInvert, 0, 0, 0, 0, 0},
      {Op::kRotate, 27, -27, 30, 27, -27},
      {Op::kPosterize, 3, 3, 4, 1, 1},
      {Op::kSolarize, 230, 230, 256, 26, 26},
      {Op::kSolarizeAdd, 99, 99, 110, 99, 99},
      {Op::kColor, 1.72, 1.72, 1.9, 1.81, 0.19},
      {Op::kContrast, 1.72, 1.72, 1.9, 1.81, 0.19},
      {Op::kBrightness, 1.72, 1.72, 1.9, 1.81, 0.19},
      {Op::kSharpness, 1.72, 1.72, 1.9, 1.81, 0.19},
      {Op::kShearX, 0.27, -0.27, 0.3, 0.27, -0.27},
      {Op::kShearY, 0.27, -0.27, 0.3, 0.27, -0.27},
      {Op::kTranslateX, 0.405, -0.405, 0.45, 0.405, -0.405},
      {Op::kTranslateY, 0.405, -0.405, 0.45, 0.405, -0.405},
  };
  ASSERT_EQ(cases.size(), static_cast<std::size_t>(kPictureOps));
  for (const Case& c : cases) {
    SCOPED_TRACE(static_cast<int>(c.op));
    EXPECT_DOUBLE_EQ(argument_of(c.op, 9, false, false), c.at9);
    EXPECT_DOUBLE_EQ(argument_of(c.op, 9, false, true), c.at9_negative);
    EXPECT_DOUBLE_EQ(argument_of(c.op, 10, false, false), c.at10);
    EXPECT_DOUBLE_EQ(argument_of(c.op, 9, true, false), c.at9_increasing);
    EXPECT_DOUBLE_EQ(argument_of(c.op, 9, true, true), c.at9_increasing_negative);
  }
  EXPECT_DOUBLE_EQ(argument_of(Op::kColor, 10, true, true), 0.1);
}

TEST(RandAugment, AppliesEachOperation) {
  const Image image = testing::noise_picture(20, 30, 1);
  const Resampling how{.filter = Filter::kBilinear, .fill = {1, 2, 3}};
  EXPECT_EQ(apply(Op::kRotate, image, 27, how), rotate(image, 27, how));
  EXPECT_EQ(apply(Op::kShearX, image, 0.3, how), affine(image, {1, 0.3, 0, 0, 1, 0}, how));
  EXPECT_EQ(apply(Op::kShearY, image, 0.3, how), affine(image, {1, 0, 0, 0.3, 1, 0}, how));
  EXPECT_EQ(apply(Op::kTranslateX, image, 0.2, how), affine(image, {1, 0, 6, 0, 1, 0}, how));
  EXPECT_EQ(apply(Op::kTranslateY, image, 0.2, how), affine(image, {1, 0, 0, 0, 1, 4}, how));
  EXPECT_EQ(apply(Op::kSolarizeAdd, image, 99, how), solarize_add(image, 99));
  EXPECT_EQ(apply(Op::kSharpness, image, 1.5, how), adjust_sharpness(image, 1.5));
}

// Noise without the darkest and brightest values, so that every operation changes it.
Image dull_noise() {
  Image image = testing::noise_picture(24, 24, 3);
  for (std::uint8_t& pixel : image.pixels) pixel = static_cast<std::uint8_t>(10 + pixel * 5 / 6);
  return image;
}

TEST(RandAugment, DrawsAllOperationsEquallyOften) {
  const Image image = dull_noise();
  const std::array<std::uint8_t, 3> fill = {9, 8, 7};
  std::map<std::vector<std::uint8_t>, int> op_of;  // by what it makes of the picture
  for (int op = 0; op < kPictureOps; ++op) {
    for (const bool negative : {false, true}) {
      const double argument = argument_of(static_cast<Op>(op), 9, true, negative);
      const auto made = apply(static_cast<Op>(op), image, argument, {.filter = Filter::kBicubic, .fill = fill});
      const auto [place, fresh] = op_of.emplace(made.pixels, op);
      EXPECT_TRUE(fresh || place->second == op) << "two operations make the same";
      EXPECT_NE(made, image) << op;
    }
  }
  constexpr int kDraws = 3000;
  std::vector<int> counts(kPictureOps);
  int unchanged = 0;
  for (std::uint64_t i = 0; i < kDraws; ++i) {
    Random random({i});
    const Image out = rand_augment(image, {.ops = 1, .probability = 0.5, .std = 0}, fill, random);
    if (out == image) {
      ++unchanged;
    } else {
      ASSERT_TRUE(op_of.contains(out.pixels));
      ++counts[static_cast<std::size_t>(op_of.at(out.pixels))];
    }
  }
  // Five standard deviations of binomial counts.
  EXPECT_NEAR(unchanged, kDraws / 2, 5 * std::sqrt(kDraws * 0.25));
  for (const int count : counts) EXPECT_NEAR(count, kDraws / 30, 5 * std::sqrt(kDraws / 30.0));
}

TEST(RandAugment, VariesTheMagnitude) {
  const Image image = dull_noise();
  std::set<std::vector<std::uint8_t>> seen[2];
  for (std::uint64_t i = 0; i < 300; ++i) {
    for (const bool noisy : {false, true}) {
      Random random({i});
      seen[noisy ? 1 : 0].insert(
          rand_augment(image, {.ops = 1, .probability = 1, .std = noisy ? 0.5 : 0}, {}, random).pixels);
    }
  }
  EXPECT_LE(seen[0].size(), 24U);  // 9 operations go either way, 6 do not
  EXPECT_GT(seen[1].size(), 100U);
}

}  // namespace
}  // namespace weft
