#include "models/rmt/rmt.h"

#include <gtest/gtest.h>

#include "api/model_data.h"
#include "kernel/testing/product_types.h"
#include "models/config.h"
#include "models/testing/config_error.h"
#include "models/testing/reference_cases.h"
#include "ops/ops.h"
#include "weft/model.h"

namespace weft::rmt {
namespace {

// Parameters exactly; multiply-accumulates as the paper's table 1 prints them. They come from fvcore, which adds 5 for
// each element of a layer norm's result and 2 for each of a batch norm's; the table's G is 2^30: counted like this all
// four agree to its last digit, while 10^9 would be 2.7, 4.8, 10.4 and 19.5.
TEST(Rmt, PresetsHaveThePublishedSizes) {
  struct Published {
    const char* preset;
    std::int64_t parameters;
    double gmacs;
  };
  for (const auto& [preset, parameters, gmacs] : {Published{"rmt_t", 14'334'216, 2.5},
                                                  {"rmt_s", 26'967'240, 4.5},
                                                  {"rmt_b", 54'154'896, 9.7},
                                                  {"rmt_l", 95'464'864, 18.2}}) {
    const auto [family, found] = find_preset(preset);
    const auto graph = build_graph(*family->configure(found->config), {1, 3, 224, 224}, {});
    EXPECT_EQ(graph->parameter_count(), parameters) << preset;
    std::int64_t norms = 0;
    for (const Graph::Node& node : graph->nodes()) {
      const std::int64_t elements = graph->value(node.outputs[0]).type.shape.elements();
      if (node.operation.as<LayerNorm>()) norms += 5 * elements;
      if (node.operation.as<BatchNorm>()) norms += 2 * elements;
    }
    EXPECT_NEAR(static_cast<double>(graph->macs() + norms) * 0x1p-30, gmacs, 0.0501) << preset;
    EXPECT_EQ(matching_preset(*family, found->config)->name, preset);
  }
}

TEST(Rmt, ConfigurationsGoThroughJsonAndBack) {
  const Config config{.in_chans = 1,
                      .num_classes = 0,
                      .embed_dims = {8, 12, 16},
                      .depths = {1, 2, 3},
                      .num_heads = {1, 2, 4},
                      .init_values = {1, 2, 3},
                      .heads_ranges = {3, 4.5, 6},
                      .mlp_ratios = {2, 2.5, 3},
                      .drop_path_rate = 0.3,
                      .chunkwise_recurrents = {false, true, false},
                      .projection = 20,
                      .layerscales = {true, false, true},
                      .layer_init_values = 0.5};
  Config back;
  config_from_json(config_to_json(config), back, "test");
  EXPECT_EQ(back, config);
  EXPECT_NO_THROW(validate(config));
}

TEST(Rmt, RefusesValuesThatMakeNoNetwork) {
  const auto error_of = testing::config_error<Config>;
  EXPECT_EQ(error_of({}), "no error");
  EXPECT_EQ(error_of({.num_heads = {3, 6, 12, 7}}),
            "[rmt] num_heads must be divisors of embed_dims that leave an even "
            "number of channels to a head, got 7");
  EXPECT_EQ(error_of({.num_heads = {96, 6, 12, 24}}),
            "[rmt] num_heads must be divisors of embed_dims that leave an even "
            "number of channels to a head, got 96");
  EXPECT_EQ(error_of({.depths = {1, 2, 3}, .mlp_ratios = {0, 1, 1, 1}}),
            "[rmt] depths must be a list of 4, one entry for each of "
            "embed_dims, got 3; mlp_ratios must be above 0 … "
            "64, with hidden layers of at least 1, got 0");
  EXPECT_NE(error_of({.embed_dims = {}}).find("embed_dims must be a list of 1 … 16, got 0"), std::string::npos);
}

// One block to a stage, one head of two channels, one pixel, no head.
TEST(Rmt, TinyExtremesBuild) {
  const Config config{.num_classes = 0,
                      .embed_dims = {2, 2},
                      .depths = {1, 1},
                      .num_heads = {1, 1},
                      .init_values = {1, 1},
                      .heads_ranges = {3, 3},
                      .mlp_ratios = {0.5, 1},
                      .chunkwise_recurrents = {true, false},
                      .projection = 1,
                      .layerscales = {true, false}};
  validate(config);
  Graph graph("tiny");
  const Value image = graph.input("image", {DType::kF32, {2, 3, 1, 1}});
  const ModelValues values = build(graph, image, config, std::vector{1, 0});
  EXPECT_FALSE(values.logits);
  EXPECT_EQ(values.pooled.shape(), (Shape{2, 1}));
  EXPECT_EQ(values.maps[0].shape(), (Shape{2, 2, 1, 1}));
  EXPECT_EQ(values.maps[1].shape(), (Shape{2, 2, 1, 1}));
  testing::expect_finite_parameters(graph);
}

// The maps of the stages at a size that halves unevenly: 37 x 50 → 19 x 25 → 10 x 13 → 5 x 7 → 3 x 4 → 2 x 2.
TEST(Rmt, TakesAnySize) {
  const auto [family, preset] = find_preset("rmt_t");
  const auto graph = build_graph(*family->configure(preset->config), {2, 3, 37, 50}, std::array{0, 1, 2, 3});
  const auto shape = [&](std::size_t i) { return graph->value(graph->outputs()[i].value).type.shape; };
  EXPECT_EQ(shape(0), (Shape{2, 64, 10, 13}));
  EXPECT_EQ(shape(1), (Shape{2, 128, 5, 7}));
  EXPECT_EQ(shape(2), (Shape{2, 256, 3, 4}));
  EXPECT_EQ(shape(3), (Shape{2, 512, 2, 2}));
}

// The buffers that a new model starts with are those that the official code computes, in f32: there the exponent of
// 10000 is rounded, which its logarithm, 9.2, magnifies; and so is 1 − 2^… of the decay, by at most 2^-25, of which the
// logarithm makes less than twice as much.
TEST(Rmt, StartsWithTheOfficialDecaysAndAngles) {
  const Model official =
      Model::load(testing::golden("rmt-tiny/weights.pth"), {.section = "", .config = {{"heads_ranges", "[4,4,6,6]"}}});
  const auto graph = build_graph(*official.data().architecture, {1, 3, 64, 96}, {});
  std::mt19937_64 random(1);
  int buffers = 0;
  for (const int id : graph->parameters()) {
    const Graph::ValueInfo& info = graph->value(id);
    if (info.name.find("Relpos") == std::string::npos) continue;
    ++buffers;
    EXPECT_TRUE(info.buffer) << info.name;
    std::vector<float> values(static_cast<std::size_t>(info.type.shape.elements()));
    info.initializer(values, random);
    const auto want = official.data().weights.at(info.name).data<float>();
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double tolerance = info.name.ends_with("angle") ? 12 * 0x1p-24 * std::abs(want[i]) : 2 * 0x1p-24;
      EXPECT_NEAR(values[i], want[i], tolerance) << info.name;
    }
  }
  EXPECT_EQ(buffers, 8);
}

// log(1 − 2^−s), near −∞ and near 0.
TEST(Rmt, DecaysStartFiniteAtTheEndsOfTheirRange) {
  for (const auto& [value, want] : {std::pair(1e-30, std::log(1e-30) + std::log(std::log(2))), {64.0, -0x1p-64}}) {
    Graph graph("decays");
    const Scope s(graph);
    const Masa masa(s["Relpos"], 4, {.grid = {2, 2}, .init_value = value, .heads_range = 0});
    std::mt19937_64 random(1);
    for (const int id : graph.parameters()) {
      const Graph::ValueInfo& info = graph.value(id);
      if (!info.name.ends_with("decay")) continue;
      std::vector<float> decay(1);
      info.initializer(decay, random);
      EXPECT_FLOAT_EQ(decay[0], static_cast<float>(want));
    }
  }
}

TEST(Rmt, EqualsTheOfficialCode) { testing::expect_equals_official("rmt-tiny", 4); }

TEST(Rmt, InFewerBitsIsWithinTheRoundingErrorToExpect) {
  if (testing::fewer_bits().empty()) GTEST_SKIP() << testing::kNoFewerBits;
  testing::expect_rounds_as_expected("rmt-tiny");
}

TEST(Masa, EqualsTheOfficialCode) {
  testing::expect_equals_official("masa-op-full", 2);
  testing::expect_equals_official("masa-op-decomposed", 3);
}

TEST(Rmt, RecognisesTheOfficialLayout) {
  const Model model = Model::load(testing::golden("rmt-tiny/weights.pth"));
  EXPECT_EQ(model.family(), "rmt");
  EXPECT_EQ(model.classes(), 7);
  EXPECT_EQ(model.depth(), 4);
  EXPECT_EQ(model.parameter_count(), 100'663);
  const Json config = Json::parse(model.config());
  EXPECT_EQ(config["embed_dims"], Json({16, 24, 32, 48}));
  EXPECT_EQ(config["depths"], Json({1, 2, 1, 2}));
  EXPECT_EQ(config["num_heads"], Json({2, 3, 4, 4}));
  EXPECT_EQ(config["mlp_ratios"], Json({2.0, 2.0, 2.0, 2.0}));
  EXPECT_EQ(config["chunkwise_recurrents"], Json({true, true, true, false}));
  EXPECT_EQ(config["layerscales"], Json({false, false, true, true}));
  EXPECT_EQ(config["projection"], 40);
}

// A file of each published size, its names behind a prefix as training frameworks write them.
TEST(Rmt, RecognisesPublishedSizesBehindAPrefix) {
  for (const char* name : {"rmt_t", "rmt_s", "rmt_b", "rmt_l"}) {
    const auto [family, preset] = find_preset(name);
    Config official;
    config_from_json(preset->config, official, "test");
    Graph graph("rmt");
    build(graph, graph.input("image", {DType::kF32, {1, 3, 64, 64}}), official, {});
    TensorIndex tensors;
    for (const int id : graph.parameters()) tensors.emplace("module." + graph.value(id).name, graph.value(id).type);
    tensors.emplace("module.norm.num_batches_tracked", TensorType{DType::kI64, {}});
    const auto recognition = recognise(tensors, Json::object());
    ASSERT_TRUE(recognition);
    Config config;
    config_from_json(recognition->config, config, "test");
    EXPECT_EQ(config, official);
    EXPECT_EQ(recognition->renamed.at("module.head.bias"), "head.bias");
    EXPECT_TRUE(recognition->derived.contains("module.norm.num_batches_tracked"));
    for (const Finding& finding : recognition->findings) {
      const bool traceless = finding.option == "chunkwise_recurrents" || finding.option == "init_values" ||
                             finding.option == "heads_ranges" || finding.option == "layer_init_values" ||
                             finding.option == "drop_path_rate";
      EXPECT_EQ(finding.assumed, traceless) << finding.option;
    }
    tensors.emplace("module.aux_head.weight", TensorType{DType::kF32, {1000, 512}});
    EXPECT_THROW(recognise(tensors, Json::object()), UnsupportedError);
  }
}

}  // namespace
}  // namespace weft::rmt
