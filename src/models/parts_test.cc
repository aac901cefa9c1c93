#include "models/parts.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "graph/evaluate.h"
#include "ops/testing/random.h"

namespace weft {
namespace {

// The official code's slices x[0::2, 0::2], x[1::2, 0::2], x[0::2, 1::2], x[1::2, 1::2] after its padding, by hand.
TEST(Hierarchy, JoinsNeighboursInTheOfficialOrder) {
  for (const TokenGrid grid : {TokenGrid{2, 4}, TokenGrid{3, 4}, TokenGrid{4, 5}, TokenGrid{3, 1}, TokenGrid{1, 1}}) {
    SCOPED_TRACE(::testing::Message() << grid.height << " x " << grid.width);
    constexpr std::int64_t kChannels = 3;
    Graph graph("neighbours");
    const Tensor x = weft::testing::random_tensor({2, grid.tokens(), kChannels}, 1);
    graph.output("y", join_neighbours(graph.input("x", x.type()), grid));
    const Tensor y = evaluate_reference(graph, {}, std::span(&x, 1))[0];
    const auto [height, width] = grid.halved();
    ASSERT_EQ(y.shape(), (Shape{2, height * width, 4 * kChannels}));
    for (std::int64_t i = 0; i < y.elements(); ++i) {
      const std::int64_t part = i % (4 * kChannels) / kChannels;
      const std::int64_t token = i / (4 * kChannels);
      const std::int64_t row = token / width % height * 2 + part % 2;
      const std::int64_t column = token % width * 2 + part / 2;
      const bool inside = row < grid.height && column < grid.width;
      const std::int64_t from = ((token / width / height * grid.height + row) * grid.width + column) * kChannels;
      const float want = inside ? x.data<float>()[static_cast<std::size_t>(from + i % kChannels)] : 0;
      ASSERT_EQ(y.data<double>()[static_cast<std::size_t>(i)], want) << i;
    }
  }
}

TEST(Hierarchy, CropsWhatItPads) {
  for (const TokenGrid to : {TokenGrid{3, 4}, TokenGrid{7, 4}, TokenGrid{3, 7}, TokenGrid{7, 7}}) {
    const TokenGrid from{3, 4};
    Graph graph("pad");
    const Tensor x = testing::random_tensor({2, from.tokens(), 5}, 1);
    const Value padded = pad_grid(graph.input("x", x.type()), from, to);
    EXPECT_EQ(padded.shape(), (Shape{2, to.tokens(), 5}));
    graph.output("y", crop_grid(padded, to, from));
    const Tensor y = evaluate_reference(graph, {}, std::span(&x, 1))[0].to(DType::kF32);
    EXPECT_TRUE(std::ranges::equal(x.data<float>(), y.data<float>()));
  }
}

// On a grid of three times the size every third place lies on one of the native grid: it keeps its value.
TEST(Hierarchy, ResizesPositions) {
  const TokenGrid native{6, 8};
  for (const bool as_map : {false, true}) {
    Graph graph("positions");
    const Tensor x = Tensor::zeros({DType::kF32, {1, 18 * 24, 2}});
    graph.output("y", add_positions(graph.input("x", x.type()), Scope(graph), native, {18, 24}, as_map));
    const Graph::ValueInfo& info = graph.value(graph.parameters()[0]);
    EXPECT_EQ(info.type.shape, as_map ? (Shape{1, 2, 6, 8}) : (Shape{1, 48, 2}));
    Tensor table(info.type);
    for (std::int64_t i = 0; i < 96; ++i) {
      const std::int64_t token = as_map ? i % 48 : i / 2;
      const bool of_rows = as_map ? i < 48 : i % 2 == 0;  // channel 0 is the row, channel 1 the column
      table.mutable_data<float>()[static_cast<std::size_t>(i)] =
          static_cast<float>(of_rows ? token / native.width : token % native.width);
    }
    const Tensor y = evaluate_reference(graph, {{"absolute_pos_embed", table}}, std::span(&x, 1))[0];
    const auto at = [&](std::int64_t row, std::int64_t column, std::int64_t channel) {
      return y.data<double>()[static_cast<std::size_t>((row * 24 + column) * 2 + channel)];
    };
    for (std::int64_t row = 0; row < native.height; ++row) {
      for (std::int64_t column = 0; column < native.width; ++column) {
        EXPECT_NEAR(at(3 * row + 1, 3 * column + 1, 0), static_cast<double>(row), 1e-12);
        EXPECT_NEAR(at(3 * row + 1, 3 * column + 1, 1), static_cast<double>(column), 1e-12);
      }
    }
  }
}

TEST(Hierarchy, EmbedsAndMergesUnderOfficialNames) {
  Graph graph("parts");
  const Scope s(graph);
  TokenGrid grid;
  const Value tokens =
      embed_patches(graph.input("image", {DType::kF32, {2, 3, 9, 16}}), s["patch_embed"], 6, 4, true, grid);
  EXPECT_EQ(grid, (TokenGrid{3, 4}));
  EXPECT_EQ(tokens.shape(), (Shape{2, 12, 6}));
  const Value merged = merge_patches(mlp(tokens, s["mlp"], 24), s["downsample"], grid);
  EXPECT_EQ(merged.shape(), (Shape{2, 4, 12}));
  EXPECT_EQ(feature_map(merged, grid.halved()).shape(), (Shape{2, 12, 2, 2}));
  std::vector<std::string> names;
  for (const int id : graph.parameters()) names.push_back(graph.value(id).name);
  EXPECT_EQ(names, (std::vector<std::string>{"patch_embed.proj.weight", "patch_embed.proj.bias",
                                             "patch_embed.norm.weight", "patch_embed.norm.bias", "mlp.fc1.weight",
                                             "mlp.fc1.bias", "mlp.fc2.weight", "mlp.fc2.bias", "downsample.norm.weight",
                                             "downsample.norm.bias", "downsample.reduction.weight"}));
}

}  // namespace
}  // namespace weft
