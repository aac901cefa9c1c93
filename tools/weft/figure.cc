#include "figure.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string_view>

namespace weft::cli {
namespace {

// In pixels of a figure that is not scaled.
constexpr double kPanelWidth = 400, kPanelHeight = 320;
constexpr double kLeft = 70, kTop = 56, kBetween = 84, kRight = 24;
constexpr double kBelow = 56;  // ticks and the title of the x axis
constexpr double kLegendLine = 20;
constexpr std::size_t kColours = 7;
constexpr std::size_t kDots = 60;  // points of a line that are marked; more would hide it

// Okabe and Ito's colours, told apart by people who are colour-blind: darker on light pages, lighter on dark ones.
constexpr std::array<std::string_view, kColours> kOnLight = {"#0072b2", "#d55e00", "#00805e", "#b4558d",
                                                             "#9a6a00", "#3b8fc4", "#555555"};
constexpr std::array<std::string_view, kColours> kOnDark = {"#4aa8e8", "#ff8a3d", "#2fd0a0", "#e79cc6",
                                                            "#f0b840", "#8fd0f5", "#bbbbbb"};
constexpr std::array<std::string_view, 3> kDashes = {"", "7 4", "2 4"};

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

bool drawable(const Point& p, Scale scale) {
  const bool positive = p.x > 0 && p.y > 0;
  return std::isfinite(p.x) && std::isfinite(p.y) && (positive || scale == Scale::kLinear);
}

// An axis from `low` to `high`, drawn from `begin` to `end`.
struct Axis {
  Scale scale;
  double low, high;
  double begin, end;
  double place(double value) const {
    const double share =
        scale == Scale::kLinear ? (value - low) / (high - low) : std::log(value / low) / std::log(high / low);
    return begin + (end - begin) * share;
  }
};

// From the smallest to the largest value, and a little more above.
Axis linear_axis(const std::vector<double>& values, double begin, double end) {
  const double low = values.empty() ? 0 : *std::ranges::min_element(values);
  const double high = values.empty() ? 1 : *std::ranges::max_element(values);
  const double size = std::max(std::abs(low), std::abs(high));
  const double span = high - low > 1e-9 * size ? high - low : std::max(size, 1e-9);  // apart by more than rounding
  return {Scale::kLinear, low, low + 1.04 * span, begin, end};
}

// A little more than the values need, at least an octave.
Axis axis_for(const std::vector<double>& values, Scale scale, double begin, double end) {
  if (scale == Scale::kLinear) return linear_axis(values, begin, end);
  constexpr double kMargin = 1.12;
  double low = values.empty() ? 1 : *std::ranges::min_element(values);
  double high = values.empty() ? 1 : *std::ranges::max_element(values);
  const double widen = std::max(std::sqrt(2 * low / high), 1.0) * kMargin;
  return {Scale::kLogarithmic, low / widen, high * widen, begin, end};
}

// Some five multiples of 1, 2 or 5 times a power of ten.
std::vector<double> linear_ticks(const Axis& axis) {
  const double rough = (axis.high - axis.low) / 5;
  const double decade = std::pow(10, std::floor(std::log10(rough)));
  const double step = decade * (rough < 2 * decade ? 2 : rough < 5 * decade ? 5 : 10);
  std::vector<double> ticks;
  for (double i = std::ceil(axis.low / step); i * step <= axis.high; ++i) ticks.push_back(i * step);
  return ticks;
}

// Round numbers on the axis: whole decades, or as much finer as it takes for three of them.
std::vector<double> ticks_of(const Axis& axis) {
  if (axis.scale == Scale::kLinear) return linear_ticks(axis);
  const std::vector<std::vector<double>> steps = {{1},
                                                  {1, 3},
                                                  {1, 2, 5},
                                                  {1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9},
                                                  {1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9}};
  std::vector<double> ticks;
  for (const std::vector<double>& step : steps) {
    ticks.clear();
    for (int decade = static_cast<int>(std::floor(std::log10(axis.low))); std::pow(10, decade) <= axis.high; ++decade) {
      for (const double digits : step) {
        const double tick = digits * std::pow(10, decade);
        if (tick >= axis.low && tick <= axis.high) ticks.push_back(tick);
      }
    }
    if (ticks.size() >= 3) break;
  }
  return ticks;
}

// The values themselves, without those that would stand on another's label.
std::vector<double> ticks_at(std::vector<double> values, const Axis& axis) {
  constexpr double kApart = 34;
  std::ranges::sort(values);
  std::vector<double> ticks;
  for (const double value : values) {
    if (ticks.empty() || axis.place(value) - axis.place(ticks.back()) >= kApart) ticks.push_back(value);
  }
  return ticks;
}

std::string style() {
  std::string light, dark;
  for (std::size_t i = 0; i < kColours; ++i) {
    light += fmt::format("    .c{0} {{ stroke: {1}; fill: {1} }}\n", i, kOnLight[i]);
    dark += fmt::format("      .c{0} {{ stroke: {1}; fill: {1} }}\n", i, kOnDark[i]);
  }
  return fmt::format(
      "  <style>\n"
      "    text {{ font: 12px sans-serif; fill: #222222 }}\n"
      "    .title {{ font-size: 14px; font-weight: bold }}\n"
      "    .page {{ fill: #ffffff }}\n"
      "    .frame {{ stroke: #777777; fill: none }}\n"
      "    .grid {{ stroke: #dddddd }}\n"
      "{}"
      "    .line {{ fill: none; stroke-width: 2 }}\n"
      "    @media (prefers-color-scheme: dark) {{\n"
      "      text {{ fill: #dddddd }}\n"
      "      .page {{ fill: #0d1117 }}\n"
      "      .frame {{ stroke: #888888 }}\n"
      "      .grid {{ stroke: #333333 }}\n"
      "{}"
      "      .line {{ fill: none }}\n"
      "    }}\n"
      "  </style>\n",
      light, dark);
}

std::string dash(std::size_t line) {
  const std::string_view pattern = kDashes[line / kColours % kDashes.size()];
  return pattern.empty() ? "" : fmt::format(" stroke-dasharray=\"{}\"", pattern);
}

std::string text(double x, double y, std::string_view anchor, std::string_view content, std::string_view more = "") {
  return fmt::format("  <text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\"{}>{}</text>\n", x, y, anchor, more,
                     escaped(content));
}

std::string draw_line(const std::vector<Point>& points, const Axis& x, const Axis& y, std::size_t line) {
  std::string path, dots;
  std::vector<Point> sorted;
  std::ranges::copy_if(points, std::back_inserter(sorted), [&](const Point& p) { return drawable(p, x.scale); });
  std::ranges::sort(sorted, {}, &Point::x);
  for (const Point& p : sorted) {
    const double left = x.place(p.x);
    const double top = y.place(p.y);
    path += fmt::format("{}{:.1f},{:.1f}", path.empty() ? "" : " ", left, top);
    if (points.size() <= kDots)
      dots +=
          fmt::format("  <circle class=\"c{}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3\"/>\n", line % kColours, left, top);
  }
  if (sorted.empty()) return "";
  return fmt::format("  <polyline class=\"c{} line\" points=\"{}\"{}/>\n", line % kColours, path, dash(line)) + dots;
}

std::string draw_panel(const Figure& figure, const Figure::Panel& panel, double left) {
  const double right = left + kPanelWidth;
  const double bottom = kTop + kPanelHeight;
  std::vector<double> all_x, all_y;
  for (const auto& points : panel.y_of) {
    for (const Point& p : points) {
      if (!drawable(p, figure.scale)) continue;
      all_x.push_back(p.x);
      all_y.push_back(p.y);
    }
  }
  const Axis x = axis_for(all_x, figure.scale, left, right);
  const Axis y = axis_for(all_y, figure.scale, bottom, kTop);
  std::string svg;
  for (const double tick : figure.scale == Scale::kLinear ? ticks_of(x) : ticks_at(all_x, x)) {
    const double at = x.place(tick);
    svg +=
        fmt::format("  <line class=\"grid\" x1=\"{0:.1f}\" y1=\"{1}\" x2=\"{0:.1f}\" y2=\"{2}\"/>\n", at, kTop, bottom);
    svg += text(at, bottom + 18, "middle", fmt::format("{:.6g}", tick));
  }
  for (const double tick : ticks_of(y)) {
    const double at = y.place(tick);
    svg +=
        fmt::format("  <line class=\"grid\" x1=\"{1}\" y1=\"{0:.1f}\" x2=\"{2}\" y2=\"{0:.1f}\"/>\n", at, left, right);
    svg += text(left - 8, at + 4, "end", fmt::format("{:.6g}", tick));
  }
  svg += fmt::format("  <rect class=\"frame\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"/>\n", left, kTop,
                     kPanelWidth, kPanelHeight);
  svg += text(left, kTop - 10, "start", panel.title);
  svg += text((left + right) / 2, bottom + 40, "middle", figure.x_axis);
  for (std::size_t i = 0; i < panel.y_of.size(); ++i) svg += draw_line(panel.y_of[i], x, y, i);
  return svg;
}

}  // namespace

std::string to_svg(const Figure& figure) {
  const auto panels = static_cast<double>(figure.panels.size());
  const double width = kLeft + panels * kPanelWidth + (panels - 1) * kBetween + kRight;
  const double legend = kTop + kPanelHeight + kBelow;
  const double height = legend + kLegendLine * static_cast<double>(figure.lines.size()) + 12;
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} {1}\" role=\"img\">\n"
      "  <title>{2}</title>\n{3}"
      "  <rect class=\"page\" width=\"{0}\" height=\"{1}\"/>\n",
      width, height, escaped(figure.title), style());
  svg += text(kLeft, 22, "start", figure.title, " class=\"title\"");
  double left = kLeft;
  for (const Figure::Panel& panel : figure.panels) {
    svg += draw_panel(figure, panel, left);
    left += kPanelWidth + kBetween;
  }
  for (std::size_t i = 0; i < figure.lines.size(); ++i) {
    const double y = legend + kLegendLine * (static_cast<double>(i) + 0.5);
    svg += fmt::format("  <polyline class=\"c{0} line\" points=\"{1},{2} {3},{2}\"{4}/>\n", i % kColours, kLeft, y,
                       kLeft + 36, dash(i));
    svg += text(kLeft + 46, y + 4, "start", figure.lines[i]);
  }
  return svg + "</svg>\n";
}

}  // namespace weft::cli
