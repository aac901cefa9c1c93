// Pictures: decoding, Pillow-exact resizing, and the way from a picture to a model's input.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "weft/api.h"
#include "weft/tensor.h"

namespace weft {

/// 8-bit pixels, rows top to bottom, channels interleaved [height, width, channels]; upright (EXIF orientation
/// applied).
struct WEFT_API Image {
  std::int64_t height = 0;
  std::int64_t width = 0;
  std::int64_t channels = 3;
  std::vector<std::uint8_t> pixels;

  bool operator==(const Image&) const = default;
};

/// Bounds that a picture must keep to before anything of its size is allocated.
struct WEFT_API DecodeLimits {
  std::int64_t max_side = 65535;
  std::int64_t max_pixels = std::int64_t{1} << 28;
};

/// Decodes JPEG, PNG, WebP, GIF, TIFF or HEIF (libvips) to upright 8-bit RGB, as training pipelines on Pillow see it:
/// the EXIF orientation is applied (values other than 1 … 8 count as 1); grey and palette pictures become RGB;
/// transparency is dropped without blending; of several pages or frames the first is taken; 16-bit samples keep their
/// upper 8 bits (Pillow does so for RGB; its 16-bit grey saturates instead). Embedded ICC profiles of grey and RGB
/// pictures are ignored, as Pillow and torchvision do; CMYK and Lab become sRGB through the embedded profile or
/// libvips' default one (Pillow's CMYK is an uncalibrated approximation). Throws IoError for a file that is missing,
/// damaged, truncated, of another format or over the limits; the message starts with the path. Safe from several
/// threads; a call uses no thread but its own.
WEFT_API Image decode_image(const std::filesystem::path& path, const DecodeLimits& limits = {});
/// The same for an encoded picture in memory; `name` stands for the path in messages.
WEFT_API Image decode_image(std::span<const std::byte> bytes, std::string_view name, const DecodeLimits& limits = {});

/// Resampling filters, by Pillow's names.
enum class Filter { kNearest, kBox, kBilinear, kBicubic, kLanczos };

/// "bicubic" …; parse_filter throws ConfigError for an unknown name.
WEFT_API std::string_view name_of(Filter filter);
WEFT_API Filter parse_filter(std::string_view name);

/// Resizes a picture of 1 to 4 channels with antialiasing, equal to Pillow's Image.resize to the bit for 8-bit pixels.
/// Channels are resized independently: modes L, RGB, RGBX and CMYK of Pillow (its LA and RGBA multiply by alpha first).
/// Throws ShapeError when a target side is not positive or the picture is not what its fields say.
WEFT_API Image resize(const Image& image, std::int64_t height, std::int64_t width, Filter filter);

/// The centre [height, width] of a picture, by torchvision's CenterCrop: offsets round((n − crop) / 2) with ties to
/// even, zero padding where the picture is smaller.
WEFT_API Image center_crop(const Image& image, std::int64_t height, std::int64_t width);

/// How a model wants its pictures: resize the shorter side (the longer one truncated, as torchvision does), crop the
/// centre, normalise (pixel − mean) / std with pixels in 0…255, channels in RGB order.
struct WEFT_API Preprocess {
  /// Shorter side after resizing; 0 leaves the size as it is.
  std::int64_t resize = 256;
  /// Side of the centre crop; 0 keeps the whole picture (any size).
  std::int64_t crop = 224;
  Filter filter = Filter::kBicubic;
  std::array<float, 3> mean = {123.675F, 116.28F, 103.53F};
  std::array<float, 3> std = {58.395F, 57.12F, 57.375F};

  /// The same normalisation at the picture's own size.
  Preprocess any_size() const;
  bool operator==(const Preprocess&) const = default;
};

/// Throws ConfigError when resize or crop is not within 0 … 65535, a mean not finite or a std not positive.
WEFT_API void validate(const Preprocess& how);

/// The pixels of one RGB picture after resize and crop, before normalisation. Only what the crop shows is computed.
/// Throws ShapeError for a picture of other than 3 channels, ConfigError for a senseless `how`.
WEFT_API Image prepare(const Image& image, const Preprocess& how);

/// f32 [B,3,H,W] from pictures that have equal sizes after prepare(). Throws ShapeError when they differ.
WEFT_API Tensor to_input(std::span<const Image> images, const Preprocess& how);

}  // namespace weft
