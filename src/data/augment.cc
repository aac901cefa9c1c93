#include "data/augment.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "core/format.h"
#include "core/options.h"
#include "image/resize.h"

namespace weft {
namespace {

constexpr std::string_view kPlace = "data::augment";

// To the nearest integer, ties to even, as Python rounds.
std::int64_t round_even(double x) { return static_cast<std::int64_t>(std::nearbyint(x)); }

// The part that torchvision's RandomResizedCrop takes: ten draws of area and aspect ratio, then the largest part of an
// allowed ratio from the centre.
Window random_part(const Image& image, const Augment& how, Random& random) {
  const auto height = static_cast<double>(image.height);
  const auto width = static_cast<double>(image.width);
  for (int i = 0; i < 10; ++i) {
    const double area = height * width * random.uniform(how.scale[0], how.scale[1]);
    const double ratio = std::exp(random.uniform(std::log(how.ratio[0]), std::log(how.ratio[1])));
    const std::int64_t w = round_even(std::sqrt(area * ratio));
    const std::int64_t h = round_even(std::sqrt(area / ratio));
    if (w < 1 || h < 1 || w > image.width || h > image.height) continue;
    const std::int64_t y = random.below(image.height - h + 1);
    const std::int64_t x = random.below(image.width - w + 1);
    return {.y = y, .x = x, .height = h, .width = w};
  }
  const double ratio = width / height;
  const std::int64_t h = ratio < how.ratio[0] ? round_even(width / how.ratio[0]) : image.height;
  const std::int64_t w = ratio > how.ratio[1] ? round_even(height * how.ratio[1]) : image.width;
  const Window part{.y = 0,
                    .x = 0,
                    .height = std::clamp<std::int64_t>(h, 1, image.height),
                    .width = std::clamp<std::int64_t>(w, 1, image.width)};
  return {.y = (image.height - part.height) / 2,
          .x = (image.width - part.width) / 2,
          .height = part.height,
          .width = part.width};
}

// The picture moved by up to `padding` pixels either way, black where it leaves its frame.
Image padded_crop(const Image& image, std::int64_t padding, Random& random) {
  const std::int64_t down = random.below(2 * padding + 1) - padding;
  const std::int64_t right = random.below(2 * padding + 1) - padding;
  Image out{image.height, image.width, image.channels, std::vector<std::uint8_t>(image.pixels.size())};
  const std::int64_t count = image.width - std::abs(right);
  if (count <= 0) return out;
  const std::int64_t from = std::max<std::int64_t>(0, -right);
  const std::int64_t to = std::max<std::int64_t>(0, right);
  const std::int64_t bottom = std::min(image.height, image.height + down);
  for (std::int64_t y = std::max<std::int64_t>(0, down); y < bottom; ++y) {
    std::copy_n(image.pixels.data() + ((y - down) * image.width + from) * image.channels, count * image.channels,
                out.pixels.data() + (y * image.width + to) * image.channels);
  }
  return out;
}

void flip(Image& image) {
  std::uint8_t* row = image.pixels.data();
  for (std::int64_t y = 0; y < image.height; ++y, row += image.width * 3) {
    std::uint8_t* left = row;
    std::uint8_t* right = row + (image.width - 1) * 3;
    for (; left < right; left += 3, right -= 3) std::swap_ranges(left, left + 3, right);
  }
}

// A part of the planes [3, side, side] replaced, as timm's RandomErasing does.
void erase(const Augment& how, std::int64_t side, Random& random, std::span<float> planes) {
  if (!random.chance(how.reprob)) return;
  for (int i = 0; i < 10; ++i) {
    const double area = static_cast<double>(side * side) * random.uniform(how.re_area[0], how.re_area[1]);
    const double ratio = std::exp(random.uniform(std::log(how.re_ratio[0]), std::log(how.re_ratio[1])));
    const std::int64_t height = round_even(std::sqrt(area * ratio));
    const std::int64_t width = round_even(std::sqrt(area / ratio));
    if (height >= side || width >= side) continue;
    const std::int64_t top = random.below(side - height + 1);
    const std::int64_t left = random.below(side - width + 1);
    for (std::int64_t c = 0; c < 3; ++c) {
      double value = how.remode == EraseMode::kConst ? 0 : random.normal();
      for (std::int64_t y = top; y < top + height; ++y) {
        for (std::int64_t x = left; x < left + width; ++x) {
          planes[static_cast<std::size_t>((c * side + y) * side + x)] = static_cast<float>(value);
          if (how.remode == EraseMode::kPixel) value = random.normal();
        }
      }
    }
    return;
  }
}

// The colour that normalisation makes zero, as nearly as pixels can.
std::array<std::uint8_t, 3> mean_color(const Preprocess& preprocess) {
  std::array<std::uint8_t, 3> color;
  for (std::size_t c = 0; c < 3; ++c) {
    color[c] = static_cast<std::uint8_t>(std::clamp(std::nearbyint(preprocess.mean[c]), 0.0F, 255.0F));
  }
  return color;
}

}  // namespace

Augment imagenet_recipe() {
  return {.crop = Crop::kRandomResized,
          .hflip = 0.5,
          .ra_ops = 2,
          .reprob = 0.25,
          .mixup = 0.8,
          .cutmix = 1,
          .smoothing = 0.1};
}

Augment cifar_recipe() { return {.crop = Crop::kPad, .hflip = 0.5}; }

void validate(const Augment& how) {
  RangeCheck check;
  const auto probability = [&](double p, std::string_view field) { check.expect(p >= 0 && p <= 1, field, "0 … 1"); };
  const auto bounds = [&](const std::array<double, 2>& b, double highest, std::string_view field) {
    check.expect(b[0] > 0 && b[0] <= b[1] && b[1] <= highest, field,
                 fmt::format("two numbers a ≤ b within 0 … {}, without 0", highest));
  };
  check.within(how.padding, 0, 65535, "padding");
  bounds(how.scale, 1, "scale");
  bounds(how.ratio, 1000, "ratio");
  probability(how.hflip, "hflip");
  check.within(how.ra_ops, 0, 100, "ra_ops");
  check.expect(how.ra_magnitude >= 0 && how.ra_magnitude <= 10, "ra_magnitude", "0 … 10");
  check.expect(how.ra_std >= 0 && how.ra_std <= 100, "ra_std", "0 … 100");
  probability(how.ra_prob, "ra_prob");
  probability(how.reprob, "reprob");
  bounds(how.re_area, 1, "re_area");
  bounds(how.re_ratio, 1000, "re_ratio");
  check.expect(how.mixup >= 0 && how.mixup <= 1000, "mixup", "0 … 1000");
  check.expect(how.cutmix >= 0 && how.cutmix <= 1000, "cutmix", "0 … 1000");
  probability(how.mixup_prob, "mixup_prob");
  probability(how.mixup_switch_prob, "mixup_switch_prob");
  check.expect(how.smoothing >= 0 && how.smoothing < 1, "smoothing", "at least 0 and below 1");
  check.done(kPlace);
}

Augmenter::Augmenter(const Augment& how, const Preprocess& preprocess)
    : how_((validate(how), how)),
      preprocess_((validate(preprocess), preprocess)),
      normalise_(preprocess),
      fill_(mean_color(preprocess)) {
  require<ConfigError>(preprocess_.crop > 0, kPlace,
                       "pictures of one batch must have one size: expected a preprocessing that crops, got crop 0");
}

Image Augmenter::pixels(const Image& image, Random& random) const {
  Image out;
  if (how_.crop == Crop::kRandomResized) {
    validate(image);
    require<ShapeError>(image.channels == 3, kPlace, "expected an RGB picture, got {} channels", image.channels);
    const Window window = random_part(image, how_, random);
    const Image part = resize_window(image, {image.height, image.width}, window, Filter::kNearest);
    out = resize(part, side(), side(), draw_filter(how_.interpolation, random));
  } else {
    out = prepare(image, preprocess_);
    if (how_.crop == Crop::kPad) out = padded_crop(out, how_.padding, random);
  }
  if (random.chance(how_.hflip)) flip(out);
  if (how_.ra_ops == 0) return out;
  return rand_augment(std::move(out),
                      {.ops = how_.ra_ops,
                       .probability = how_.ra_prob,
                       .magnitude = how_.ra_magnitude,
                       .std = how_.ra_std,
                       .increasing = how_.ra_increasing,
                       .interpolation = how_.interpolation},
                      fill_, random);
}

void Augmenter::input(const Image& image, Random& random, std::span<float> out) const {
  normalise_(pixels(image, random), out);
  erase(how_, side(), random, out);
}

}  // namespace weft
