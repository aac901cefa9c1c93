// Tile ops that multiply by weights.
#pragma once

#include <memory>

#include "torch/tile_ops.h"

namespace weft::torch_engine {

/// Of a Linear, and of a PatchEmbed.
std::unique_ptr<TileOp> make_linear_op(const TileRequest& request);
std::unique_ptr<TileOp> make_patch_op(const TileRequest& request);

}  // namespace weft::torch_engine
