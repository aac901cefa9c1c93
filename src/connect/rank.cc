#include "connect/rank.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <span>

namespace weft {
namespace {

// Σ x·y in eight interleaved sums, which compilers turn into vectors.
double dot(std::span<const double> x, std::span<const double> y) {
  constexpr std::size_t kLanes = 8;
  std::array<double, kLanes> sums{};
  std::size_t i = 0;
  for (; i + kLanes <= x.size(); i += kLanes) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) sums[lane] += x[i + lane] * y[i + lane];
  }
  double sum = 0;
  for (; i < x.size(); ++i) sum += x[i] * y[i];
  for (const double part : sums) sum += part;
  return sum;
}

}  // namespace

std::int64_t numerical_rank(std::vector<double> columns, std::int64_t rows, const Workers& workers) {
  if (rows == 0) return 0;
  const auto count = static_cast<std::int64_t>(columns.size()) / rows;
  // What is left of a column below row `from`.
  const auto tail = [&](std::int64_t column, std::int64_t from) {
    return std::span(columns).subspan(static_cast<std::size_t>(column * rows + from),
                                      static_cast<std::size_t>(rows - from));
  };
  double least = 0;
  for (std::int64_t k = 0; k < std::min(rows, count); ++k) {
    std::vector<double> squares(static_cast<std::size_t>(count));  // computed afresh: no cancellation
    workers.parallel_for(count - k, 16, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t j = k + begin; j < k + end; ++j)
        squares[static_cast<std::size_t>(j)] = dot(tail(j, k), tail(j, k));
    });
    const std::int64_t pivot = std::max_element(squares.begin() + k, squares.end()) - squares.begin();
    const double norm = std::sqrt(squares[static_cast<std::size_t>(pivot)]);
    if (k == 0) least = norm * static_cast<double>(std::max(rows, count)) * std::ldexp(1.0, -23);
    if (norm <= least) return k;
    std::swap_ranges(tail(k, 0).begin(), tail(k, 0).end(), tail(pivot, 0).begin());
    const std::span<double> v = tail(k, k);  // becomes the Householder vector x + sign(x₀)·‖x‖·e₀
    v[0] += std::copysign(norm, v[0]);
    const double scale = 2 / dot(v, v);
    workers.parallel_for(count - k - 1, 16, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t j = k + 1 + begin; j < k + 1 + end; ++j) {
        const std::span<double> column = tail(j, k);
        const double share = scale * dot(v, column);
        for (std::size_t i = 0; i < column.size(); ++i) column[i] -= share * v[i];
      }
    });
  }
  return std::min(rows, count);
}

}  // namespace weft
