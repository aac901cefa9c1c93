// The part of a resized picture that is wanted, computed without the rest of it.
#pragma once

#include <cstdint>

#include "weft/image.h"

namespace weft {

struct Size {
  std::int64_t height = 0;
  std::int64_t width = 0;
  bool operator==(const Size&) const = default;
};

/// A rectangle inside a picture.
struct Window {
  std::int64_t y = 0;
  std::int64_t x = 0;
  std::int64_t height = 0;
  std::int64_t width = 0;
};

/// Throws ShapeError unless the sides are positive, there are 1 to 4 channels and as many pixels as that makes.
void validate(const Image& image);

/// The pixels of resize(image, size, filter) inside `window`, which lies within `size`. Memory and time depend on the
/// window, not on the size.
Image resize_window(const Image& image, Size size, const Window& window, Filter filter);

}  // namespace weft
