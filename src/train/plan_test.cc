#include "train/plan.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "core/options.h"
#include "io/json.h"
#include "io/testing/files.h"

namespace weft {
namespace {

using testing::refuses;

std::unique_ptr<const Architecture> small_architecture(int depth = 3) {
  return find_family("vision_rwkv")
      .configure({{"img_size", {16, 16}},
                  {"patch_size", 4},
                  {"embed_dims", 8},
                  {"depth", depth},
                  {"num_classes", 5},
                  {"init_values", 0.1}});
}

TEST(LearningRate, RisesLinearlyThenFollowsACosine) {
  TrainConfig c;
  c.lr = 0.4;
  c.min_lr = 0.1;
  EXPECT_DOUBLE_EQ(learning_rate(c, 0, 4, 24), 0.1);
  EXPECT_DOUBLE_EQ(learning_rate(c, 3, 4, 24), 0.4);
  EXPECT_DOUBLE_EQ(learning_rate(c, 4, 4, 24), 0.4);
  EXPECT_DOUBLE_EQ(learning_rate(c, 14, 4, 24), 0.25);  // half way
  EXPECT_DOUBLE_EQ(learning_rate(c, 24, 4, 24), 0.1);
  EXPECT_DOUBLE_EQ(learning_rate(c, 0, 0, 10), 0.4);   // no warm-up
  EXPECT_DOUBLE_EQ(learning_rate(c, 9, 10, 10), 0.4);  // nothing but warm-up
}

TEST(PlanParameters, DecaysWhatMultipliesAndNothingElse) {
  const auto architecture = small_architecture();
  const auto graph = training_graph(*architecture, {2, 3, 16, 16});
  TrainConfig c;
  c.weight_decay = 0.3;
  int decayed = 0;
  for (const TrainedParameter& p : plan_parameters(*graph, *architecture, c)) {
    const bool product = p.name.ends_with("key.weight") || p.name.ends_with("value.weight") ||
                         p.name.ends_with("receptance.weight") || p.name.ends_with("output.weight") ||
                         p.name.ends_with("projection.weight") || p.name.ends_with("fc.weight");
    EXPECT_EQ(p.weight_decay, product ? 0.3 : 0) << p.name;
    EXPECT_EQ(p.lr_scale, 1) << p.name;
    EXPECT_FALSE(p.frozen);
    decayed += product;
  }
  EXPECT_EQ(decayed, 3 * 7 + 2);
}

// The weight of a 1 x 1 convolution has another shape where it multiplies.
TEST(PlanParameters, DecaysConvolutionsAndNotTheirNorms) {
  const auto architecture = find_family("dwnet").configure({{"embed_dim", 8}, {"depths", {1, 1}}, {"num_classes", 5}});
  const auto graph = training_graph(*architecture, {2, 3, 16, 16});
  TrainConfig c;
  c.weight_decay = 0.3;
  int decayed = 0;
  for (const TrainedParameter& p : plan_parameters(*graph, *architecture, c)) {
    const Shape& shape = [&]() -> const Shape& {
      for (const int id : graph->parameters()) {
        if (graph->value(id).name == p.name) return graph->value(id).type.shape;
      }
      throw Error("no such parameter");
    }();
    EXPECT_EQ(p.weight_decay, shape.rank() > 1 ? 0.3 : 0) << p.name;
    decayed += shape.rank() > 1;
  }
  EXPECT_EQ(decayed, 2 * 5 + 3);  // conv0, conv, conv2, fc1, fc2; proj, reduction, head
}

TEST(PlanParameters, LaterLayersLearnFasterAndEarlierOnesMayBeFrozen) {
  const auto architecture = small_architecture();
  const auto graph = training_graph(*architecture, {2, 3, 16, 16});
  TrainConfig c;
  c.layer_decay = 0.5;
  c.freeze = 2;
  std::map<std::string, TrainedParameter> by_name;
  for (TrainedParameter& p : plan_parameters(*graph, *architecture, c)) by_name.emplace(p.name, p);
  const auto expect = [&](const char* name, double lr_scale, bool frozen) {
    ASSERT_TRUE(by_name.contains(name)) << name;
    EXPECT_DOUBLE_EQ(by_name[name].lr_scale, lr_scale) << name;
    EXPECT_EQ(by_name[name].frozen, frozen) << name;
  };
  expect("backbone.patch_embed.projection.weight", 1.0 / 16, true);
  expect("backbone.pos_embed", 1.0 / 16, true);
  expect("backbone.layers.0.att.key.weight", 1.0 / 8, true);
  expect("backbone.layers.1.att.key.weight", 1.0 / 4, false);
  expect("backbone.layers.2.gamma1", 1.0 / 2, false);
  expect("backbone.ln1.weight", 1, false);
  expect("head.fc.weight", 1, false);
  c.freeze = -1;
  for (const TrainedParameter& p : plan_parameters(*graph, *architecture, c)) {
    EXPECT_EQ(p.frozen, p.name.starts_with("backbone.") && !p.name.starts_with("backbone.ln1")) << p.name;
  }
}

TEST(DrawBranches, DropsMoreTheDeeperAndKeepsTheMean) {
  constexpr int kBatch = 4000;
  const auto architecture = small_architecture();
  const auto graph = training_graph(*architecture, {kBatch, 3, 16, 16});
  ASSERT_EQ(graph->inputs().size(), 1U + 2 * 3);
  const std::vector<Tensor> branches = draw_branches(*graph, 0.4, 7, 0, 0);
  ASSERT_EQ(branches.size(), 6U);
  const std::array<double, 3> dropped = {0, 0.2, 0.4};
  for (std::size_t i = 0; i < branches.size(); ++i) {
    EXPECT_EQ(branches[i].shape(), Shape({kBatch, 1, 1}));
    const double p = dropped[i / 2];
    int zeros = 0;
    for (const float x : branches[i].data<float>()) {
      zeros += x == 0;
      EXPECT_TRUE(x == 0 || x == static_cast<float>(1 / (1 - p)));
    }
    // Four standard deviations of a binomial share.
    EXPECT_NEAR(zeros / static_cast<double>(kBatch), p, 4 * std::sqrt(p * (1 - p) / kBatch));
  }
}

// Blocks are counted over all stages, as the official code does.
TEST(DrawBranches, CountsBlocksOverStages) {
  const auto architecture =
      find_family("swin").configure({{"depths", {2, 1}}, {"num_heads", {1, 1}}, {"embed_dim", 4}, {"num_classes", 2}});
  const auto graph = training_graph(*architecture, {1, 3, 56, 56});
  const std::vector<Tensor> branches = draw_branches(*graph, 1, 7, 0, 0);
  ASSERT_EQ(branches.size(), 6U);
  for (const std::size_t first : {0U, 1U}) EXPECT_EQ(branches[first].data<float>()[0], 1);  // never dropped
  for (const std::size_t middle : {2U, 3U}) {
    EXPECT_TRUE(branches[middle].data<float>()[0] == 0 || branches[middle].data<float>()[0] == 2);
  }
  for (const std::size_t last : {4U, 5U}) EXPECT_EQ(branches[last].data<float>()[0], 0);
}

TEST(DrawBranches, DependsOnThePictureNotOnTheBatch) {
  const auto architecture = small_architecture();
  const auto whole = training_graph(*architecture, {8, 3, 16, 16});
  const auto half = training_graph(*architecture, {4, 3, 16, 16});
  const auto all = draw_branches(*whole, 0.5, 1, 3, 16);
  const auto second = draw_branches(*half, 0.5, 1, 3, 20);
  const auto other = draw_branches(*half, 0.5, 1, 4, 20);
  bool differs = false;
  for (std::size_t i = 0; i < all.size(); ++i) {
    for (std::size_t b = 0; b < 4; ++b) {
      EXPECT_EQ(all[i].data<float>()[4 + b], second[i].data<float>()[b]);
      differs = differs || second[i].data<float>()[b] != other[i].data<float>()[b];
    }
  }
  EXPECT_TRUE(differs);
}

TEST(TrainingGraph, IsTheModelWhereNothingIsDropped) {
  const auto architecture = small_architecture();
  const auto graph = training_graph(*architecture, {2, 3, 24, 16});  // another size than the model's own
  EXPECT_EQ(graph->outputs().size(), 1U);
  EXPECT_EQ(graph->value(graph->outputs()[0].value).type.shape, Shape({2, 5}));
  const auto bare = find_family("vision_rwkv").configure({{"embed_dims", 8}, {"depth", 2}, {"head", "none"}});
  EXPECT_TRUE(refuses([&] { (void)training_graph(*bare, {1, 3, 16, 16}); }, "bare backbone"));
}

TEST(TrainConfig, GoesThroughJsonAndBack) {
  for (const Recipe& recipe : recipes()) {
    TrainConfig back;
    config_from_json(config_to_json(recipe.config), back, "test");
    EXPECT_EQ(back, recipe.config) << recipe.name;
  }
}

TEST(TrainConfig, TellsEverythingThatIsWrongAndTheNearestKey) {
  TrainConfig c;
  EXPECT_TRUE(refuses(
      [&] {
        config_from_json({{"epoch", 3}, {"augment", {{"mixupp", 1}}}}, c, "x.json");
      },
      "unknown key epoch, did you mean epochs?"));
  EXPECT_TRUE(refuses(
      [&] {
        config_from_json({{"augment", {{"mixupp", 1}}}}, c, "x.json");
      },
      "unknown key augment.mixupp, did you mean mixup?"));
  EXPECT_TRUE(refuses(
      [&] {
        config_from_json({{"augment", {{"hflip", "x"}}}}, c, "x.json");
      },
      "augment.hflip: expected a number, got \"x\""));
  EXPECT_TRUE(refuses([&] { config_from_json({{"seed", -1}}, c, "x.json"); }, "seed: expected an integer from 0"));
  // 2^64 − 1 is not −1.
  EXPECT_TRUE(
      refuses([&] { config_from_json(parse_json(R"({"freeze": 18446744073709551615})", "x.json"), c, "x.json"); },
              "freeze: expected an integer"));
  config_from_json(parse_json(R"({"seed": 18446744073709551615, "freeze": -1})", "x.json"), c, "x.json");
  EXPECT_EQ(c.seed, 18446744073709551615U);
  EXPECT_EQ(c.freeze, -1);
  c.lr = -1;
  c.drop_path = 1;
  c.from = "x";
  const std::string what = testing::error_of([&] { validate(c); });
  for (const char* const part : {"lr must be", "drop_path must be", "data must be", "model must be"}) {
    EXPECT_NE(what.find(part), std::string::npos) << part << " in " << what;
  }
}

TEST(NearestName, TakesTheFewestChanges) {
  const std::vector<std::string_view> names = {"epochs", "batch", "lr", "min_lr"};
  EXPECT_EQ(nearest_name("epoch", names), "epochs");
  EXPECT_EQ(nearest_name("minlr", names), "min_lr");
  EXPECT_EQ(nearest_name("btach", names), "batch");
  EXPECT_EQ(nearest_name("", names), "lr");
  EXPECT_EQ(nearest_name("x", {}), "");
}

}  // namespace
}  // namespace weft
