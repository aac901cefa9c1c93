#include "connect/connect.h"

#include <gtest/gtest.h>

#include <cmath>

#include "connect/rank.h"
#include "connect/testing/layers.h"
#include "graph/evaluate.h"
#include "ops/ops.h"
#include "ops/testing/op_test.h"

namespace weft {
namespace {

using testing::random_tensor;
using testing::small_layer;
using testing::SmallLayer;

std::vector<Connection> connections_of(SmallLayer& layer, const ConnectOptions& options = {}) {
  const Workers workers(2);
  const Tensor x = random_tensor(layer.graph->value(layer.graph->inputs()[0]).type.shape, 77);
  std::vector<Connection> all;
  for_each_connection(*layer.graph, layer.weights, x, noise_like(x), options, workers,
                      [&](const Connection& connection) { all.push_back(connection); });
  return all;
}

// The last one: the whole layer where it is made of several.
Connection connection_of(const std::string& name, const ConnectOptions& options = {}) {
  SmallLayer layer = small_layer(name);
  std::vector<Connection> all = connections_of(layer, options);
  EXPECT_FALSE(all.empty()) << name;
  return all.empty() ? Connection{} : all.back();
}

// A row of the relation table.
struct Row {
  const char* layer;
  bool sparse_positions;
  bool sparse_channels;  // none connected with another
  bool low_rank;
  bool shared_positions;
  bool shared_channels;
  bool dynamic;
};

// The published relations (Han et al., arXiv:2106.04263, its text and its relation graph): local attention and
// depth-wise convolution connect no channels and only near positions; depth-wise convolution shares its weights across
// positions, attention across the channels of a head; attention and the dynamic convolutions compute them from the
// picture, the homogeneous one for all positions and the inhomogeneous one for each, shared by the channels of a group;
// a convolution connects channels as well; a separable MLP is attention without dynamic weights, and attention local
// attention without sparse positions; an MLP has none of all that, and a low-rank one low rank alone.
constexpr Row kPublished[] = {
    {"local attention", true, true, false, false, true, true},
    {"shifted local attention", true, true, false, false, true, true},
    {"sliding local attention", true, true, false, false, true, true},
    {"convolution", true, false, false, true, false, false},
    {"depth-wise convolution", true, true, false, true, false, false},
    {"dynamic depth-wise convolution", true, true, false, true, false, true},
    {"inhomogeneous dynamic depth-wise convolution", true, true, false, false, true, true},
    {"attention", false, true, false, false, true, true},
    {"separable MLP", false, true, false, false, true, false},
    {"MLP", false, false, false, false, false, false},
    {"low-rank MLP", false, false, true, false, false, false},
};
// What the paper does not have. Bi-WKV is attention with a decay for each channel; a shift a depth-wise convolution
// with one weight, that groups of channels share. AFT is attention whose scores are a key and a bias, for each channel.
// Causal mixers leave out the tokens to come.
constexpr Row kOurs[] = {
    {"MaSA", false, true, false, false, true, true},       {"decomposed MaSA", false, true, false, false, true, true},
    {"bi_wkv", false, true, false, false, false, true},    {"causal_wkv", true, true, false, false, false, true},
    {"AFT", false, true, false, false, false, true},       {"causal AFT", true, true, false, false, true, true},
    {"token_shift", true, true, false, true, true, false}, {"q_shift", true, true, false, true, true, false},
};

void expect_row(const Row& row) {
  const Connection c = connection_of(row.layer);
  ASSERT_EQ(c.skipped, "") << row.layer;
  EXPECT_EQ(c.sparse(), row.sparse_positions) << row.layer << ": " << c.unconnected;
  EXPECT_EQ(!c.crosses_channels, row.sparse_channels) << row.layer;
  EXPECT_EQ(c.low_rank(), row.low_rank) << row.layer << ": " << c.rank.value_or(-1);
  EXPECT_EQ(c.shares_positions, row.shared_positions) << row.layer << ": " << c.spread.value_or(-1);
  EXPECT_EQ(c.shares_channels, row.shared_channels) << row.layer << ": " << c.distinct;
  EXPECT_EQ(c.dynamic(), row.dynamic) << row.layer << ": " << c.change;
}

TEST(Connect, MeasuresThePublishedRelations) {
  for (const Row& row : kPublished) expect_row(row);
}

TEST(Connect, MeasuresTheRelationsOfRmtAndVisionRwkv) {
  for (const Row& row : kOurs) expect_row(row);
}

TEST(Connect, EveryLayerHasARow) {
  for (const std::string& name : testing::small_layer_names()) {
    const auto is = [&](const Row& row) { return row.layer == name; };
    EXPECT_TRUE(std::ranges::any_of(kPublished, is) || std::ranges::any_of(kOurs, is)) << name;
  }
}

// Biases are no connections: those of a product along positions, and those of convolutions.
void add_bias(const Graph& graph, const Mixing& mixing, const Weights& weights, const ElementIndex& index, Tensor& y) {
  const Graph::Node& node = graph.nodes()[static_cast<std::size_t>(mixing.steps.back().node)];
  const bool of_positions = node.operation.name() == Linear::kName;
  if (!of_positions && node.operation.name() != DepthwiseConv::kName) return;
  const auto bias = weights.at(graph.value(node.inputs[2]).name).data<float>();
  for (std::size_t t = 0; t < index.position.size(); ++t) {
    for (std::size_t c = 0; c < index.channel.size(); ++c) {
      y.mutable_data<double>()[static_cast<std::size_t>(index.position[t] + index.channel[c])] +=
          double{bias[of_positions ? t : c]};
    }
  }
}

// The matrices, multiplied with the layer's input, give what the references make of the layer.
TEST(Connect, MatricesAreTheLayer) {
  for (const std::string& name : testing::small_layer_names()) {
    if (connection_of(name).crosses_channels) continue;  // those have a matrix for each pair of channels
    SmallLayer layer = small_layer(name);
    Graph& graph = *layer.graph;
    const Mixing mixing = find_mixings(graph, axes_of(graph)).back();
    graph.output("from", Value(graph, mixing.from));
    graph.output("to", Value(graph, mixing.to));
    const Tensor x = random_tensor(graph.value(graph.inputs()[0]).type.shape, 77);
    const std::vector<Tensor> values = evaluate_reference(graph, layer.weights, {&x, 1});
    const Tensor from = values[1], to = values[2];
    std::vector<int> every;
    const ElementIndex in = index_elements(from.shape(), axes_of(graph)[static_cast<std::size_t>(mixing.from)]);
    const ElementIndex out = index_elements(to.shape(), axes_of(graph)[static_cast<std::size_t>(mixing.to)]);
    for (int c = 0; c < static_cast<int>(out.channels()); ++c) every.push_back(c);
    const Connection connection = connection_of(name, {.measure = {.channels = every}});
    ASSERT_EQ(connection.kept.size(), every.size()) << name;
    Tensor got = Tensor::zeros(to.type());
    for (std::size_t c = 0; c < every.size(); ++c) {
      const auto weights = connection.kept[c].weights.data<float>();
      for (std::size_t t = 0; t < out.position.size(); ++t) {
        double sum = 0;
        for (std::size_t s = 0; s < in.position.size(); ++s) {
          sum += double{weights[t * in.position.size() + s]} *
                 from.data<double>()[static_cast<std::size_t>(in.position[s] + in.channel[c])];
        }
        got.mutable_data<double>()[static_cast<std::size_t>(out.position[t] + out.channel[c])] = sum;
      }
    }
    add_bias(graph, mixing, layer.weights, out, got);
    // Weights are good to 1e-5 of themselves (see kSameWeight); sums of them to that share of Σ|W||x|, a few times the
    // result.
    EXPECT_LT(testing::relative_error(got, to), 5e-5) << name;
  }
}

TEST(Connect, FindsGroupsReachAndRank) {
  const Connection attention = connection_of("attention");
  EXPECT_EQ(attention.distinct, 3);  // heads
  EXPECT_EQ(attention.inputs, 48);
  EXPECT_EQ(attention.unconnected, 0);

  const Connection wkv = connection_of("bi_wkv");
  EXPECT_EQ(wkv.distinct, 12);
  EXPECT_EQ(wkv.rank, 48);
  EXPECT_EQ(wkv.half_rank, 1);  // what makes it linear: all that one half sends to the other is one number

  const Connection causal = connection_of("causal AFT");
  EXPECT_EQ(causal.distinct, 3);
  EXPECT_NEAR(causal.unconnected, 47 / 96.0, 1e-12);  // none with what comes later

  const Connection shift = connection_of("q_shift");
  EXPECT_EQ(shift.distinct, 4);
  ASSERT_TRUE(shift.reach.has_value());
  EXPECT_EQ(shift.reach->up, 1);
  EXPECT_EQ(shift.reach->right, 1);
  EXPECT_EQ(shift.spread, 0);
  EXPECT_EQ(shift.change, 0);
  // From the left and the right 6 · 7 of 48 · 48 pairs are connected, from above and below 5 · 8.
  EXPECT_NEAR(shift.unconnected, 1 - (42 + 42 + 40 + 40) / (4 * 48.0 * 48), 1e-12);

  const Connection windows = connection_of("local attention");
  EXPECT_NEAR(windows.unconnected, 0.75, 1e-12);  // 12 of 48 positions
  ASSERT_TRUE(windows.reach.has_value());
  EXPECT_EQ(windows.reach->down, 2);
  EXPECT_EQ(windows.reach->left, 3);
  // Rows fall into windows of 1, 3, 2 and columns of 2, 4, 2; those at the ends are one window, but masked.
  EXPECT_NEAR(connection_of("shifted local attention").unconnected, 1 - (1 + 9 + 4) * (4 + 16 + 4) / (48.0 * 48),
              1e-12);

  const Connection convolution = connection_of("depth-wise convolution");
  EXPECT_EQ(convolution.distinct, 12);
  EXPECT_EQ(convolution.reach->up, 1);
  EXPECT_EQ(connection_of("inhomogeneous dynamic depth-wise convolution").distinct, 3);

  SmallLayer decomposed = small_layer("decomposed MaSA");
  const std::vector<Connection> parts = connections_of(decomposed);
  ASSERT_EQ(parts.size(), 3U);
  EXPECT_EQ(parts[0].reach->down, 0);
  EXPECT_EQ(parts[0].reach->left, 7);
  EXPECT_EQ(parts[1].reach->down, 5);
  EXPECT_EQ(parts[1].reach->left, 0);
  EXPECT_EQ(parts[2].kind, "window_attention, window_attention");

  const Connection low_rank = connection_of("low-rank MLP");
  EXPECT_EQ(low_rank.kind, "linear, linear");
  EXPECT_EQ(low_rank.rank, 5);
}

TEST(Connect, RefusesWhatWouldTakeTooMuch) {
  const Connection large = connection_of("attention", {.measure = {.max_bytes = 20000}});
  EXPECT_NE(large.skipped.find("48 × 48 positions would take"), std::string::npos) << large.skipped;
  EXPECT_TRUE(large.kept.empty());
  EXPECT_THROW(connection_of("attention", {.measure = {.max_bytes = 1000}}), MemoryError);
  const Connection slow = connection_of("attention", {.measure = {.max_macs = 1000}});
  EXPECT_NE(slow.skipped.find("multiply-accumulates"), std::string::npos) << slow.skipped;
  EXPECT_THROW(connection_of("attention", {.measure = {.channels = {12}}}), ConfigError);
}

TEST(Connect, NumericalRank) {
  const Workers workers(2);
  const auto made_of = [](std::int64_t rows, std::int64_t columns, std::int64_t rank) {
    const Tensor left = random_tensor({rows, rank}, 1), right = random_tensor({rank, columns}, 2);
    std::vector<double> matrix;
    for (std::int64_t j = 0; j < columns; ++j) {
      for (std::int64_t i = 0; i < rows; ++i) {
        double sum = 0;
        for (std::int64_t k = 0; k < rank; ++k) {
          sum += double{left.data<float>()[static_cast<std::size_t>(i * rank + k)]} *
                 double{right.data<float>()[static_cast<std::size_t>(k * columns + j)]};
        }
        matrix.push_back(sum);
      }
    }
    return matrix;
  };
  EXPECT_EQ(numerical_rank(made_of(30, 20, 7), 30, workers), 7);
  EXPECT_EQ(numerical_rank(made_of(20, 30, 25), 20, workers), 20);
  EXPECT_EQ(numerical_rank(std::vector<double>(12), 3, workers), 0);
  EXPECT_EQ(numerical_rank({}, 0, workers), 0);
}

}  // namespace
}  // namespace weft
