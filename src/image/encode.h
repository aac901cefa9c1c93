// Pictures as files.
#pragma once

#include <cstddef>
#include <vector>

#include "weft/image.h"

namespace weft {

/// PNG of 8-bit grey (1 channel) or RGB (3). Throws ShapeError for a picture that is not what its fields say, IoError
/// when libvips fails.
std::vector<std::byte> encode_png(const Image& image);

}  // namespace weft
