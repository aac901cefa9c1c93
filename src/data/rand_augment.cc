#include "data/rand_augment.h"

#include <algorithm>

namespace weft {
namespace {

// The largest translation, as a share of the side.
constexpr double kMaxTranslation = 0.45;

// A blend's factor: through 0.1 … 1.9, or away from 1, where nothing changes, to either side.
double factor_of(double share, bool increasing, bool negative) {
  if (!increasing) return share * 1.8 + 0.1;
  return std::max(0.1, 1 + (negative ? -share : share) * 0.9);
}

}  // namespace

Filter draw_filter(Interpolation interpolation, Random& random) {
  if (interpolation == Interpolation::kRandom) return random.chance(0.5) ? Filter::kBilinear : Filter::kBicubic;
  return interpolation == Interpolation::kBilinear ? Filter::kBilinear : Filter::kBicubic;
}

double argument_of(PictureOp op, double level, bool increasing, bool negative) {
  const double share = level / 10;
  const double sign = negative ? -1 : 1;
  switch (op) {
    case PictureOp::kAutoContrast:
    case PictureOp::kEqualize:
    case PictureOp::kInvert:
      return 0;
    case PictureOp::kRotate:
      return sign * share * 30;
    case PictureOp::kPosterize:
      return increasing ? 4 - static_cast<int>(share * 4) : static_cast<int>(share * 4);
    case PictureOp::kSolarize:
      return increasing ? 256 - static_cast<int>(share * 256) : static_cast<int>(share * 256);
    case PictureOp::kSolarizeAdd:
      return static_cast<int>(share * 110);
    case PictureOp::kColor:
    case PictureOp::kContrast:
    case PictureOp::kBrightness:
    case PictureOp::kSharpness:
      return factor_of(share, increasing, negative);
    case PictureOp::kShearX:
    case PictureOp::kShearY:
      return sign * share * 0.3;
    case PictureOp::kTranslateX:
    case PictureOp::kTranslateY:
      return sign * share * kMaxTranslation;
  }
  return 0;
}

Image apply(PictureOp op, const Image& image, double argument, const Resampling& how) {
  switch (op) {
    case PictureOp::kAutoContrast:
      return auto_contrast(image);
    case PictureOp::kEqualize:
      return equalize(image);
    case PictureOp::kInvert:
      return invert(image);
    case PictureOp::kRotate:
      return rotate(image, argument, how);
    case PictureOp::kPosterize:
      return posterize(image, static_cast<int>(argument));
    case PictureOp::kSolarize:
      return solarize(image, static_cast<int>(argument));
    case PictureOp::kSolarizeAdd:
      return solarize_add(image, static_cast<int>(argument));
    case PictureOp::kColor:
      return adjust_color(image, argument);
    case PictureOp::kContrast:
      return adjust_contrast(image, argument);
    case PictureOp::kBrightness:
      return adjust_brightness(image, argument);
    case PictureOp::kSharpness:
      return adjust_sharpness(image, argument);
    case PictureOp::kShearX:
      return affine(image, {1, argument, 0, 0, 1, 0}, how);
    case PictureOp::kShearY:
      return affine(image, {1, 0, 0, argument, 1, 0}, how);
    case PictureOp::kTranslateX:
      return affine(image, {1, 0, argument * static_cast<double>(image.width), 0, 1, 0}, how);
    case PictureOp::kTranslateY:
      return affine(image, {1, 0, 0, 0, 1, argument * static_cast<double>(image.height)}, how);
  }
  return image;
}

Image rand_augment(Image image, const RandAugment& how, const std::array<std::uint8_t, 3>& fill, Random& random) {
  for (int i = 0; i < how.ops; ++i) {
    const auto op = static_cast<PictureOp>(random.below(kPictureOps));
    if (!random.chance(how.probability)) continue;
    const double noise = how.std > 0 ? how.std * random.normal() : 0;
    const double level = std::clamp(how.magnitude + noise, 0.0, 10.0);
    const double argument = argument_of(op, level, how.increasing, random.chance(0.5));
    image = apply(op, image, argument, {.filter = draw_filter(how.interpolation, random), .fill = fill});
  }
  return image;
}

}  // namespace weft
