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

// The erased part of a picture whose every other element is 1.
struct Erased {
  std::int64_t top = 99, left = 99, bottom = -1, right = -1, count = 0;
  std::vector<float> values;
};

Erased erased_part(const Augment& how, std::uint64_t seed) {
  constexpr std::int64_t kSide = 24;
  const Preprocess preprocess{.resize = 0, .crop = kSide, .mean = {0, 0, 0}, .std = {1, 1, 1}};
  const Image ones{kSide, kSide, 3, std::vector<std::uint8_t>(3 * kSide * kSide, 1)};
  std::vector<float> out(ones.pixels.size());
  Random random({seed});
  Augmenter(how, preprocess).input(ones, random, out);
  Erased part;
  for (std::int64_t i = 0; i < static_cast<std::int64_t>(out.size()); ++i) {
    const float value = out[static_cast<std::size_t>(i)];
    if (value == 1) continue;
    const std::int64_t y = i / kSide % kSide;
    const std::int64_t x = i % kSide;
    part = {std::min(part.top, y),   std::min(part.left, x), std::max(part.bottom, y),
            std::max(part.right, x), part.count + 1,         std::move(part.values)};
    part.values.push_back(value);
  }
  return part;
}

TEST(Augmenter, ErasesRectangles) {
  Augment how{.reprob = 0.25, .remode = EraseMode::kConst, .re_area = {0.1, 0.3}, .re_ratio = {0.5, 2}};
  constexpr int kDraws = 2000;
  int erased = 0;
  double area = 0;
  for (std::uint64_t i = 0; i < kDraws; ++i) {
    const Erased part = erased_part(how, i);
    if (part.count == 0) continue;
    ++erased;
    const std::int64_t height = part.bottom - part.top + 1;
    const std::int64_t width = part.right - part.left + 1;
    ASSERT_EQ(part.count, 3 * height * width);
    ASSERT_EQ(part.values, std::vector<float>(part.values.size(), 0.0F));
    // Sides are rounded, by half a pixel at most; the shortest is √(0.1 · 24² / 2) = 5.4.
    const double share = static_cast<double>(height * width) / (24 * 24);
    ASSERT_GT(share, 0.1 * 0.83);
    ASSERT_LT(share, 0.3 * 1.15);
    const double ratio = static_cast<double>(height) / static_cast<double>(width);
    ASSERT_GT(ratio, 0.5 * 0.85);
    ASSERT_LT(ratio, 2 * 1.18);
    area += share;
  }
  EXPECT_NEAR(erased, kDraws / 4, 5 * std::sqrt(kDraws * 0.1875));
  // Uniform within 0.1 … 0.3: standard deviation 0.058 each.
  EXPECT_NEAR(area / erased, 0.2, 5 * 0.058 / std::sqrt(erased));
}

TEST(Augmenter, FillsWhatItErases) {
  Augment how{.reprob = 1, .remode = EraseMode::kRand};
  std::vector<float> values;
  for (std::uint64_t i = 0; i < 300; ++i) {
    const Erased part = erased_part(how, i);
    const std::size_t plane = part.values.size() / 3;
    for (std::size_t at = 0; at < part.values.size(); ++at) ASSERT_EQ(part.values[at], part.values[at / plane * plane]);
    for (std::size_t c = 0; c < 3 && plane > 0; ++c) values.push_back(part.values[c * plane]);
  }
  how.remode = EraseMode::kPixel;
  std::vector<float> pixels;
  for (std::uint64_t i = 0; i < 20; ++i) {
    const Erased part = erased_part(how, i);
    pixels.insert(pixels.end(), part.values.begin(), part.values.end());
  }
  for (const auto& normal : {values, pixels}) {
    ASSERT_GT(normal.size(), 500U);
    const auto n = static_cast<double>(normal.size());
    double mean = 0, square = 0;
    for (const float x : normal) mean += x / n, square += x * x / n;
    EXPECT_NEAR(mean, 0, 5 / std::sqrt(n));
    EXPECT_NEAR(square, 1, 5 * std::sqrt(2 / n));
  }
}

TEST(Augmenter, RandAugmentFillsWithTheMeanColour) {
  const Preprocess preprocess{.resize = 0, .crop = 16, .mean = {123.675F, 116.28F, 103.53F}};
  const Augmenter augmenter({.ra_ops = 1, .ra_prob = 1}, preprocess);
  const Image white{16, 16, 3, std::vector<std::uint8_t>(3 * 16 * 16, 255)};
  bool filled = false;
  for (std::uint64_t i = 0; i < 50; ++i) {
    Random random({i});
    const Image out = augmenter.pixels(white, random);
    for (std::size_t at = 0; at < out.pixels.size(); at += 3) {
      filled = filled || (out.pixels[at] == 124 && out.pixels[at + 1] == 116 && out.pixels[at + 2] == 104);
    }
  }
  EXPECT_TRUE(filled);
}

TEST(Augment, RecipesAreSound) {
  EXPECT_NO_THROW(validate(imagenet_recipe()));
  EXPECT_NO_THROW(validate(cifar_recipe()));
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
  EXPECT_TRUE(
      refuses([] { validate(Augment{.ra_ops = -1, .ra_magnitude = 11}); }, "ra_ops must be 0 … 100, got -1; ra_mag"));
  EXPECT_TRUE(refuses([] { validate(Augment{.reprob = -0.1}); }, "reprob"));
  EXPECT_TRUE(refuses([] { validate(Augment{.re_area = {0.5, 0.1}}); }, "re_area"));
  EXPECT_TRUE(refuses([] { validate(Augment{.mixup = -1}); }, "mixup"));
  EXPECT_TRUE(refuses([] { validate(Augment{.cutmix = std::nan("")}); }, "cutmix"));
  EXPECT_TRUE(refuses([] { validate(Augment{.smoothing = 1}); }, "smoothing"));
  EXPECT_TRUE(refuses([] { Augmenter({}, {.resize = 0, .crop = 0}); }, "crop 0"));
  EXPECT_TRUE(refuses([] { Augmenter({}, {.mean = {std::nanf(""), 0, 0}}); }, "mean"));
}

}  // namespace
}  // namespace weft
