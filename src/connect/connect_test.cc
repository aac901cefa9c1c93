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

// Rows of Han et al. (arXiv:2106.04263), Table 1 and the relation graph (Figure 5), whose columns are sparse
// connectivity between positions and between channels, weight sharing across positions and across channels (of a
// group), and dynamic weights; low rank is the graph's third kind of edge. Rows that the paper does not have are
// marked.
constexpr Row kRelations[] = {
    {"attention", false, true, false, false, true, true}, {"separable MLP", false, true, false, false, true, false},
    {"MLP", false, false, false, false, false, false},    {"low-rank MLP", false, false, true, false, false, false},
    {"bi_wkv", false, true, false, false, false, true},  // not in the paper
    {"q_shift", true, true, false, true, true, false},   // not in the paper
};

TEST(Connect, MeasuresThePublishedRelations) {
  for (const Row& row : kRelations) {
    const Connection c = connection_of(row.layer);
    ASSERT_EQ(c.skipped, "") << row.layer;
    EXPECT_EQ(c.sparse(), row.sparse_positions) << row.layer << ": " << c.unconnected;
    EXPECT_EQ(!c.crosses_channels, row.sparse_channels) << row.layer;
    EXPECT_EQ(c.low_rank(), row.low_rank) << row.layer << ": " << c.rank.value_or(-1);
    EXPECT_EQ(c.shares_positions, row.shared_positions) << row.layer << ": " << c.spread.value_or(-1);
    EXPECT_EQ(c.shares_channels, row.shared_channels) << row.layer << ": " << c.distinct;
    EXPECT_EQ(c.dynamic(), row.dynamic) << row.layer << ": " << c.change;
  }
}

TEST(Connect, EveryLayerHasARow) {
  for (const std::string& name : testing::small_layer_names()) {
    EXPECT_TRUE(std::ranges::any_of(kRelations, [&](const Row& row) { return row.layer == name; })) << name;
  }
}

// The matrices, multiplied with the layer's input, give what the references make of the layer.
TEST(Connect, MatricesAreTheLayer) {
  for (const char* name : {"bi_wkv", "q_shift", "attention", "separable MLP"}) {
    SmallLayer layer = small_layer(name);
    Graph& graph = *layer.graph;
    const Mixing mixing = find_mixings(graph, axes_of(graph)).back();
    graph.output("from", Value(graph, mixing.from));
    graph.output("to", Value(graph, mixing.to));
    const Tensor x = random_tensor(graph.value(graph.inputs()[0]).type.shape, 77);
    const std::vector<Tensor> values = evaluate_reference(graph, layer.weights, {&x, 1});
    const Tensor from = values[1], to = values[2];
    const Tensor zeros = Tensor::zeros({DType::kF64, from.shape()});

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
    if (std::string(name) == "separable MLP") {  // the bias is no connection
      const auto bias = layer.weights.at("1").data<float>();
      for (std::size_t t = 0; t < out.position.size(); ++t) {
        for (const std::int64_t c : out.channel) {
          got.mutable_data<double>()[static_cast<std::size_t>(out.position[t] + c)] += double{bias[t]};
        }
      }
    }
    // Weights are good to 1e-5 of themselves (see kSameWeight); sums of them to that share of Σ|W||x|, a few times the
    // result.
    EXPECT_LT(testing::relative_error(got, to), 5e-5) << name;
  }
}

TEST(Connect, FindsGroupsReachAndRank) {
  const Connection attention = connection_of("attention");
  EXPECT_EQ(attention.distinct, 3);  // heads
  EXPECT_EQ(attention.inputs, 35);
  EXPECT_EQ(attention.rank, 35);
  EXPECT_EQ(attention.unconnected, 0);

  const Connection wkv = connection_of("bi_wkv");
  EXPECT_EQ(wkv.distinct, 12);
  EXPECT_EQ(wkv.rank, 35);
  EXPECT_EQ(wkv.half_rank, 1);  // what makes it linear: all that one half sends to the other is one number

  const Connection shift = connection_of("q_shift");
  EXPECT_EQ(shift.distinct, 4);
  ASSERT_TRUE(shift.reach.has_value());
  EXPECT_EQ(shift.reach->up, 1);
  EXPECT_EQ(shift.reach->right, 1);
  EXPECT_EQ(shift.spread, 0);
  EXPECT_EQ(shift.change, 0);
  // From the left 5 · 6 of 35 · 35 pairs are connected, from above 4 · 7.
  EXPECT_NEAR(shift.unconnected, 1 - (30 + 30 + 28 + 28) / (4 * 35.0 * 35), 1e-12);

  const Connection low_rank = connection_of("low-rank MLP");
  EXPECT_EQ(low_rank.kind, "linear, linear");
  EXPECT_EQ(low_rank.rank, 5);
}

TEST(Connect, RefusesWhatWouldTakeTooMuch) {
  const Connection large = connection_of("attention", {.measure = {.max_bytes = 1000}});
  EXPECT_NE(large.skipped.find("35 × 35 positions would take"), std::string::npos) << large.skipped;
  EXPECT_TRUE(large.kept.empty());
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
