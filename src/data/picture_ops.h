// The operations that RandAugment varies a picture with, in Pillow's arithmetic. All take RGB pictures.
#pragma once

#include <array>
#include <cstdint>

#include "weft/image.h"

namespace weft {

/// Each channel stretched linearly, so that it reaches from 0 to 255 (ImageOps.autocontrast).
Image auto_contrast(const Image& image);
/// Each channel's histogram flattened (ImageOps.equalize).
Image equalize(const Image& image);
/// 255 − x (ImageOps.invert).
Image invert(const Image& image);
/// The upper `bits` bits of each pixel, 0 … 8 (ImageOps.posterize).
Image posterize(const Image& image, int bits);
/// Pixels of at least `threshold` inverted (ImageOps.solarize).
Image solarize(const Image& image, int threshold);
/// `add` ≥ 0 added to pixels below 128, up to 255 (timm's solarize_add).
Image solarize_add(const Image& image, int add);

/// Blends with the degenerate picture by `factor`: 0 gives that one, 1 the picture itself, more exaggerates
/// (ImageEnhance). Degenerate is, in this order: the picture in grey; its mean grey; black; the picture smoothed.
Image adjust_color(const Image& image, double factor);
Image adjust_contrast(const Image& image, double factor);
Image adjust_brightness(const Image& image, double factor);
Image adjust_sharpness(const Image& image, double factor);

/// How places outside the picture and between its pixels are seen.
struct Resampling {
  /// kBilinear or kBicubic (the latter with a = −1, which Pillow takes for transforms).
  Filter filter = Filter::kBicubic;
  std::array<std::uint8_t, 3> fill = {};
};

/// (x, y) of the result, pixel centres at halves, shows m[0]·x + m[1]·y + m[2], m[3]·x + m[4]·y + m[5] of the picture
/// (Image.transform with AFFINE).
Image affine(const Image& image, const std::array<double, 6>& m, const Resampling& how);
/// Turned counter-clockwise around its centre (Image.rotate).
Image rotate(const Image& image, double degrees, const Resampling& how);

}  // namespace weft
