#include "data/mixing.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

namespace weft {
namespace {

constexpr std::int64_t kSide = 8;
constexpr std::size_t kPixels = 3 * kSide * kSide;

TEST(Mixing, MixupSumsBothPictures) {
  std::vector<float> a(kPixels), b(kPixels);
  std::iota(a.begin(), a.end(), 0.0F);
  std::iota(b.begin(), b.end(), 500.0F);
  mix_pair({.lambda = 0.75}, kSide, a, b);
  for (std::size_t i = 0; i < kPixels; ++i) {  // quarters of small integers are exact
    EXPECT_EQ(a[i], 0.75F * static_cast<float>(i) + 0.25F * static_cast<float>(500 + i));
    EXPECT_EQ(b[i], 0.75F * static_cast<float>(500 + i) + 0.25F * static_cast<float>(i));
  }
}

TEST(Mixing, CutmixSwapsTheBox) {
  std::vector<float> a(kPixels, 1), b(kPixels, 2);
  mix_pair({.lambda = 0.9, .box = {.y = 2, .x = 5, .height = 3, .width = 2}}, kSide, a, b);
  for (std::int64_t i = 0; i < static_cast<std::int64_t>(kPixels); ++i) {
    const std::int64_t y = i / kSide % kSide;
    const std::int64_t x = i % kSide;
    const bool inside = y >= 2 && y < 5 && x >= 5 && x < 7;
    EXPECT_EQ(a[static_cast<std::size_t>(i)], inside ? 2 : 1);
    EXPECT_EQ(b[static_cast<std::size_t>(i)], inside ? 1 : 2);
  }
}

TEST(Mixing, TargetsTellTheShares) {
  std::vector<float> target(4);
  fill_target(target, 2, 2, 1, 0);
  EXPECT_EQ(target, (std::vector<float>{0, 0, 1, 0}));
  fill_target(target, 2, 0, 0.75, 0);
  EXPECT_EQ(target, (std::vector<float>{0.25F, 0, 0.75F, 0}));
  fill_target(target, 2, 2, 0.75, 0);
  EXPECT_EQ(target, (std::vector<float>{0, 0, 1, 0}));
  fill_target(target, 1, 3, 0.5, 0.2);  // 0.2 / 4 each, and 0.8 shared by two
  for (const auto& [c, expected] : {std::pair(0U, 0.05F), {1U, 0.45F}, {2U, 0.05F}, {3U, 0.45F}}) {
    EXPECT_NEAR(target[c], expected, 1e-7F);  // an addition in f32
  }
}

TEST(Mixing, DrawsAsConfigured) {
  constexpr int kDraws = 4000;
  struct Counts {
    int none = 0, mixup = 0, cutmix = 0;
  };
  const auto count = [](const Augment& how) {
    Counts counts;
    for (std::uint64_t i = 0; i < kDraws; ++i) {
      Random random({i});
      const Mix mix = draw_mix(how, 32, random);
      EXPECT_TRUE(mix.lambda >= 0 && mix.lambda <= 1);
      if (mix.box.width > 0) {
        EXPECT_TRUE(mix.box.y >= 0 && mix.box.x >= 0 && mix.box.y + mix.box.height <= 32 &&
                    mix.box.x + mix.box.width <= 32);
        EXPECT_DOUBLE_EQ(mix.lambda, 1 - static_cast<double>(mix.box.height * mix.box.width) / 1024);
      }
      ++(mix.lambda == 1 ? counts.none : mix.box.width > 0 ? counts.cutmix : counts.mixup);
    }
    return counts;
  };
  EXPECT_EQ(count({}).none, kDraws);
  EXPECT_EQ(count({.mixup = 0.8}).mixup, kDraws);
  const Counts cut = count({.cutmix = 1});
  EXPECT_EQ(cut.mixup, 0);
  EXPECT_LT(cut.none, kDraws / 50);  // boxes of less than two pixels: λ above 1 − 4/1024
  const double deviation = std::sqrt(kDraws * 0.25);
  const Counts both = count({.mixup = 0.8, .cutmix = 1, .mixup_switch_prob = 0.5});
  EXPECT_NEAR(both.mixup, kDraws / 2, 5 * deviation);
  const Counts seldom = count({.mixup = 0.8, .mixup_prob = 0.25});
  EXPECT_NEAR(seldom.mixup, kDraws / 4, 5 * deviation);
  EXPECT_EQ(seldom.mixup + seldom.none, kDraws);
}

}  // namespace
}  // namespace weft
