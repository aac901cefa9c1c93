// What networks share that mix tokens by products along the token axis: their weights fix how many tokens there are.
#pragma once

#include <array>
#include <string_view>
#include <utility>

#include "core/format.h"
#include "graph/graph.h"
#include "ops/layout/layout.h"

namespace weft {

/// Throws ShapeError unless the picture [B,C,H,W] has the size that the weights were made for.
inline void require_img_size(Value image, std::array<int, 2> img_size, std::string_view family) {
  const std::int64_t height = image.shape()[2];
  const std::int64_t width = image.shape()[3];
  require<ShapeError>(height == img_size[0] && width == img_size[1], family,
                      "the picture must be {} x {} pixels, because the weights fix the number of tokens, got {} x {}; "
                      "resize the picture, or make a new model with img_size=[{},{}]",
                      img_size[0], img_size[1], height, width, height, width);
}

/// mix(x) for x with channels and tokens exchanged: x [B,T,C], mix from [B,C,T] to [B,C,T'], the result [B,T',C].
template <class F>
Value along_tokens(Value x, F&& mix) {
  return permute(std::forward<F>(mix)(permute(x, {0, 2, 1})), {0, 2, 1});
}

}  // namespace weft
