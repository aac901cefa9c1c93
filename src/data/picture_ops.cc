// Compiled without contraction to fused multiply-adds: results round as Pillow's do.
#include "data/picture_ops.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/format.h"

namespace weft {
namespace {

using Table = std::array<std::uint8_t, 256>;
using Histogram = std::array<std::int64_t, 256>;

std::uint8_t clamp8(std::int64_t x) { return static_cast<std::uint8_t>(std::clamp<std::int64_t>(x, 0, 255)); }

// table(value) for each value, the same for all channels.
template <class F>
Image mapped(const Image& image, const F& table) {
  Table values;
  for (int i = 0; i < 256; ++i) values[static_cast<std::size_t>(i)] = clamp8(table(i));
  Image out = image;
  for (std::uint8_t& pixel : out.pixels) pixel = values[pixel];
  return out;
}

// table(histogram) for each channel.
template <class F>
Image mapped_by_histogram(const Image& image, const F& table) {
  Image out = image;
  for (std::size_t c = 0; c < 3; ++c) {
    Histogram histogram{};
    for (std::size_t i = c; i < image.pixels.size(); i += 3) ++histogram[image.pixels[i]];
    const Table values = table(histogram);
    for (std::size_t i = c; i < out.pixels.size(); i += 3) out.pixels[i] = values[out.pixels[i]];
  }
  return out;
}

Table identity() {
  Table table;
  for (std::size_t i = 0; i < 256; ++i) table[i] = static_cast<std::uint8_t>(i);
  return table;
}

Table stretching(const Histogram& histogram) {
  const auto used = [](std::int64_t count) { return count > 0; };
  const auto low = std::ranges::find_if(histogram, used) - histogram.begin();
  const auto high = 255 - (std::find_if(histogram.rbegin(), histogram.rend(), used) - histogram.rbegin());
  if (high <= low) return identity();
  const double scale = 255.0 / static_cast<double>(high - low);
  const double offset = -static_cast<double>(low) * scale;
  Table table;
  for (std::size_t i = 0; i < 256; ++i)
    table[i] = clamp8(static_cast<std::int64_t>(static_cast<double>(i) * scale + offset));
  return table;
}

Table equalising(const Histogram& histogram) {
  std::int64_t total = 0;
  std::int64_t last = 0;  // the count of the brightest value
  int values = 0;
  for (const std::int64_t count : histogram) {
    if (count == 0) continue;
    ++values;
    total += count;
    last = count;
  }
  const std::int64_t step = (total - last) / 255;
  if (values <= 1 || step == 0) return identity();
  Table table;
  std::int64_t sum = step / 2;
  for (std::size_t i = 0; i < 256; ++i) {
    table[i] = clamp8(sum / step);
    sum += histogram[i];
  }
  return table;
}

// ITU-R 601 luma in 16-bit fixed point (Pillow's mode L).
std::uint8_t grey(const std::uint8_t* rgb) {
  return static_cast<std::uint8_t>((rgb[0] * 19595 + rgb[1] * 38470 + rgb[2] * 7471 + 0x8000) >> 16);
}

// degenerate(i) is byte i of the degenerate picture.
template <class F>
Image blended(const Image& image, double factor, const F& degenerate) {
  if (factor == 1) return image;
  const auto alpha = static_cast<float>(factor);
  Image out = image;
  for (std::size_t i = 0; i < out.pixels.size(); ++i) {
    const int from = degenerate(i);
    const float value = static_cast<float>(from) + alpha * static_cast<float>(image.pixels[i] - from);
    out.pixels[i] = static_cast<std::uint8_t>(std::clamp(value, 0.0F, 255.0F));
  }
  return out;
}

// Each pixel five times and its neighbours once; the border as it was (ImageFilter.SMOOTH).
Image smoothed(const Image& image) {
  Image out = image;
  const std::ptrdiff_t row = image.width * 3;
  for (std::int64_t y = 1; y < image.height - 1; ++y) {
    for (std::int64_t x = 3; x < row - 3; ++x) {
      const std::uint8_t* const at = image.pixels.data() + y * row + x;
      int sum = 4 * at[0];
      for (const std::ptrdiff_t line : {-row, std::ptrdiff_t{0}, row}) sum += at[line - 3] + at[line] + at[line + 3];
      out.pixels[static_cast<std::size_t>(y * row + x)] = static_cast<std::uint8_t>((2 * sum + 13) / 26);
    }
  }
  return out;
}

// The pixels around a place along one axis: `first` and those behind it, and how far it is past the last one before it.
struct Place {
  std::int64_t before = 0;
  double past = 0;
};

Place place_of(double at) {
  const double below = std::floor(at - 0.5);
  return {.before = static_cast<std::int64_t>(below), .past = at - 0.5 - below};
}

template <int kTaps>
double interpolated(const std::array<double, kTaps>& v, double d) {
  if constexpr (kTaps == 2) {
    return v[0] + (v[1] - v[0]) * d;
  } else {
    const double linear = -v[0] + v[2];
    const double square = 2 * (v[0] - v[1]) + v[2] - v[3];
    const double cube = -v[0] + v[1] - v[2] + v[3];
    return v[1] + d * (linear + d * (square + d * cube));
  }
}

template <int kTaps>
void sample(const Image& image, double x, double y, std::uint8_t* out) {
  constexpr std::int64_t kBefore = kTaps / 2 - 1;
  const Place across = place_of(x);
  const Place down = place_of(y);
  std::array<std::int64_t, kTaps> columns;
  std::array<const std::uint8_t*, kTaps> rows;
  for (std::int64_t i = 0; i < kTaps; ++i) {
    const auto at = static_cast<std::size_t>(i);
    columns[at] = 3 * std::clamp<std::int64_t>(across.before - kBefore + i, 0, image.width - 1);
    rows[at] = image.pixels.data() +
               3 * image.width * std::clamp<std::int64_t>(down.before - kBefore + i, 0, image.height - 1);
  }
  for (std::int64_t c = 0; c < 3; ++c) {
    std::array<double, kTaps> lines;
    for (std::size_t r = 0; r < kTaps; ++r) {
      std::array<double, kTaps> pixels;
      for (std::size_t i = 0; i < kTaps; ++i) pixels[i] = rows[r][columns[i] + c];
      lines[r] = interpolated<kTaps>(pixels, across.past);
    }
    out[c] = static_cast<std::uint8_t>(std::clamp(interpolated<kTaps>(lines, down.past), 0.0, 255.0));
  }
}

template <int kTaps>
Image resampled(const Image& image, const std::array<double, 6>& m, const Resampling& how) {
  Image out = image;
  std::uint8_t* to = out.pixels.data();
  for (std::int64_t row = 0; row < image.height; ++row) {
    const double y = static_cast<double>(row) + 0.5;
    for (std::int64_t column = 0; column < image.width; ++column, to += 3) {
      const double x = static_cast<double>(column) + 0.5;
      const double from_x = m[0] * x + m[1] * y + m[2];
      const double from_y = m[3] * x + m[4] * y + m[5];
      const bool inside = from_x >= 0 && from_x < static_cast<double>(image.width) && from_y >= 0 &&
                          from_y < static_cast<double>(image.height);
      if (inside) {
        sample<kTaps>(image, from_x, from_y, to);
      } else {
        std::ranges::copy(how.fill, to);
      }
    }
  }
  return out;
}

}  // namespace

Image auto_contrast(const Image& image) { return mapped_by_histogram(image, stretching); }

Image equalize(const Image& image) { return mapped_by_histogram(image, equalising); }

Image invert(const Image& image) {
  return mapped(image, [](int i) { return 255 - i; });
}

Image posterize(const Image& image, int bits) {
  const int mask = 0xFF00 >> bits;
  return mapped(image, [=](int i) { return i & mask; });
}

Image solarize(const Image& image, int threshold) {
  return mapped(image, [=](int i) { return i < threshold ? i : 255 - i; });
}

Image solarize_add(const Image& image, int add) {
  return mapped(image, [=](int i) { return i < 128 ? i + add : i; });
}

Image adjust_color(const Image& image, double factor) {
  return blended(image, factor, [&](std::size_t i) { return grey(image.pixels.data() + i / 3 * 3); });
}

Image adjust_contrast(const Image& image, double factor) {
  std::int64_t sum = 0;
  for (std::size_t i = 0; i < image.pixels.size(); i += 3) sum += grey(image.pixels.data() + i);
  const double mean = static_cast<double>(sum) / static_cast<double>(image.height * image.width);
  const auto level = static_cast<std::uint8_t>(mean + 0.5);
  return blended(image, factor, [=](std::size_t) { return level; });
}

Image adjust_brightness(const Image& image, double factor) {
  return blended(image, factor, [](std::size_t) { return std::uint8_t{0}; });
}

Image adjust_sharpness(const Image& image, double factor) {
  const Image smooth = smoothed(image);
  return blended(image, factor, [&](std::size_t i) { return smooth.pixels[i]; });
}

Image affine(const Image& image, const std::array<double, 6>& m, const Resampling& how) {
  require<ConfigError>(how.filter == Filter::kBilinear || how.filter == Filter::kBicubic, "data::affine",
                       "expected the filter bilinear or bicubic, got {}", name_of(how.filter));
  return how.filter == Filter::kBilinear ? resampled<2>(image, m, how) : resampled<4>(image, m, how);
}

Image rotate(const Image& image, double degrees, const Resampling& how) {
  if (std::fmod(degrees, 360) == 0) return image;
  const double angle = -(degrees - 360 * std::floor(degrees / 360)) * (std::numbers::pi / 180);
  const auto rounded = [](double x) { return std::round(x * 1e15) / 1e15; };
  const double cosine = rounded(std::cos(angle));
  const double sine = rounded(std::sin(angle));
  const double x = static_cast<double>(image.width) / 2;
  const double y = static_cast<double>(image.height) / 2;
  return affine(image, {cosine, sine, cosine * -x + sine * -y + x, -sine, cosine, -sine * -x + cosine * -y + y}, how);
}

}  // namespace weft
