// Figures as SVG: panels of curves side by side, both axes logarithmic, one legend below.
#pragma once

#include <string>
#include <vector>

namespace weft::cli {

struct Point {
  double x = 0;  // > 0
  double y = 0;  // > 0
};

struct Figure {
  struct Panel {
    std::string title;                     // of the y axis, with its unit
    std::vector<std::vector<Point>> y_of;  // the points of each line
  };
  std::string title;
  std::string x_axis;
  std::vector<std::string> lines = {};  // the legend; the same lines in every panel
  std::vector<Panel> panels;
};

/// A whole SVG document, readable on light and on dark pages. Points that are not positive and finite are left out.
std::string to_svg(const Figure& figure);

}  // namespace weft::cli
