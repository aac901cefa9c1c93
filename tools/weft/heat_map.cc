#include "heat_map.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace weft::cli {
namespace {

constexpr std::int64_t kSide = 224;     // small panels are enlarged to about this many pixels
constexpr std::int64_t kMaxSide = 512;  // large ones shrunk to at most this many
constexpr std::int64_t kGap = 6;        // pixels between panels
constexpr double kPicture = 0.35;       // share of the picture below

using Colour = std::array<double, 3>;

constexpr std::array<Colour, 5> kFromZero = {{{0, 0, 4}, {87, 16, 110}, {188, 55, 84}, {249, 142, 9}, {252, 255, 164}}};
constexpr std::array<Colour, 5> kAroundZero = {
    {{33, 102, 172}, {146, 197, 222}, {247, 247, 247}, {244, 165, 130}, {178, 24, 43}}};

// The colour at 0 … 1 of a scale.
Colour colour_at(const std::array<Colour, 5>& scale, double share) {
  const double place = std::clamp(share, 0.0, 1.0) * (scale.size() - 1);
  const auto below = std::min<std::size_t>(static_cast<std::size_t>(place), scale.size() - 2);
  Colour colour{};
  for (std::size_t i = 0; i < 3; ++i) {
    colour[i] = std::lerp(scale[below][i], scale[below + 1][i], place - static_cast<double>(below));
  }
  return colour;
}

class Colours {
 public:
  explicit Colours(std::span<const float> values) {
    for (const float value : values) {
      largest_ = std::max(largest_, std::abs(value));
      negative_ = negative_ || value < 0;
    }
  }
  Colour operator()(float value) const {
    const double share = largest_ > 0 ? double{value} / double{largest_} : 0;
    return negative_ ? colour_at(kAroundZero, (share + 1) / 2) : colour_at(kFromZero, share);
  }

 private:
  float largest_ = 0;
  bool negative_ = false;
};

// White, with room for as many panels.
Image canvas(std::int64_t height, std::int64_t width, std::size_t panels) {
  const auto count = static_cast<std::int64_t>(panels);
  Image image{.height = height, .width = count * width + std::max<std::int64_t>(count - 1, 0) * kGap, .pixels = {}};
  image.pixels.assign(static_cast<std::size_t>(image.height * image.width * 3), 255);
  return image;
}

void put(Image& image, std::int64_t y, std::int64_t x, const Colour& colour) {
  for (std::size_t i = 0; i < 3; ++i) {
    image.pixels[static_cast<std::size_t>((y * image.width + x) * 3) + i] =
        static_cast<std::uint8_t>(std::lround(colour[i]));
  }
}

// The value farthest from 0 in the rows and columns that a pixel of a shrunk field stands for.
float farthest(const Field& field, std::int64_t y, std::int64_t x, std::int64_t shrink) {
  float found = 0;
  for (std::int64_t i = y; i < std::min(y + shrink, field.height); ++i) {
    for (std::int64_t j = x; j < std::min(x + shrink, field.width); ++j) {
      const float value = field.values[static_cast<std::size_t>(i * field.width + j)];
      if (std::abs(value) > std::abs(found)) found = value;
    }
  }
  return found;
}

}  // namespace

Image heat_map(std::span<const Field> fields) {
  if (fields.empty()) return {};
  const std::int64_t side = std::max(fields[0].height, fields[0].width);
  const std::int64_t shrink = (side + kMaxSide - 1) / kMaxSide;
  const std::int64_t grow = std::max<std::int64_t>(kSide / side, 1);
  const std::int64_t height = (fields[0].height + shrink - 1) / shrink * grow;
  const std::int64_t width = (fields[0].width + shrink - 1) / shrink * grow;
  Image image = canvas(height, width, fields.size());
  for (std::size_t panel = 0; panel < fields.size(); ++panel) {
    const Colours colours(fields[panel].values);
    const std::int64_t left = static_cast<std::int64_t>(panel) * (width + kGap);
    for (std::int64_t y = 0; y < height; ++y) {
      for (std::int64_t x = 0; x < width; ++x) {
        const float value = farthest(fields[panel], y / grow * shrink, x / grow * shrink, shrink);
        put(image, y, left + x, colours(value));
      }
    }
  }
  return image;
}

Image heat_over(const Image& picture, std::span<const Field> fields, const Cell& at) {
  const std::int64_t grow = std::max<std::int64_t>(kSide / std::max(picture.height, picture.width), 1);
  const std::int64_t height = picture.height * grow, width = picture.width * grow;
  Image image = canvas(height, width, fields.size());
  for (std::size_t panel = 0; panel < fields.size(); ++panel) {
    const Field& field = fields[panel];
    const Colours colours(field.values);
    const std::int64_t left = static_cast<std::int64_t>(panel) * (width + kGap);
    const auto cell_of = [&](std::int64_t y, std::int64_t x) {
      return Cell{y * field.height / height, x * field.width / width};
    };
    const auto framed = [&](std::int64_t y, std::int64_t x) {
      if (y < 0 || x < 0 || y >= height || x >= width) return false;
      const Cell cell = cell_of(y, x);
      return cell.y == at.y && cell.x == at.x;
    };
    for (std::int64_t y = 0; y < height; ++y) {
      for (std::int64_t x = 0; x < width; ++x) {
        const Cell cell = cell_of(y, x);
        Colour colour = colours(field.values[static_cast<std::size_t>(cell.y * field.width + cell.x)]);
        const std::uint8_t* pixel =
            &picture.pixels[static_cast<std::size_t>(((y / grow) * picture.width + x / grow) * 3)];
        const double grey = (pixel[0] + pixel[1] + pixel[2]) / 3.0;
        for (double& part : colour) part = kPicture * grey + (1 - kPicture) * part;
        const bool edge =
            framed(y, x) && !(framed(y - 2, x) && framed(y + 2, x) && framed(y, x - 2) && framed(y, x + 2));
        put(image, y, left + x, edge ? Colour{255, 255, 255} : colour);
      }
    }
  }
  return image;
}

}  // namespace weft::cli
