#include "connect/connect.h"

#include <cmath>
#include <random>

namespace weft {
namespace {

constexpr int kSignDraws =
    8;  // the squares' mean is off by 1/√8 of itself at a pixel where one channel is all there is

}  // namespace

void for_each_connection(Graph& graph, const Weights& weights, const Tensor& input, const Tensor& other,
                         const ConnectOptions& options, const Workers& workers,
                         const std::function<void(const Connection&)>& each) {
  const std::vector<Axes> axes = axes_of(graph);
  std::vector<Mixing> mixings = find_mixings(graph, axes);
  const auto wanted = [&](const Mixing& mixing) {
    return options.place.empty() || (mixing.place + ".").starts_with(options.place + ".");
  };
  std::erase_if(mixings, [&](const Mixing& mixing) { return !wanted(mixing); });
  if (mixings.empty()) return;
  const std::int64_t captured = 2 * captured_bytes(graph, mixings);
  require<MemoryError>(captured <= options.measure.max_bytes, "connect",
                       "what these layers read at two pictures takes {} MiB, more than the {} MiB allowed; take a "
                       "smaller picture, one layer, or allow more (--max-memory)",
                       captured >> 20, options.measure.max_bytes >> 20);
  const Capture capture(graph, mixings, weights, workers);
  const CapturedValues here = capture.at(input), elsewhere = capture.at(other);
  for (const Mixing& mixing : mixings) {
    LinearMap map(graph, mixing, here, workers), other_map(graph, mixing, elsewhere, workers);
    const auto index = [&](int value) {
      return index_elements(graph.value(value).type.shape, axes[static_cast<std::size_t>(value)]);
    };
    Ends ends{.from = index(mixing.from),
              .to = index(mixing.to),
              .from_grid = mixing.grid ? mixing.grid : grid_of(graph, axes, mixing.from),
              .to_grid = mixing.grid ? mixing.grid : grid_of(graph, axes, mixing.to)};
    // A product that changes the number of tokens leads to hidden units, which have no place.
    if (mixing.kind == "linear" && ends.from.positions() != ends.to.positions()) {
      ends.from_grid.reset();
      ends.to_grid.reset();
    }
    Connection connection = measure(map, other_map, ends, options.measure, workers);
    connection.kind = mixing.kind;
    connection.place = mixing.place;
    each(connection);
  }
}

Tensor noise_like(const Tensor& input) {
  std::mt19937_64 random(2);
  Tensor noise(DType::kF32, input.shape());
  for (float& value : noise.mutable_data<float>()) {
    const double uniform = static_cast<double>(random() >> 11) * 0x1p-52 - 1;  // −1 … 1, whatever the standard library
    value = static_cast<float>(uniform * std::sqrt(3.0));
  }
  return noise;
}

Tensor receptive_field(TorchEngine& engine, const Graph& graph, const Weights& weights, const Tensor& input, int output,
                       std::int64_t y, std::int64_t x) {
  std::vector<Tensor> cotangents;
  for (const Graph::Output& port : graph.outputs()) {
    cotangents.push_back(Tensor::zeros({DType::kF32, graph.value(port.value).type.shape}));
  }
  Tensor& at_output = cotangents[static_cast<std::size_t>(output)];
  const Shape& map = at_output.shape();
  const std::int64_t pixels = input.shape()[2] * input.shape()[3];
  std::vector<double> squares(static_cast<std::size_t>(pixels));
  std::mt19937_64 random(3);
  for (int draw = 0; draw < kSignDraws; ++draw) {
    for (std::int64_t c = 0; c < map[1]; ++c) {
      const std::int64_t at = (c * map[2] + y) * map[3] + x;
      at_output.mutable_data<float>()[static_cast<std::size_t>(at)] = (random() >> 63) == 0 ? 1.0F : -1.0F;
    }
    const Tensor gradient = engine.differentiate(graph, weights, {&input, 1}, cotangents).inputs[0].to(DType::kF32);
    const auto values = gradient.data<float>();
    for (std::size_t i = 0; i < values.size(); ++i) {
      squares[i % static_cast<std::size_t>(pixels)] += double{values[i]} * double{values[i]} / kSignDraws;
    }
  }
  Tensor field(DType::kF32, {input.shape()[2], input.shape()[3]});
  for (std::size_t i = 0; i < squares.size(); ++i) {
    field.mutable_data<float>()[i] = static_cast<float>(std::sqrt(squares[i]));
  }
  return field;
}

}  // namespace weft
