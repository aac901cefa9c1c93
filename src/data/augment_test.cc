#include "data/augment.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "core/options.h"
#include "data/testing/pictures.h"
#include "io/testing/files.h"

namespace weft {
namespace {

using testing::noise_picture;
using testing::refuses;

Preprocess small(std::int64_t side) {
  return {.resize = 0, .crop = side, .mean = {125, 120, 110}, .std = {60, 61, 62}};
}

Image flipped(const Image& image) {
  Image out = image;
  for (std::int64_t y = 0; y < image.height; ++y) {
    for (std::int64_t x = 0; x < image.width; ++x) {
      for (std::int64_t c = 0; c < 3; ++c) {
        out.pixels[static_cast<std::size_t>((y * image.width + x) * 3 + c)] =
            image.pixels[static_cast<std::size_t>((y * image.width + image.width - 1 - x) * 3 + c)];
      }
    }
  }
  return out;
}

// The picture moved down and to the right, black where it left.
Image moved(const Image& image, std::int64_t down, std::int64_t right) {
  Image out{image.height, image.width, 3, std::vector<std::uint8_t>(image.pixels.size())};
  for (std::int64_t y = 0; y < image.height; ++y) {
    for (std::int64_t x = 0; x < image.width; ++x) {
      if (y - down < 0 || y - down >= image.height || x - right < 0 || x - right >= image.width) continue;
      for (std::int64_t c = 0; c < 3; ++c) {
        out.pixels[static_cast<std::size_t>((y * image.width + x) * 3 + c)] =
            image.pixels[static_cast<std::size_t>(((y - down) * image.width + x - right) * 3 + c)];
      }
    }
  }
  return out;
}

TEST(Augmenter, WithoutAugmentationEqualsInference) {
  const Image image = noise_picture(40, 50, 1);
  const Preprocess how{.resize = 36, .crop = 32, .mean = {1, 2, 3}, .std = {4, 5, 6}};
  const Augmenter augmenter({}, how);
  std::vector<float> out(3 * 32 * 32);
  Random random({1});
  augmenter.input(image, random, out);
  const Tensor expected = to_input(std::span(&image, 1), how);
  EXPECT_TRUE(std::ranges::equal(out, expected.data<float>()));
}

TEST(Augmenter, PadsAndCropsToEveryPlaceAndFlips) {
  for (const std::int64_t side : {7, 8}) {
    const Image image = noise_picture(side, side, 2);
    const Augmenter augmenter({.crop = Crop::kPad, .padding = 2, .hflip = 0.5}, small(side));
    std::map<std::array<std::int64_t, 3>, int> counts;
    constexpr int kDraws = 5000;
    for (std::uint64_t i = 0; i < kDraws; ++i) {
      Random random({i});
      const Image out = augmenter.pixels(image, random);
      bool found = false;
      for (std::int64_t down = -2; down <= 2; ++down) {
        for (std::int64_t right = -2; right <= 2; ++right) {
          const Image expected = moved(image, down, right);
          if (out == expected) found = true, ++counts[{down, right, 0}];
          if (out == flipped(expected)) found = true, ++counts[{down, right, 1}];
        }
      }
      ASSERT_TRUE(found);
    }
    ASSERT_EQ(counts.size(), 50U);
    // 100 of each are expected; five standard deviations of a binomial count.
    for (const auto& [place, count] : counts) EXPECT_NEAR(count, 100, 5 * std::sqrt(100.0));
  }
}

TEST(Augmenter, PaddingWiderThanThePictureMayShowNothing) {
  const Image image = noise_picture(4, 4, 3);
  const Augmenter augmenter({.crop = Crop::kPad, .padding = 9}, small(4));
  bool black = false;
  for (std::uint64_t i = 0; i < 100; ++i) {
    Random random({i});
    const Image out = augmenter.pixels(image, random);
    black = black || std::ranges::all_of(out.pixels, [](std::uint8_t p) { return p == 0; });
  }
  EXPECT_TRUE(black);
}

TEST(Augmenter, SmallerPicturesAreFramed) {
  // 28 × 28 digits for a model of 32 × 32, by zero padding and by resizing.
  const Image image = noise_picture(28, 28, 4);
  Random random({1});
  const Image padded = Augmenter({}, {.resize = 0, .crop = 32}).pixels(image, random);
  EXPECT_EQ(padded, center_crop(image, 32, 32));
  const Image resized = Augmenter({}, {.resize = 32, .crop = 32, .filter = Filter::kBilinear}).pixels(image, random);
  EXPECT_EQ(resized, resize(image, 32, 32, Filter::kBilinear));
}

// A picture whose red and green tell the place, smooth enough for a resized part to be recognised.
Image place_picture(std::int64_t height, std::int64_t width) {
  Image image{height, width, 3, {}};
  for (std::int64_t y = 0; y < height; ++y) {
    for (std::int64_t x = 0; x < width; ++x) {
      for (const std::int64_t value : {x, y, std::int64_t{0}}) image.pixels.push_back(static_cast<std::uint8_t>(value));
    }
  }
  return image;
}

TEST(Augmenter, RandomResizedCropsKeepTheirBounds) {
  const Image image = place_picture(200, 240);
  const Augment how{.crop = Crop::kRandomResized, .scale = {0.2, 0.6}, .ratio = {0.5, 2}};
  const Augmenter augmenter(how, small(16));
  double areas = 0;
  double log_ratios = 0;
  constexpr int kDraws = 400;
  for (std::uint64_t i = 0; i < kDraws; ++i) {
    Random random({i});
    const Image out = augmenter.pixels(image, random);
    ASSERT_EQ(out.width, 16);
    // Pixel centres of the first and last column lie 15/16 of the part's width apart; colours are whole numbers, and
    // bicubic weights at the borders move the outermost by less than a pixel of the part (1/16 of it) each.
    const auto extent = [&](std::size_t first, std::size_t last) {
      return (static_cast<double>(out.pixels[last]) - static_cast<double>(out.pixels[first])) * 16 / 15;
    };
    const double width = extent(0, 15 * 3);
    const double height = extent(1, 15 * 16 * 3 + 1);
    const double area = width * height / (200 * 240);
    ASSERT_GT(area, 0.2 * 0.85);
    ASSERT_LT(area, 0.6 * 1.1);
    ASSERT_GT(width / height, 0.5 * 0.9);
    ASSERT_LT(width / height, 2 * 1.1);
    areas += area / kDraws;
    log_ratios += std::log(width / height) / kDraws;
  }
  // Uniform in area and in the logarithm of the ratio, less those that do not fit into the picture (wide and large
  // ones, mostly: the picture is wider than high, so that high ones miss more often).
  EXPECT_NEAR(areas, 0.4, 0.04);
  EXPECT_NEAR(log_ratios, 0, 0.15);
}

TEST(Augmenter, RandomResizedCropFallsBackToTheCentre) {
  // No part of a ratio near 1 and of at least 90 % of the area fits into a strip.
  const Image strip = place_picture(10, 200);
  const Augment how{.crop = Crop::kRandomResized, .scale = {0.9, 1.0}, .ratio = {3.0 / 4, 4.0 / 3}};
  Random random({1});
  const Image out = Augmenter(how, small(8)).pixels(strip, random);
  // torchvision: height 10, width round(10 · 4/3) = 13, from (200 − 13) / 2 = 93.
  Image part{10, 13, 3, {}};
  for (std::int64_t y = 0; y < 10; ++y) {
    const auto row = strip.pixels.begin() + (y * 200 + 93) * 3;
    part.pixels.insert(part.pixels.end(), row, row + 13 * 3);
  }
  EXPECT_EQ(out, resize(part, 8, 8, Filter::kBicubic));
}

TEST(Augment, GoesThroughJson) {
  const Augment how{.crop = Crop::kPad, .padding = 3, .scale = {0.2, 0.9}, .hflip = 0.25, .smoothing = 0.1};
  Augment read;
  config_from_json(config_to_json(how), read, "x");
  EXPECT_EQ(read, how);
  config_from_json(Json::parse(R"({"crop": "random_resized", "interpolation": "random"})"), read, "x");
  EXPECT_EQ(read.crop, Crop::kRandomResized);
  EXPECT_EQ(read.interpolation, Interpolation::kRandom);
  EXPECT_TRUE(refuses([&] { config_from_json(Json::parse(R"({"hflop": 1})"), read, "x"); }, "hflip"));
}

TEST(Augmenter, RefusesSenselessOptions) {
  EXPECT_TRUE(refuses([] { validate(Augment{.padding = -1, .hflip = 1.5}); },
                      "padding must be 0 … 65535, got -1; hflip must be 0 … 1"));
  EXPECT_TRUE(refuses([] { validate(Augment{.scale = {0.5, 0.2}}); }, "scale"));
  EXPECT_TRUE(refuses([] { validate(Augment{.scale = {0.5, 1.2}}); }, "scale"));
  EXPECT_TRUE(refuses([] { validate(Augment{.ratio = {0, 1}}); }, "ratio"));
  EXPECT_TRUE(refuses([] { validate(Augment{.mixup = -1}); }, "mixup"));
  EXPECT_TRUE(refuses([] { validate(Augment{.cutmix = std::nan("")}); }, "cutmix"));
  EXPECT_TRUE(refuses([] { validate(Augment{.smoothing = 1}); }, "smoothing"));
  EXPECT_TRUE(refuses([] { Augmenter({}, {.resize = 0, .crop = 0}); }, "crop 0"));
}

}  // namespace
}  // namespace weft
