#include "ops/sliding_attention/sliding_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/format.h"

namespace weft {

double SlidingAttention::factor(std::int64_t head_channels) const {
  return scale != 0 ? double{scale} : 1 / std::sqrt(static_cast<double>(head_channels));
}

std::vector<TensorType> infer(const SlidingAttention& a, std::span<const TensorType> in) {
  constexpr std::string_view kPlace = SlidingAttention::kName;
  constexpr int kLargestKernel = 1023;
  require<ConfigError>(a.heads >= 1, kPlace, "heads must be at least 1, got {}", a.heads);
  require<ConfigError>(a.kernel_size >= 1 && a.kernel_size <= kLargestKernel && a.kernel_size % 2 == 1, kPlace,
                       "kernel_size must be odd and 1 … {}, got {}", kLargestKernel, a.kernel_size);
  require<ConfigError>(std::isfinite(a.scale), kPlace, "scale must be finite, got {}", a.scale);
  require<ConfigError>(a.height >= 0 && a.width >= 0, kPlace, "the grid must not be negative, got {} x {}", a.height,
                       a.width);
  require<ShapeError>(in.size() == 3 || in.size() == 4, kPlace, "takes q, k, v and maybe a bias, got {} inputs",
                      in.size());
  const Shape& q = in[0].shape;
  const std::int64_t tokens = std::int64_t{a.height} * a.width;
  require<ShapeError>(q.rank() == 3 && q[1] == tokens && q[2] >= 1, kPlace,
                      "q must be [B,T,C]=[B,{},C] for a grid of {} x {}, with C ≥ 1, got {}", tokens, a.height, a.width,
                      q);
  require<ShapeError>(q[2] % a.heads == 0, kPlace, "{} heads do not divide the {} channels of q", a.heads, q[2]);
  require<ShapeError>(in[1].shape == q && in[2].shape == q, kPlace, "k and v must be like q {}, got {} and {}", q,
                      in[1].shape, in[2].shape);
  const Shape bias{a.heads, std::int64_t{a.kernel_size} * a.kernel_size};
  require<ShapeError>(in.size() == 3 || in[3].shape == bias, kPlace, "the bias must be {}, got {}", bias,
                      in.back().shape);
  require<ShapeError>(std::ranges::all_of(in, [&](const TensorType& type) { return type.dtype == in[0].dtype; }),
                      kPlace, "inputs must have one element type, got {}", fmt::join(in, " and "));
  return {in[0]};
}

std::int64_t macs(const SlidingAttention& attributes, std::span<const TensorType> in) {
  return count_product({2, in[0].shape.elements(), attributes.kernel_size, attributes.kernel_size});
}

namespace {

// One head of one query at (y,x), the first token of its picture being at `first` elements into q, k, v and out.
void attend(const SlidingAttention& a, std::span<const Tensor> in, std::span<double> out, std::int64_t head,
            std::int64_t first, std::int64_t y, std::int64_t x) {
  const std::int64_t channels = in[0].shape()[2];
  const std::int64_t head_channels = channels / a.heads;
  const std::int64_t reach = (a.kernel_size - 1) / 2;
  const std::int64_t entries = std::int64_t{a.kernel_size} * a.kernel_size;
  const auto q = in[0].data<double>();
  const auto k = in[1].data<double>();
  const auto v = in[2].data<double>();
  const auto at = [&](std::int64_t row, std::int64_t column, std::int64_t c) {
    return static_cast<std::size_t>(first + (row * a.width + column) * channels + head * head_channels + c);
  };
  const auto inside = [&](std::int64_t row, std::int64_t column) {
    return row >= 0 && row < a.height && column >= 0 && column < a.width;
  };
  std::vector<double> weights;
  for (std::int64_t i = 0; i < entries; ++i) {
    const std::int64_t row = y + i / a.kernel_size - reach;
    const std::int64_t column = x + i % a.kernel_size - reach;
    double score = in.size() == 4 ? in[3].data<double>()[static_cast<std::size_t>(head * entries + i)] : 0;
    if (inside(row, column)) {
      double product = 0;
      for (std::int64_t c = 0; c < head_channels; ++c) product += q[at(y, x, c)] * k[at(row, column, c)];
      score += a.factor(head_channels) * product;
    } else if (a.border == SlidingBorder::kExcluded) {
      score = -std::numeric_limits<double>::infinity();
    }
    weights.push_back(score);
  }
  const double largest = *std::ranges::max_element(weights);
  double sum = 0;
  for (double& weight : weights) sum += weight = std::exp(weight - largest);
  for (std::int64_t c = 0; c < head_channels; ++c) {
    double total = 0;
    for (std::int64_t i = 0; i < entries; ++i) {
      const std::int64_t row = y + i / a.kernel_size - reach;
      const std::int64_t column = x + i % a.kernel_size - reach;
      if (inside(row, column)) total += weights[static_cast<std::size_t>(i)] * v[at(row, column, c)];
    }
    out[at(y, x, c)] = total / sum;
  }
}

}  // namespace

void reference(const SlidingAttention& a, std::span<const Tensor> in, std::span<Tensor> out) {
  const Shape& q = in[0].shape();
  const auto y = out[0].mutable_data<double>();
  for (std::int64_t b = 0; b < q[0]; ++b) {
    for (std::int64_t token = 0; token < q[1]; ++token) {
      for (std::int64_t head = 0; head < a.heads; ++head) {
        attend(a, in, y, head, b * q[1] * q[2], token / a.width, token % a.width);
      }
    }
  }
}

Value sliding_attention(Value q, Value k, Value v, std::optional<Value> bias, const SlidingAttention& attributes) {
  return bias ? q.graph().add_one(attributes, {q, k, v, *bias}) : q.graph().add_one(attributes, {q, k, v});
}

}  // namespace weft
