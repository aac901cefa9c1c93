// Figures as SVG: panels of curves side by side, one legend below.
#pragma once

#include <string>
#include <vector>

namespace weft::cli {

struct Point {
  double x = 0;
  double y = 0;
};

/// Of both axes.
enum class Scale { kLogarithmic, kLinear };

struct Figure {
  struct Panel {
    std::string title;                     // of the y axis, with its unit
    std::vector<std::vector<Point>> y_of;  // the points of each line
  };
  std::string title;
  std::string x_axis;
  Scale scale = Scale::kLogarithmic;
  std::vector<std::string> lines = {};  // the legend; the same lines in every panel
  std::vector<Panel> panels;
};

/// A whole SVG document, readable on light and on dark pages. Points that are not finite are left
/// out, and on logarithmic axes those that are not positive.
std::string to_svg(const Figure& figure);

}  // namespace weft::cli
