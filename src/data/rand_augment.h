// RandAugment (Cubuk 2019, arXiv 1909.13719) as timm has it.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <utility>

#include "core/random.h"
#include "data/picture_ops.h"

namespace weft {

enum class PictureOp {
  kAutoContrast,
  kEqualize,
  kInvert,
  kRotate,
  kPosterize,
  kSolarize,
  kSolarizeAdd,
  kColor,
  kContrast,
  kBrightness,
  kSharpness,
  kShearX,
  kShearY,
  kTranslateX,
  kTranslateY,
};
inline constexpr int kPictureOps = 15;

/// Filters for random geometry; kRandom takes one of the other two each time, as timm does.
enum class Interpolation { kBilinear, kBicubic, kRandom };
constexpr std::array<std::pair<Interpolation, std::string_view>, 3> enum_names(Interpolation) {
  return {{{Interpolation::kBilinear, "bilinear"},
           {Interpolation::kBicubic, "bicubic"},
           {Interpolation::kRandom, "random"}}};
}
Filter draw_filter(Interpolation interpolation, Random& random);

struct RandAugment {
  /// Operations on a picture, drawn with replacement, and the probability that one drawn is done.
  int ops = 2;
  double probability = 0.5;
  /// Strength on a scale to 10: drawn around `magnitude` with standard deviation `std`, kept within 0 … 10.
  double magnitude = 9;
  double std = 0.5;
  /// Whether posterize, solarize, colour, contrast, brightness and sharpness grow stronger with the magnitude too
  /// (timm's "inc1", the recipe of DeiT, Swin and Vision-RWKV), rather than run through their range.
  bool increasing = true;
  Interpolation interpolation = Interpolation::kBicubic;
};

/// The argument of an operation at a level within 0 … 10: degrees, bits, a threshold, a factor, or a share of the side;
/// `negative` turns it the other way where it has two. 0 for operations without one.
double argument_of(PictureOp op, double level, bool increasing, bool negative);

/// One operation with its argument.
Image apply(PictureOp op, const Image& image, double argument, const Resampling& how);

/// Draws operations and applies them; places outside the picture show `fill`.
Image rand_augment(Image image, const RandAugment& how, const std::array<std::uint8_t, 3>& fill, Random& random);

}  // namespace weft
