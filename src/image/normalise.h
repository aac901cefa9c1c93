// From 8-bit pixels to a model's numbers.
#pragma once

#include <array>
#include <cstddef>
#include <span>

#include "weft/image.h"

namespace weft {

/// (pixel − mean) / std by table: 256 values per channel, which stay in the first-level cache.
class Normalisation {
 public:
  explicit Normalisation(const Preprocess& how) {
    for (std::size_t c = 0; c < 3; ++c) {
      for (std::size_t value = 0; value < 256; ++value) {
        table_[c][value] = (static_cast<float>(value) - how.mean[c]) / how.std[c];
      }
    }
  }

  /// An RGB picture [H,W,3] to the planes [3,H,W]; `out` holds as many elements.
  void operator()(const Image& image, std::span<float> out) const {
    const std::size_t plane = out.size() / 3;
    for (std::size_t c = 0; c < 3; ++c) {
      const std::uint8_t* const in = image.pixels.data() + c;
      float* const to = out.data() + c * plane;
      for (std::size_t i = 0; i < plane; ++i) to[i] = table_[c][in[3 * i]];
    }
  }

 private:
  std::array<std::array<float, 256>, 3> table_;
};

}  // namespace weft
