// From a decoded picture to a model's input, by torchvision's transforms Resize, CenterCrop and Normalize.
#include <algorithm>
#include <cmath>

#include "core/enum_names.h"
#include "core/format.h"
#include "image/normalise.h"
#include "image/resize.h"

namespace weft {

constexpr std::array<std::pair<Filter, std::string_view>, 5> enum_names(Filter) {
  return {{{Filter::kNearest, "nearest"},
           {Filter::kBox, "box"},
           {Filter::kBilinear, "bilinear"},
           {Filter::kBicubic, "bicubic"},
           {Filter::kLanczos, "lanczos"}}};
}

namespace {

constexpr std::string_view kPlace = "image::preprocess";

/// Beyond this a picture to be resized without a crop is taken for a mistake: a strip of 1×65535 would make gigabytes.
constexpr std::int64_t kMaxPixels = std::int64_t{1} << 28;

/// Size after torchvision's Resize(shorter side).
Size resized(const Image& image, std::int64_t shorter) {
  if (shorter == 0) return {image.height, image.width};
  if (image.height < image.width) return {shorter, shorter * image.width / image.height};
  return {shorter * image.height / image.width, shorter};
}

/// (n − crop) / 2 rounded to nearest, ties to even, as Python's round does.
std::int64_t crop_offset(std::int64_t n, std::int64_t crop) {
  const std::int64_t half = (n - crop) / 2;
  return (n - crop) % 2 != 0 && half % 2 != 0 ? half + 1 : half;
}

/// Where an output of `crop` pixels finds its pixels along an axis of n: [begin, begin + count) of the input appear at
/// `margin` of the output; all else is padding.
struct AxisCrop {
  std::int64_t begin = 0;
  std::int64_t count = 0;
  std::int64_t margin = 0;
};

AxisCrop crop_axis(std::int64_t n, std::int64_t crop) {
  if (n < crop) return {.begin = 0, .count = n, .margin = (crop - n) / 2};
  return {.begin = crop_offset(n, crop), .count = crop, .margin = 0};
}

/// The centre of the picture resized to `size`; only that part is computed.
Image resized_center(const Image& image, Size size, Size crop, Filter filter) {
  const AxisCrop rows = crop_axis(size.height, crop.height);
  const AxisCrop columns = crop_axis(size.width, crop.width);
  Image part = resize_window(
      image, size, {.y = rows.begin, .x = columns.begin, .height = rows.count, .width = columns.count}, filter);
  if (rows.count == crop.height && columns.count == crop.width) return part;

  const Shape shape({crop.height, crop.width, image.channels});
  Image out{crop.height, crop.width, image.channels,
            std::vector<std::uint8_t>(static_cast<std::size_t>(shape.elements()))};
  for (std::int64_t y = 0; y < part.height; ++y) {
    std::copy_n(part.pixels.data() + y * part.width * part.channels, part.width * part.channels,
                out.pixels.data() + ((rows.margin + y) * out.width + columns.margin) * out.channels);
  }
  return out;
}

}  // namespace

std::string_view name_of(Filter filter) { return name_of<Filter>(filter); }

Filter parse_filter(std::string_view name) {
  const auto filter = find_enum<Filter>(name);
  require<ConfigError>(filter.has_value(), kPlace, "unknown filter \"{}\": expected one of {}", printable(name),
                       known_names<Filter>());
  return *filter;
}

void validate(const Preprocess& how) {
  require<ConfigError>(how.resize >= 0 && how.resize <= 65535 && how.crop >= 0 && how.crop <= 65535, kPlace,
                       "expected resize and crop from 0 to 65535, got {} and {}", how.resize, how.crop);
  for (std::size_t c = 0; c < 3; ++c) {
    require<ConfigError>(std::isfinite(how.mean[c]) && std::isfinite(how.std[c]) && how.std[c] > 0.0F, kPlace,
                         "expected finite mean and positive std, got {} and {} for channel {}", how.mean[c], how.std[c],
                         c);
  }
}

Preprocess Preprocess::any_size() const {
  Preprocess how = *this;
  how.resize = 0;
  how.crop = 0;
  return how;
}

Image center_crop(const Image& image, std::int64_t height, std::int64_t width) {
  validate(image);
  require<ShapeError>(height > 0 && width > 0, "image::center_crop", "expected positive sides, got height {}, width {}",
                      height, width);
  return resized_center(image, {image.height, image.width}, {height, width}, Filter::kNearest);
}

Image prepare(const Image& image, const Preprocess& how) {
  validate(image);
  validate(how);
  require<ShapeError>(image.channels == 3, kPlace, "expected an RGB picture, got {} channels", image.channels);
  const Size size = resized(image, how.resize);
  if (how.crop > 0) return resized_center(image, size, {how.crop, how.crop}, how.filter);
  require<ShapeError>(how.resize == 0 || size.height <= kMaxPixels / size.width, kPlace,
                      "a picture of {}x{} resized to shorter side {} is {}x{}, more than {} pixels; crop it first",
                      image.width, image.height, how.resize, size.width, size.height, kMaxPixels);
  return resize_window(image, size, {.y = 0, .x = 0, .height = size.height, .width = size.width}, how.filter);
}

Tensor to_input(std::span<const Image> images, const Preprocess& how) {
  require<ShapeError>(!images.empty(), kPlace, "expected at least one picture, got none");
  validate(how);
  const Normalisation normalise(how);

  Tensor input;
  std::span<float> out;
  for (std::size_t i = 0; i < images.size(); ++i) {
    const Image image = prepare(images[i], how);
    if (i == 0) {
      input = Tensor(DType::kF32, Shape({static_cast<std::int64_t>(images.size()), 3, image.height, image.width}));
      out = input.mutable_data<float>();
    }
    require<ShapeError>(image.height == input.shape()[2] && image.width == input.shape()[3], kPlace,
                        "expected pictures of one size, got {}x{} (picture 0) and {}x{} (picture {}); resize or crop, "
                        "or run them one by one",
                        input.shape()[3], input.shape()[2], image.width, image.height, i);
    normalise(image, out.first(image.pixels.size()));
    out = out.subspan(image.pixels.size());
  }
  return input;
}

}  // namespace weft
