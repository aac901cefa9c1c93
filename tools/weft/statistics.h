// Medians, quantiles and slopes of what was measured.
#pragma once

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>
#include <vector>

namespace weft::cli {

/// The q-quantile, q in 0 … 1, by linear interpolation between the closest ranks. There must be a value.
inline double quantile(std::vector<double> values, double q) {
  std::ranges::sort(values);
  const double position = q * static_cast<double>(values.size() - 1);
  const auto low = static_cast<std::size_t>(position);
  const std::size_t high = std::min(low + 1, values.size() - 1);
  return values[low] + (position - static_cast<double>(low)) * (values[high] - values[low]);
}

inline double median(std::vector<double> values) { return quantile(std::move(values), 0.5); }

/// a in y ~ x^a: the least-squares slope of log y over log x. Needs two different x.
inline double fit_exponent(std::span<const std::pair<double, double>> points) {
  double mean_x = 0, mean_y = 0, xx = 0, xy = 0;
  const auto n = static_cast<double>(points.size());
  for (const auto& [x, y] : points) {
    mean_x += std::log(x) / n;
    mean_y += std::log(y) / n;
  }
  for (const auto& [x, y] : points) {
    const double from_mean = std::log(x) - mean_x;
    xx += from_mean * from_mean;
    xy += from_mean * (std::log(y) - mean_y);
  }
  return xy / xx;
}

}  // namespace weft::cli
