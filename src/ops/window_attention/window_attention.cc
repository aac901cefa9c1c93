#include "ops/window_attention/window_attention.h"

#include <algorithm>
#include <cmath>

#include "core/format.h"

namespace weft {

double WindowAttention::factor(std::int64_t head_channels) const {
  return scale != 0 ? double{scale} : 1 / std::sqrt(static_cast<double>(head_channels));
}

std::int64_t WindowAttention::bias_entries() const {
  return count_product({2 * std::int64_t{window_h} - 1, 2 * std::int64_t{window_w} - 1});
}

std::int64_t WindowAttention::token(std::int64_t window, std::int64_t position) const {
  const std::int64_t across = width / window_w;
  const std::int64_t y = window / across * window_h + position / window_w + shift_h;
  const std::int64_t x = window % across * window_w + position % window_w + shift_w;
  return y % height * width + x % width;
}

std::int64_t WindowAttention::rows_before(std::int64_t window) const {
  const std::int64_t across = width / window_w;
  return window / across == height / window_h - 1 ? window_h - shift_h : window_h;
}

std::int64_t WindowAttention::columns_before(std::int64_t window) const {
  const std::int64_t across = width / window_w;
  return window % across == across - 1 ? window_w - shift_w : window_w;
}

std::vector<TensorType> infer(const WindowAttention& a, std::span<const TensorType> in) {
  constexpr std::string_view kPlace = WindowAttention::kName;
  require<ConfigError>(a.heads >= 1, kPlace, "heads must be at least 1, got {}", a.heads);
  require<ConfigError>(std::isfinite(a.scale), kPlace, "scale must be finite, got {}", a.scale);
  require<ConfigError>(a.height >= 0 && a.width >= 0, kPlace, "the grid must not be negative, got {} x {}", a.height,
                       a.width);
  require<ConfigError>(a.window_h >= 1 && a.window_w >= 1 && a.height % a.window_h == 0 && a.width % a.window_w == 0,
                       kPlace, "windows must divide the grid of {} x {}, got {} x {}", a.height, a.width, a.window_h,
                       a.window_w);
  require<ConfigError>(a.shift_h >= 0 && a.shift_h < a.window_h && a.shift_w >= 0 && a.shift_w < a.window_w, kPlace,
                       "the shift must be less than the window of {} x {}, got {} x {}", a.window_h, a.window_w,
                       a.shift_h, a.shift_w);
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
  const Shape bias{a.heads, a.bias_entries()};
  require<ShapeError>(in.size() == 3 || in[3].shape == bias, kPlace,
                      "the bias must be {} for {} heads and windows of {} x {}, got {}", bias, a.heads, a.window_h,
                      a.window_w, in.back().shape);
  require<ShapeError>(std::ranges::all_of(in, [&](const TensorType& type) { return type.dtype == in[0].dtype; }),
                      kPlace, "inputs must have one element type, got {}", fmt::join(in, " and "));
  return {in[0]};
}

std::int64_t macs(const WindowAttention& attributes, std::span<const TensorType> in) {
  return count_product({2, in[0].shape.elements(), attributes.window_tokens()});
}

namespace {

// One head of one window, the first token of its picture being at `first` elements into q, k, v and y.
void attend(const WindowAttention& a, std::span<const Tensor> in, std::span<double> y, std::int64_t window,
            std::int64_t head, std::int64_t first) {
  const std::int64_t channels = in[0].shape()[2];
  const std::int64_t head_channels = channels / a.heads;
  const std::int64_t tokens = a.window_tokens();
  const auto q = in[0].data<double>();
  const auto k = in[1].data<double>();
  const auto v = in[2].data<double>();
  const auto at = [&](std::int64_t position, std::int64_t c) {
    return static_cast<std::size_t>(first + a.token(window, position) * channels + head * head_channels + c);
  };
  const auto is_before = [&](std::int64_t position) {
    return std::pair(position / a.window_w < a.rows_before(window), position % a.window_w < a.columns_before(window));
  };
  std::vector<double> weights(static_cast<std::size_t>(tokens));
  for (std::int64_t query = 0; query < tokens; ++query) {
    for (std::int64_t key = 0; key < tokens; ++key) {
      double score = 0;
      for (std::int64_t c = 0; c < head_channels; ++c) score += q[at(query, c)] * k[at(key, c)];
      score *= a.factor(head_channels);
      if (in.size() == 4) {
        const std::int64_t dy = query / a.window_w - key / a.window_w + a.window_h - 1;
        const std::int64_t dx = query % a.window_w - key % a.window_w + a.window_w - 1;
        const std::int64_t entry = head * a.bias_entries() + dy * (2 * std::int64_t{a.window_w} - 1) + dx;
        score += in[3].data<double>()[static_cast<std::size_t>(entry)];
      }
      if (is_before(query) != is_before(key)) score += kAcrossBorder;
      weights[static_cast<std::size_t>(key)] = score;
    }
    const double largest = *std::ranges::max_element(weights);
    double sum = 0;
    for (double& weight : weights) sum += weight = std::exp(weight - largest);
    for (std::int64_t c = 0; c < head_channels; ++c) {
      double total = 0;
      for (std::int64_t key = 0; key < tokens; ++key) total += weights[static_cast<std::size_t>(key)] * v[at(key, c)];
      y[at(query, c)] = total / sum;
    }
  }
}

}  // namespace

void reference(const WindowAttention& a, std::span<const Tensor> in, std::span<Tensor> out) {
  const Shape& q = in[0].shape();
  const auto y = out[0].mutable_data<double>();
  for (std::int64_t b = 0; b < q[0]; ++b) {
    for (std::int64_t window = 0; window < a.windows(); ++window) {
      for (std::int64_t head = 0; head < a.heads; ++head) attend(a, in, y, window, head, b * q[1] * q[2]);
    }
  }
}

Value window_attention(Value q, Value k, Value v, std::optional<Value> bias, const WindowAttention& attributes) {
  return bias ? q.graph().add_one(attributes, {q, k, v, *bias}) : q.graph().add_one(attributes, {q, k, v});
}

}  // namespace weft
