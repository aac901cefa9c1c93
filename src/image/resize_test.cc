#include "image/resize.h"

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numbers>
#include <random>

#include "core/format.h"
#include "io/npy.h"

namespace weft {
namespace {

const std::filesystem::path kGolden = WEFT_SOURCE_DIR "/tests/golden/pillow-resize";

Image read_pixels(const std::filesystem::path& path) {
  const Tensor array = read_npy(path);
  const auto pixels = array.data<std::uint8_t>();
  return {array.shape()[0], array.shape()[1], array.shape()[2], {pixels.begin(), pixels.end()}};
}

Image noise(std::int64_t height, std::int64_t width, std::int64_t channels, unsigned seed = 1) {
  std::mt19937 random(seed);
  Image image{height, width, channels, std::vector<std::uint8_t>(static_cast<std::size_t>(height * width * channels))};
  // Half of the pixels at the extremes, so that filters with negative lobes overshoot.
  for (std::uint8_t& pixel : image.pixels) {
    const auto bits = random();
    pixel = static_cast<std::uint8_t>((bits & 0x100U) != 0 ? bits & 0xFFU : (bits & 0x200U) != 0 ? 255U : 0U);
  }
  return image;
}

template <class Body>
void on_every_target(const Body& body) {
  for (const std::int64_t target : hwy::SupportedAndGeneratedTargets()) {
    SCOPED_TRACE(hwy::TargetName(target));
    hwy::SetSupportedTargetsForTest(target);
    body();
  }
  hwy::SetSupportedTargetsForTest(0);
}

TEST(Resize, EqualsPillowToTheBit) {
  const auto meta = nlohmann::json::parse(std::ifstream(kGolden / "meta.json"));
  int resized = 0;
  int transformed = 0;
  on_every_target([&] {
    for (const auto& entry : meta["cases"]) {
      SCOPED_TRACE(entry["out"]);
      const Image source = read_pixels(kGolden / entry["src"].get<std::string>());
      const Image expected = read_pixels(kGolden / entry["out"].get<std::string>());
      const Filter filter = parse_filter(entry["filter"].get<std::string>());
      if (entry.contains("transform")) {
        EXPECT_EQ(prepare(source, {.resize = 24, .crop = 20, .filter = filter}), expected);
        ++transformed;
      } else {
        EXPECT_EQ(resize(source, expected.height, expected.width, filter), expected);
        ++resized;
      }
    }
  });
  EXPECT_GE(resized, 30);
  EXPECT_GE(transformed, 5);
}

/// One output pixel at a time from the definition: [taps] weights in double, then fixed point.
std::vector<std::uint8_t> resize_line(const std::vector<std::uint8_t>& line, std::int64_t out, Filter filter) {
  const auto n = static_cast<std::int64_t>(line.size());
  const auto weight = [filter](double x) {
    const double a = std::abs(x);
    const auto sinc = [](double at) {
      return at == 0 ? 1.0 : std::sin(at * std::numbers::pi) / (at * std::numbers::pi);
    };
    switch (filter) {
      case Filter::kBox:
        return -0.5 < x && x <= 0.5 ? 1.0 : 0.0;
      case Filter::kBilinear:
        return std::max(0.0, 1.0 - a);
      case Filter::kBicubic:
        return a < 1 ? (1.5 * a - 2.5) * a * a + 1 : a < 2 ? (((a - 5) * a + 8) * a - 4) * -0.5 : 0.0;
      default:
        return -3 <= x && x < 3 ? sinc(x) * sinc(x / 3) : 0.0;
    }
  };
  const double scale = static_cast<double>(n) / static_cast<double>(out);
  const double stretch = std::max(1.0, scale);
  const double support = stretch * (filter == Filter::kBox        ? 0.5
                                    : filter == Filter::kBilinear ? 1
                                    : filter == Filter::kBicubic  ? 2
                                                                  : 3);
  std::vector<std::uint8_t> result;
  for (std::int64_t i = 0; i < out; ++i) {
    const double center = (static_cast<double>(i) + 0.5) * scale;
    const auto begin = static_cast<std::int64_t>(std::max(0.0, center - support + 0.5));
    const auto end = std::min(n, static_cast<std::int64_t>(center + support + 0.5));
    std::vector<double> weights;
    double total = 0;
    for (std::int64_t t = begin; t < end; ++t) {
      weights.push_back(weight((static_cast<double>(t) - center + 0.5) * (1.0 / stretch)));
      total += weights.back();
    }
    std::int64_t sum = 1 << 21;
    for (std::int64_t t = begin; t < end; ++t) {
      // std::round is half away from zero.
      sum += line[static_cast<std::size_t>(t)] *
             std::lround(weights[static_cast<std::size_t>(t - begin)] / total * (1 << 22));
    }
    result.push_back(static_cast<std::uint8_t>(std::clamp<std::int64_t>(sum >> 22, 0, 255)));
  }
  return result;
}

Image resize_by_definition(const Image& image, std::int64_t height, std::int64_t width, Filter filter) {
  const auto at = [](const Image& of, std::int64_t y, std::int64_t x, std::int64_t c) {
    return static_cast<std::size_t>((y * of.width + x) * of.channels + c);
  };
  const auto make = [&](std::int64_t h, std::int64_t w) {
    return Image{h, w, image.channels, std::vector<std::uint8_t>(static_cast<std::size_t>(h * w * image.channels))};
  };
  Image across = make(image.height, width);
  Image down = make(height, width);
  for (std::int64_t c = 0; c < image.channels; ++c) {
    for (std::int64_t y = 0; y < image.height; ++y) {
      std::vector<std::uint8_t> line;
      for (std::int64_t x = 0; x < image.width; ++x) line.push_back(image.pixels[at(image, y, x, c)]);
      if (width != image.width) line = resize_line(line, width, filter);
      for (std::int64_t x = 0; x < width; ++x) across.pixels[at(across, y, x, c)] = line[static_cast<std::size_t>(x)];
    }
    for (std::int64_t x = 0; x < width; ++x) {
      std::vector<std::uint8_t> line;
      for (std::int64_t y = 0; y < image.height; ++y) line.push_back(across.pixels[at(across, y, x, c)]);
      if (height != image.height) line = resize_line(line, height, filter);
      for (std::int64_t y = 0; y < height; ++y) down.pixels[at(down, y, x, c)] = line[static_cast<std::size_t>(y)];
    }
  }
  return down;
}

constexpr std::array kFiltered = {Filter::kBox, Filter::kBilinear, Filter::kBicubic, Filter::kLanczos};

TEST(Resize, FollowsTheDefinitionAtAwkwardSizes) {
  struct Case {
    std::int64_t height, width, channels, to_height, to_width;
  };
  const std::vector<Case> cases = {{1, 1, 3, 5, 7},   {1, 200, 3, 3, 2},   {200, 1, 1, 2, 3},  {17, 33, 2, 33, 17},
                                   {31, 47, 4, 1, 1}, {65, 130, 3, 64, 9}, {40, 16, 3, 40, 5}, {40, 16, 3, 7, 16},
                                   {5, 6, 1, 90, 80}, {128, 32, 3, 33, 31}};
  on_every_target([&] {
    for (const Case& c : cases) {
      const Image image = noise(c.height, c.width, c.channels);
      for (const Filter filter : kFiltered) {
        SCOPED_TRACE(fmt::format("{}x{}x{} to {}x{} {}", c.height, c.width, c.channels, c.to_height, c.to_width,
                                 name_of(filter)));
        EXPECT_EQ(resize(image, c.to_height, c.to_width, filter),
                  resize_by_definition(image, c.to_height, c.to_width, filter));
      }
    }
  });
}

TEST(Resize, HugeScalesKeepAConstantPictureConstant) {
  // Rounding the weights changes their sum by at most half a unit of 2^-22 per tap, far below half a grey level.
  for (const Filter filter : kFiltered) {
    for (const std::int64_t width : {1, 2, 7}) {
      const Image flat{2, 60000, 1, std::vector<std::uint8_t>(120000, 201)};
      EXPECT_EQ(resize(flat, 3, width, filter).pixels,
                std::vector<std::uint8_t>(static_cast<std::size_t>(3 * width), 201));
    }
    const Image dot{1, 1, 3, {9, 90, 250}};
    const Image big = resize(dot, 300, 200, filter);
    for (std::size_t i = 0; i < big.pixels.size(); ++i) ASSERT_EQ(big.pixels[i], dot.pixels[i % 3]);
  }
}

TEST(Resize, NearestTakesThePixelUnderTheCentre) {
  const Image image{1, 4, 1, {10, 20, 30, 40}};
  EXPECT_EQ(resize(image, 1, 2, Filter::kNearest).pixels, (std::vector<std::uint8_t>{20, 40}));
  EXPECT_EQ(resize(image, 2, 3, Filter::kNearest).pixels, (std::vector<std::uint8_t>{10, 30, 40, 10, 30, 40}));
  EXPECT_EQ(resize(image, 1, 8, Filter::kNearest).pixels, (std::vector<std::uint8_t>{10, 10, 20, 20, 30, 30, 40, 40}));
}

TEST(Resize, AWindowEqualsThatPartOfTheWhole) {
  const Image image = noise(61, 97, 3);
  for (const Filter filter : {Filter::kNearest, Filter::kBox, Filter::kBilinear, Filter::kBicubic, Filter::kLanczos}) {
    for (const Size size : {Size{30, 40}, Size{61, 40}, Size{30, 97}, Size{61, 97}, Size{150, 160}}) {
      const Window window{.y = 7, .x = 11, .height = 20, .width = 25};
      const Image whole = resize(image, size.height, size.width, filter);
      const Image part = resize_window(image, size, window, filter);
      ASSERT_EQ(part.height, window.height);
      ASSERT_EQ(part.width, window.width);
      for (std::int64_t y = 0; y < window.height; ++y) {
        const auto row = whole.pixels.begin() + ((window.y + y) * whole.width + window.x) * 3;
        ASSERT_TRUE(std::equal(row, row + window.width * 3, part.pixels.begin() + y * window.width * 3))
            << name_of(filter) << " row " << y;
      }
    }
  }
}

TEST(Resize, RefusesSenselessPicturesAndSizes) {
  const Image image = noise(4, 4, 3);
  EXPECT_THROW((void)resize(image, 0, 4, Filter::kBox), ShapeError);
  EXPECT_THROW((void)resize(image, 4, -1, Filter::kBox), ShapeError);
  EXPECT_THROW((void)resize(image, std::int64_t{1} << 40, 4, Filter::kBox), ShapeError);
  EXPECT_THROW((void)resize(Image{}, 4, 4, Filter::kBox), ShapeError);
  EXPECT_THROW((void)resize({2, 2, 5, std::vector<std::uint8_t>(20)}, 4, 4, Filter::kBox), ShapeError);
  EXPECT_THROW((void)resize({2, 2, 3, std::vector<std::uint8_t>(11)}, 4, 4, Filter::kBox), ShapeError);
  EXPECT_THROW((void)resize({std::int64_t{1} << 40, std::int64_t{1} << 40, 3, {}}, 4, 4, Filter::kBox), ShapeError);
}

}  // namespace
}  // namespace weft
