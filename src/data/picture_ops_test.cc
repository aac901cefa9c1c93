// Expected values are computed by hand from Pillow's definitions.
#include "data/picture_ops.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "data/testing/pictures.h"

namespace weft {
namespace {

using testing::noise_picture;

// A grey picture with these rows.
Image grey_picture(const std::vector<std::vector<int>>& rows) {
  Image image{static_cast<std::int64_t>(rows.size()), static_cast<std::int64_t>(rows[0].size()), 3, {}};
  for (const auto& row : rows) {
    for (const int value : row) image.pixels.insert(image.pixels.end(), 3, static_cast<std::uint8_t>(value));
  }
  return image;
}

Image colors(std::vector<std::uint8_t> pixels) {
  return {1, static_cast<std::int64_t>(pixels.size() / 3), 3, std::move(pixels)};
}

using Bytes = std::vector<std::uint8_t>;

TEST(PictureOps, AutoContrastStretchesEachChannel) {
  // Red 100 … 151: (x − 100) · 5. Green is constant and stays. Blue spans all and stays.
  EXPECT_EQ(auto_contrast(colors({100, 9, 0, 110, 9, 77, 151, 9, 255})).pixels,
            (Bytes{0, 9, 0, 50, 9, 77, 255, 9, 255}));
  // 3 … 10: (7 − 3) · 255/7 = 145.7, cut off.
  EXPECT_EQ(auto_contrast(grey_picture({{3, 7, 10}})), grey_picture({{0, 145, 255}}));
}

TEST(PictureOps, EqualizeFlattensTheHistogram) {
  // 512 · 10, 256 · 20, 256 · 30: step (1024 − 256) / 255 = 3, from 3 / 2 = 1: 1/3 = 0, 513/3 = 171, 769/3 = 256 → 255.
  std::vector<std::vector<int>> rows(4, std::vector<int>(256, 10));
  std::vector<std::vector<int>> flat(4, std::vector<int>(256, 0));
  rows[1].assign(256, 30);
  flat[1].assign(256, 255);
  rows[2].assign(256, 20);
  flat[2].assign(256, 171);
  EXPECT_EQ(equalize(grey_picture(rows)), grey_picture(flat));
  // Too few pixels for a step, or one value only.
  EXPECT_EQ(equalize(grey_picture({{1, 2, 3}})), grey_picture({{1, 2, 3}}));
  const Image constant = grey_picture(std::vector<std::vector<int>>(30, std::vector<int>(30, 7)));
  EXPECT_EQ(equalize(constant), constant);
}

TEST(PictureOps, TablesOfValues) {
  const Image image = grey_picture({{0, 37, 127, 128, 255}});
  EXPECT_EQ(invert(image), grey_picture({{255, 218, 128, 127, 0}}));
  EXPECT_EQ(posterize(image, 3), grey_picture({{0, 32, 96, 128, 224}}));
  EXPECT_EQ(posterize(image, 0), grey_picture({{0, 0, 0, 0, 0}}));
  EXPECT_EQ(posterize(image, 8), image);
  EXPECT_EQ(solarize(image, 128), grey_picture({{0, 37, 127, 127, 0}}));
  EXPECT_EQ(solarize(image, 26), grey_picture({{0, 218, 128, 127, 0}}));
  EXPECT_EQ(solarize(image, 256), image);
  EXPECT_EQ(solarize_add(image, 99), grey_picture({{99, 136, 226, 128, 255}}));
  EXPECT_EQ(solarize_add(image, 140), grey_picture({{140, 177, 255, 128, 255}}));
}

TEST(PictureOps, ColorBlendsWithGrey) {
  // Luma of (200, 100, 50): (200·19595 + 100·38470 + 50·7471 + 2^15) / 2^16 = 124.7, cut off.
  const Image image = colors({200, 100, 50});
  EXPECT_EQ(adjust_color(image, 0).pixels, (Bytes{124, 124, 124}));
  EXPECT_EQ(adjust_color(image, 0.5).pixels, (Bytes{162, 112, 87}));
  EXPECT_EQ(adjust_color(image, 1), image);
  EXPECT_EQ(adjust_color(image, 1.9).pixels, (Bytes{255, 78, 0}));  // 268.4, 78.4, −16.6
}

TEST(PictureOps, ContrastBlendsWithTheMeanGrey) {
  const Image image = colors({200, 100, 50, 0, 0, 0});  // luma 124 and 0: 62
  EXPECT_EQ(adjust_contrast(image, 0.5).pixels, (Bytes{131, 81, 56, 31, 31, 31}));
  EXPECT_EQ(adjust_contrast(image, 1.5).pixels, (Bytes{255, 119, 44, 0, 0, 0}));  // 269, 119, 44, −31
  EXPECT_EQ(adjust_contrast(colors({200, 100, 50, 1, 1, 1}), 0).pixels, Bytes(6, 63)) << "62.5 rounds up";
}

TEST(PictureOps, BrightnessBlendsWithBlack) {
  const Image image = grey_picture({{200, 51, 0}});
  EXPECT_EQ(adjust_brightness(image, 0.5), grey_picture({{100, 25, 0}}));
  EXPECT_EQ(adjust_brightness(image, 1.5), grey_picture({{255, 76, 0}}));
}

TEST(PictureOps, SharpnessBlendsWithTheSmoothedPicture) {
  // In the middle (8·10 + 5·100) / 13 = 44.6: 45. The border stays.
  const Image image = grey_picture({{10, 10, 10}, {10, 100, 10}, {10, 10, 10}});
  const auto middle = [](int value) { return grey_picture({{10, 10, 10}, {10, value, 10}, {10, 10, 10}}); };
  EXPECT_EQ(adjust_sharpness(image, 0), middle(45));
  EXPECT_EQ(adjust_sharpness(image, 0.5), middle(72));
  EXPECT_EQ(adjust_sharpness(image, 2), middle(155));
  EXPECT_EQ(adjust_sharpness(grey_picture({{1, 9}}), 0), grey_picture({{1, 9}})) << "nothing but border";
}

constexpr Resampling kBilinear{.filter = Filter::kBilinear, .fill = {7, 7, 7}};
constexpr Resampling kBicubic{.filter = Filter::kBicubic, .fill = {7, 7, 7}};

TEST(PictureOps, AffineMovesByWholePixels) {
  const Image image = noise_picture(6, 9, 1);
  for (const Resampling& how : {kBilinear, kBicubic}) {
    EXPECT_EQ(affine(image, {1, 0, 0, 0, 1, 0}, how), image);
    const Image moved = affine(image, {1, 0, 2, 0, 1, -1}, how);
    for (std::int64_t y = 0; y < 6; ++y) {
      for (std::int64_t x = 0; x < 27; ++x) {
        const bool inside = x < 21 && y >= 1;
        const int expected = inside ? image.pixels[static_cast<std::size_t>((y - 1) * 27 + x + 6)] : 7;
        EXPECT_EQ(moved.pixels[static_cast<std::size_t>(y * 27 + x)], expected);
      }
    }
  }
}

TEST(PictureOps, AffineInterpolates) {
  // Half a pixel to the right of each centre; the last lies at the border, which is outside.
  const Image row = grey_picture({{10, 20, 40, 80}});
  EXPECT_EQ(affine(row, {1, 0, 0.5, 0, 1, 0}, kBilinear), grey_picture({{15, 30, 60, 7}}));
  // v1 + d(−v0 + v2 + d(2(v0 − v1) + v2 − v3 + d(−v0 + v1 − v2 + v3))) at d = ½: 12.5, 26.25, 62.5, the first with v0 =
  // v1 and the third with v3 = v2 where the picture ends.
  EXPECT_EQ(affine(row, {1, 0, 0.5, 0, 1, 0}, kBicubic), grey_picture({{12, 26, 62, 7}}));
  const Image column = grey_picture({{10}, {20}, {40}, {80}});
  EXPECT_EQ(affine(column, {1, 0, 0, 0, 1, 0.5}, kBilinear), grey_picture({{15}, {30}, {60}, {7}}));
  EXPECT_EQ(affine(column, {1, 0, 0, 0, 1, 0.5}, kBicubic), grey_picture({{12}, {26}, {62}, {7}}));
  // Sheared by one: row y is seen y + ½ further right.
  EXPECT_EQ(affine(grey_picture({{10, 20, 40}, {10, 20, 40}}), {1, 1, 0, 0, 1, 0}, kBilinear),
            grey_picture({{15, 30, 7}, {30, 7, 7}}));
  // Bicubic overshoot is cut off.
  const Image edge = affine(grey_picture({{0, 0, 255, 255}}), {1, 0, 0.25, 0, 1, 0}, kBicubic);
  EXPECT_EQ(edge.pixels[0], 0);
  EXPECT_EQ(edge.pixels[6], 255);
}

TEST(PictureOps, RotateTurnsCounterClockwise) {
  const Image image = noise_picture(5, 5, 2);
  const auto at = [](const Image& of, std::int64_t y, std::int64_t x) {
    return of.pixels[static_cast<std::size_t>((y * 5 + x) * 3)];
  };
  for (const Resampling& how : {kBilinear, kBicubic}) {
    EXPECT_EQ(rotate(image, 0, how), image);
    EXPECT_EQ(rotate(image, -360, how), image);
    const Image quarter = rotate(image, 90, how);
    const Image back = rotate(image, -90, how);
    const Image half = rotate(image, 180, how);
    for (std::int64_t y = 0; y < 5; ++y) {
      for (std::int64_t x = 0; x < 5; ++x) {
        EXPECT_EQ(at(quarter, y, x), at(image, x, 4 - y));
        EXPECT_EQ(at(back, y, x), at(image, 4 - x, y));
        EXPECT_EQ(at(half, y, x), at(image, 4 - y, 4 - x));
      }
    }
    const Image eighth = rotate(image, 45, how);
    EXPECT_EQ(at(eighth, 0, 0), 7);
    EXPECT_EQ(at(eighth, 4, 4), 7);
    EXPECT_EQ(at(eighth, 2, 2), at(image, 2, 2));
  }
}

}  // namespace
}  // namespace weft
