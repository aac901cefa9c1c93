#include <gtest/gtest.h>

#include <cmath>

#include "weft/image.h"

namespace weft {
namespace {

/// Every pixel tells where it is: (y, x, 0).
Image grid(std::int64_t height, std::int64_t width) {
  Image image{height, width, 3, {}};
  for (std::int64_t y = 0; y < height; ++y) {
    for (std::int64_t x = 0; x < width; ++x) {
      for (const std::int64_t value : {y, x, std::int64_t{0}}) image.pixels.push_back(static_cast<std::uint8_t>(value));
    }
  }
  return image;
}

struct Origin {
  int y, x;
  bool operator==(const Origin&) const = default;
};
Origin origin(const Image& image) { return {image.pixels[0], image.pixels[1]}; }

TEST(CenterCrop, RoundsHalvesToEven) {
  // int(round((n - crop) / 2)) of Python: 0.5 → 0, 1.5 → 2, 2.5 → 2, 3.5 → 4.
  EXPECT_EQ(origin(center_crop(grid(11, 13), 10, 10)), (Origin{0, 2}));
  EXPECT_EQ(origin(center_crop(grid(15, 17), 10, 10)), (Origin{2, 4}));
  EXPECT_EQ(origin(center_crop(grid(14, 10), 10, 10)), (Origin{2, 0}));
}

TEST(CenterCrop, PadsWithZerosMoreBelowAndRight) {
  const Image flat{2, 3, 1, std::vector<std::uint8_t>(6, 7)};
  EXPECT_EQ(center_crop(flat, 5, 4).pixels, (std::vector<std::uint8_t>{0, 0, 0, 0,  // (5 − 2) / 2 = 1 above
                                                                       7, 7, 7, 0,  // (4 − 3) / 2 = 0 left
                                                                       7, 7, 7, 0,  //
                                                                       0, 0, 0, 0,  //
                                                                       0, 0, 0, 0}));
  // One axis padded, the other cut.
  EXPECT_EQ(center_crop(flat, 4, 1).pixels, (std::vector<std::uint8_t>{0, 7, 7, 0}));
  EXPECT_THROW((void)center_crop(flat, 0, 1), ShapeError);
}

TEST(Prepare, ScalesTheShorterSideAndTruncatesTheLonger) {
  const auto size = [](std::int64_t height, std::int64_t width, std::int64_t shorter) {
    const Image out = prepare(grid(height, width), {.resize = shorter, .crop = 0});
    return std::pair(out.height, out.width);
  };
  EXPECT_EQ(size(61, 97, 24), std::pair(24L, 38L));  // 24 · 97 / 61 = 38.16
  EXPECT_EQ(size(97, 61, 24), std::pair(38L, 24L));
  EXPECT_EQ(size(30, 59, 20), std::pair(20L, 39L));  // 39.33
  EXPECT_EQ(size(3, 5, 2), std::pair(2L, 3L));       // 3.33
  EXPECT_EQ(size(20, 20, 7), std::pair(7L, 7L));
}

TEST(Prepare, LeavesAPictureOfTheRightSizeAlone) {
  const Image image = grid(24, 40);
  EXPECT_EQ(prepare(image, {.resize = 24, .crop = 0}), image);
  EXPECT_EQ(prepare(image, Preprocess{}.any_size()), image);
}

TEST(Prepare, CropsWithoutMakingTheWholeStrip) {
  // At the shorter side 256 the whole strip would be 16 million pixels long.
  const Image strip{1, 65535, 3, std::vector<std::uint8_t>(65535 * 3, 99)};
  EXPECT_EQ(prepare(strip, {}).pixels, std::vector<std::uint8_t>(224 * 224 * 3, 99));
  EXPECT_THROW((void)prepare(strip, {.resize = 4096, .crop = 0}), ShapeError);
}

TEST(Prepare, EqualsResizeThenCrop) {
  const Image image = grid(200, 131);
  for (const Filter filter : {Filter::kNearest, Filter::kBilinear, Filter::kBicubic}) {
    for (const std::int64_t crop : {20, 64, 91}) {
      const Preprocess how{.resize = 64, .crop = crop, .filter = filter};
      EXPECT_EQ(prepare(image, how), center_crop(resize(image, 64 * 200 / 131, 64, filter), crop, crop));
    }
  }
}

TEST(Prepare, RefusesWhatMakesNoSense) {
  EXPECT_THROW((void)prepare({2, 2, 1, std::vector<std::uint8_t>(4)}, {}), ShapeError);
  EXPECT_THROW((void)prepare(grid(4, 4), {.resize = -1}), ConfigError);
  EXPECT_THROW((void)prepare(grid(4, 4), {.crop = -1}), ConfigError);
  EXPECT_THROW((void)prepare(grid(4, 4), {.std = {1, 0, 1}}), ConfigError);
  EXPECT_THROW((void)prepare(grid(4, 4), {.mean = {NAN, 0, 1}}), ConfigError);
}

TEST(ToInput, NormalisesPerChannelIntoPlanes) {
  Preprocess how;
  how.resize = 0;
  how.crop = 0;
  const std::vector<Image> images = {{1, 2, 3, {0, 1, 2, 255, 254, 253}}, {1, 2, 3, {10, 20, 30, 40, 50, 60}}};
  const Tensor input = to_input(images, how);
  ASSERT_EQ(input.shape(), (Shape{2, 3, 1, 2}));
  const auto data = input.data<float>();
  std::size_t at = 0;
  for (const Image& image : images) {
    for (std::size_t c = 0; c < 3; ++c) {
      for (std::size_t x = 0; x < 2; ++x) {
        EXPECT_EQ(data[at++], (static_cast<float>(image.pixels[x * 3 + c]) - how.mean[c]) / how.std[c]);
      }
    }
  }
}

TEST(ToInput, NeedsPicturesOfOneSize) {
  const std::vector<Image> images = {grid(40, 50), grid(50, 40)};
  EXPECT_EQ(to_input(images, {.resize = 32, .crop = 28}).shape(), (Shape{2, 3, 28, 28}));
  EXPECT_THROW((void)to_input(images, Preprocess{}.any_size()), ShapeError);
  EXPECT_THROW((void)to_input({}, {}), ShapeError);
}

TEST(Filter, NamesGoBothWays) {
  for (const std::string_view name : {"nearest", "box", "bilinear", "bicubic", "lanczos"}) {
    EXPECT_EQ(name_of(parse_filter(name)), name);
  }
  EXPECT_THROW((void)parse_filter("Bicubic"), ConfigError);
}

}  // namespace
}  // namespace weft
