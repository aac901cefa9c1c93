// Image.resize of Pillow 9 for 8-bit pixels, to the bit: the weights in double precision exactly as Resample.c computes
// them (this file is compiled without contraction of a·b + c), then fixed-point sums, across first and down second,
// each rounded to 8 bits. Nearest neighbours follow Geometry.c, which adds up positions step by step.
#include "image/resize.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "core/format.h"
#include "image/resample.h"

namespace weft {
namespace {

constexpr std::string_view kPlace = "image::resize";

double box(double x) { return x > -0.5 && x <= 0.5 ? 1.0 : 0.0; }

double bilinear(double x) {
  x = std::abs(x);
  return x < 1.0 ? 1.0 - x : 0.0;
}

/// Keys' cubic convolution with a = −0.5.
double bicubic(double x) {
  constexpr double kA = -0.5;
  x = std::abs(x);
  if (x < 1.0) return ((kA + 2.0) * x - (kA + 3.0)) * x * x + 1;
  if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * kA;
  return 0.0;
}

double sinc(double x) {
  if (x == 0.0) return 1.0;
  x = x * std::numbers::pi;
  return std::sin(x) / x;
}

double lanczos(double x) { return -3.0 <= x && x < 3.0 ? sinc(x) * sinc(x / 3) : 0.0; }

struct Kernel {
  double (*weight)(double);
  double support;
};

Kernel kernel_of(Filter filter) {
  switch (filter) {
    case Filter::kBox:
      return {box, 0.5};
    case Filter::kBilinear:
      return {bilinear, 1.0};
    case Filter::kBicubic:
      return {bicubic, 2.0};
    case Filter::kLanczos:
      return {lanczos, 3.0};
    case Filter::kNearest:
      break;
  }
  fail<ConfigError>(kPlace, "filter {} has no weights", static_cast<int>(filter));
}

/// Input positions per output position. Pillow holds the sides of its box in single precision.
double scale_of(std::int64_t in, std::int64_t out) {
  return static_cast<double>(static_cast<float>(in)) / static_cast<double>(out);
}

/// Weights of the outputs [begin, begin + n) of a resize from `in` to `out`.
AxisWeights make_weights(std::int64_t in, std::int64_t out, std::int64_t begin, std::int64_t n, Filter filter) {
  const Kernel kernel = kernel_of(filter);
  const double scale = scale_of(in, out);
  const double filter_scale = std::max(scale, 1.0);
  const double support = kernel.support * filter_scale;
  const double inverse = 1.0 / filter_scale;

  AxisWeights axis;
  axis.width = std::min(in, static_cast<std::int64_t>(std::ceil(support)) * 2 + 1);
  axis.taps.reserve(static_cast<std::size_t>(n));
  axis.weights.resize(static_cast<std::size_t>(n) * static_cast<std::size_t>(axis.width));
  std::vector<double> exact(static_cast<std::size_t>(axis.width));
  std::int32_t* weights = axis.weights.data();
  for (std::int64_t i = begin; i < begin + n; ++i, weights += axis.width) {
    const double center = (static_cast<double>(i) + 0.5) * scale;
    const std::int64_t first = std::max<std::int64_t>(static_cast<std::int64_t>(center - support + 0.5), 0);
    const std::int64_t end = std::min(static_cast<std::int64_t>(center + support + 0.5), in);
    const std::int64_t count = end - first;
    double total = 0.0;
    for (std::int64_t t = 0; t < count; ++t) {
      const double weight = kernel.weight((static_cast<double>(t + first) - center + 0.5) * inverse);
      exact[static_cast<std::size_t>(t)] = weight;
      total += weight;
    }
    for (std::int64_t t = 0; t < count; ++t) {
      double weight = exact[static_cast<std::size_t>(t)];
      if (total != 0.0) weight /= total;
      weights[t] = static_cast<std::int32_t>((weight < 0 ? -0.5 : 0.5) + weight * (1 << kWeightBits));
    }
    axis.taps.push_back({first, count});
  }
  return axis;
}

Image make_image(std::int64_t height, std::int64_t width, std::int64_t channels) {
  const Shape shape({height, width, channels});  // throws when the product overflows
  return {height, width, channels, std::vector<std::uint8_t>(static_cast<std::size_t>(shape.elements()))};
}

/// The input rows that a vertical pass reads.
Taps span_of(const AxisWeights& axis) {
  const Taps& last = axis.taps.back();
  return {axis.taps.front().first, last.first + last.count - axis.taps.front().first};
}

/// Rows `rows` of the picture, resized across. Blocks of rows are turned on their side, so that one kernel serves both
/// directions with a vector of rows where the other has a vector of columns.
Image resample_across(const Image& image, const Taps& rows, const AxisWeights& axis) {
  constexpr std::int64_t kBlock = 32;
  const std::int64_t channels = image.channels;
  const Taps columns = span_of(axis);
  AxisWeights shifted = axis;
  for (Taps& taps : shifted.taps) taps.first -= columns.first;
  Image out = make_image(rows.count, static_cast<std::int64_t>(axis.taps.size()), channels);
  std::vector<std::uint8_t> turned_in(static_cast<std::size_t>(columns.count * channels * kBlock));
  std::vector<std::uint8_t> turned_out(static_cast<std::size_t>(out.width * channels * kBlock));
  const std::int64_t in_stride = image.width * channels;
  const std::int64_t out_stride = out.width * channels;
  for (std::int64_t y = 0; y < rows.count; y += kBlock) {
    const std::int64_t n = std::min(kBlock, rows.count - y);
    transpose_bytes(image.pixels.data() + (rows.first + y) * in_stride + columns.first * channels, in_stride, n,
                    columns.count * channels, turned_in.data(), kBlock);
    resample_rows(turned_in.data(), channels * kBlock, shifted, turned_out.data(), channels * kBlock,
                  channels * kBlock);
    transpose_bytes(turned_out.data(), kBlock, out_stride, n, out.pixels.data() + y * out_stride, out_stride);
  }
  return out;
}

Image resample_down(const Image& image, const AxisWeights& axis) {
  Image out = make_image(static_cast<std::int64_t>(axis.taps.size()), image.width, image.channels);
  const std::int64_t stride = image.width * image.channels;
  resample_rows(image.pixels.data(), stride, axis, out.pixels.data(), stride, stride);
  return out;
}

/// Where nearest neighbours of the outputs [begin, begin + n) lie.
std::vector<std::int64_t> nearest_positions(std::int64_t in, std::int64_t out, std::int64_t begin, std::int64_t n) {
  const double scale = scale_of(in, out);
  double position = scale * 0.5;
  for (std::int64_t i = 0; i < begin; ++i) position += scale;
  std::vector<std::int64_t> positions(static_cast<std::size_t>(n));
  for (std::int64_t& at : positions) {
    at = std::min(static_cast<std::int64_t>(position), in - 1);
    position += scale;
  }
  return positions;
}

Image resize_nearest(const Image& image, Size size, const Window& window) {
  Image out = make_image(window.height, window.width, image.channels);
  const auto rows = nearest_positions(image.height, size.height, window.y, window.height);
  const auto columns = nearest_positions(image.width, size.width, window.x, window.width);
  std::uint8_t* to = out.pixels.data();
  for (const std::int64_t y : rows) {
    const std::uint8_t* row = image.pixels.data() + y * image.width * image.channels;
    for (const std::int64_t x : columns) to = std::copy_n(row + x * image.channels, image.channels, to);
  }
  return out;
}

Image crop(const Image& image, const Window& window) {
  Image out = make_image(window.height, window.width, image.channels);
  for (std::int64_t y = 0; y < window.height; ++y) {
    std::copy_n(image.pixels.data() + ((window.y + y) * image.width + window.x) * image.channels,
                window.width * image.channels, out.pixels.data() + y * window.width * image.channels);
  }
  return out;
}

}  // namespace

void validate(const Image& image) {
  require<ShapeError>(image.height > 0 && image.width > 0, "image", "expected positive sides, got height {}, width {}",
                      image.height, image.width);
  require<ShapeError>(image.channels >= 1 && image.channels <= 4, "image", "expected 1 to 4 channels, got {}",
                      image.channels);
  const Shape shape({image.height, image.width, image.channels});
  require<ShapeError>(image.pixels.size() == static_cast<std::size_t>(shape.elements()), "image",
                      "expected {} bytes of pixels for {}, got {}", shape.elements(), shape, image.pixels.size());
}

Image resize_window(const Image& image, Size size, const Window& window, Filter filter) {
  if (size == Size{image.height, image.width}) return crop(image, window);
  if (filter == Filter::kNearest) return resize_nearest(image, size, window);

  // An axis that keeps its size is not filtered, only cut.
  Taps rows{window.y, window.height};
  AxisWeights down;
  if (size.height != image.height) {
    down = make_weights(image.height, size.height, window.y, window.height, filter);
    rows = span_of(down);
    for (Taps& taps : down.taps) taps.first -= rows.first;
  }
  Image strip =
      size.width == image.width
          ? crop(image, {.y = rows.first, .x = window.x, .height = rows.count, .width = window.width})
          : resample_across(image, rows, make_weights(image.width, size.width, window.x, window.width, filter));
  return size.height == image.height ? strip : resample_down(strip, down);
}

Image resize(const Image& image, std::int64_t height, std::int64_t width, Filter filter) {
  constexpr std::int64_t kMaxSide = std::numeric_limits<std::int32_t>::max();
  validate(image);
  require<ShapeError>(height > 0 && width > 0 && height <= kMaxSide && width <= kMaxSide, kPlace,
                      "expected sides from 1 to {}, got height {}, width {}", kMaxSide, height, width);
  return resize_window(image, {height, width}, {.y = 0, .x = 0, .height = height, .width = width}, filter);
}

}  // namespace weft
