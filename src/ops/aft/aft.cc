#include "ops/aft/aft.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/format.h"

namespace weft {
namespace {

constexpr std::string_view kPlace = Aft::kName;

void check_table(const Aft& a, const Shape& table, std::int64_t tokens) {
  require<ShapeError>(table[0] == table[1] && table[0] >= tokens, kPlace,
                      "a table of biases must be [T',T'] with T' ≥ {}, got {}", tokens, table);
  require<ConfigError>(a.height == 0 && a.width == 0, kPlace, "a table of biases has no grid, got one of {} x {}",
                       a.height, a.width);
}

void check_filter(const Aft& a, const Shape& filter, std::int64_t tokens, std::int64_t keys) {
  require<ShapeError>(filter.elements() > 0 && keys % filter[0] == 0, kPlace,
                      "filters must be [F,h,w] without an empty axis, F a divisor of {} keys, got {}", keys, filter);
  require<ConfigError>(a.window == 0, kPlace, "a window is of a table of biases, got window={} for filters", a.window);
  require<ConfigError>(a.height >= 0 && a.width >= 0, kPlace, "the grid must not be negative, got {} x {}", a.height,
                       a.width);
  const bool line = a.height == 0 && a.width == 0;
  require<ShapeError>(line || std::int64_t{a.height} * a.width == tokens, kPlace,
                      "a grid of {} x {} does not have {} tokens", a.height, a.width, tokens);
  require<ConfigError>(!a.causal || (filter[1] == 1 && (line || a.height == 1)), kPlace,
                       "what is causal is along a line: filters [F,1,w] and no grid expected, got {} on {} x {}",
                       filter, a.height, a.width);
}

// One element of the result, by definition.
double direct(const Aft& a, std::span<const Tensor> in, std::int64_t entry, std::int64_t t, std::int64_t channel) {
  const Shape& k = in[0].shape();
  const std::int64_t tokens = k[1];
  const std::int64_t keys = k[2];
  const std::int64_t channels = in[1].shape()[2];
  const std::int64_t key = channel / (channels / keys);
  const std::int64_t width = a.width > 0 ? a.width : tokens;
  const auto bias = [&](std::int64_t i) -> double {
    if (in.size() == 2) return 0;
    const Shape& shape = in[2].shape();
    const auto values = in[2].data<double>();
    if (shape.rank() == 2) {
      return a.window == 0 || std::abs(t - i) < a.window ? values[static_cast<std::size_t>(t * shape[1] + i)] : 0;
    }
    const std::int64_t row = i / width - t / width + shape[1] / 2;
    const std::int64_t column = i % width - t % width + (a.causal ? shape[2] - 1 : shape[2] / 2);
    if (row < 0 || row >= shape[1] || column < 0 || column >= shape[2]) return 0;
    const std::int64_t filter = key / (keys / shape[0]);
    return values[static_cast<std::size_t>((filter * shape[1] + row) * shape[2] + column)];
  };
  const auto exponent = [&](std::int64_t i) {
    return in[0].data<double>()[static_cast<std::size_t>((entry * tokens + i) * keys + key)] + bias(i);
  };
  const std::int64_t end = a.causal ? t + 1 : tokens;
  double largest = -std::numeric_limits<double>::infinity();
  for (std::int64_t i = 0; i < end; ++i) largest = std::max(largest, exponent(i));
  double numerator = 0;
  double denominator = 0;
  for (std::int64_t i = 0; i < end; ++i) {
    const double weight = std::exp(exponent(i) - largest);
    numerator += weight * in[1].data<double>()[static_cast<std::size_t>((entry * tokens + i) * channels + channel)];
    denominator += weight;
  }
  return numerator / denominator;
}

}  // namespace

std::vector<TensorType> infer(const Aft& a, std::span<const TensorType> in) {
  require<ShapeError>(in.size() == 2 || in.size() == 3, kPlace, "takes k, v and maybe a bias, got {} inputs",
                      in.size());
  const Shape& k = in[0].shape;
  const Shape& v = in[1].shape;
  require<ShapeError>(v.rank() == 3 && v[2] >= 1, kPlace, "v must be [B,T,C], C ≥ 1, got {}", v);
  require<ShapeError>(k.rank() == 3 && k[0] == v[0] && k[1] == v[1] && k[2] >= 1 && v[2] % k[2] == 0, kPlace,
                      "k must be [B,T,K]=[{},{},K], K a divisor of {}, got {}", v[0], v[1], v[2], k);
  require<ConfigError>(a.window >= 0, kPlace, "window must not be negative, got {}", a.window);
  if (in.size() == 2) {
    require<ConfigError>(a.window == 0 && a.height == 0 && a.width == 0, kPlace,
                         "without a bias there is neither a window nor a grid, got window={}, a grid of {} x {}",
                         a.window, a.height, a.width);
  } else {
    const Shape& bias = in[2].shape;
    require<ShapeError>(bias.rank() == 2 || bias.rank() == 3, kPlace,
                        "the bias must be a table [T',T'] or filters [F,h,w], got {}", bias);
    bias.rank() == 2 ? check_table(a, bias, v[1]) : check_filter(a, bias, v[1], k[2]);
  }
  require<ShapeError>(std::ranges::all_of(in, [&](const TensorType& type) { return type.dtype == in[0].dtype; }),
                      kPlace, "inputs must have one element type, got {}", fmt::join(in, " and "));
  return {in[1]};
}

std::int64_t macs(const Aft& a, std::span<const TensorType> in) {
  const Shape& v = in[1].shape;
  if (in.size() == 2) return count_product({2, v.elements()});
  const Shape& bias = in[2].shape;
  if (bias.rank() == 3) return count_product({2, v.elements(), bias[1], bias[2]});
  const std::int64_t window = a.causal ? a.window : 2 * std::int64_t{a.window} - 1;
  return count_product({2, v.elements(), a.window == 0 ? v[1] : window});
}

void reference(const Aft& a, std::span<const Tensor> in, std::span<Tensor> out) {
  const Shape& shape = in[1].shape();
  const auto y = out[0].mutable_data<double>();
  for (std::int64_t flat = 0; flat < shape.elements(); ++flat) {
    const std::int64_t token = flat / shape[2];
    y[static_cast<std::size_t>(flat)] = direct(a, in, token / shape[1], token % shape[1], flat % shape[2]);
  }
}

Value aft(Value k, Value v, std::optional<Value> bias, const Aft& attributes) {
  return bias ? k.graph().add_one(attributes, {k, v, *bias}) : k.graph().add_one(attributes, {k, v});
}

}  // namespace weft
