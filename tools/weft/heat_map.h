// Pictures of connections: weights as colours.
#pragma once

#include <cstdint>
#include <span>

#include "weft/image.h"

namespace weft::cli {

/// Numbers over a grid, row by row.
struct Field {
  std::int64_t height = 0;
  std::int64_t width = 0;
  std::span<const float> values;
};

/// A cell of a grid.
struct Cell {
  std::int64_t y = 0, x = 0;
};

/// One panel for each field side by side, each on its own scale: black over purple and orange to yellow from 0 to the
/// largest, or, where values are negative, blue for the least over white for 0 to red. `at`, if any, is framed.
///
/// heat_map shows each value as a square; a large field is shrunk, keeping what is farthest from 0. heat_over lays the
/// colours over a picture of which the field's cells are equal parts.
Image heat_map(std::span<const Field> fields);
Image heat_over(const Image& picture, std::span<const Field> fields, const Cell& at);

}  // namespace weft::cli
