#include "models/mixer/mixer.h"

#include <gtest/gtest.h>

#include "api/model_data.h"
#include "kernel/testing/product_types.h"
#include "models/config.h"
#include "models/testing/config_error.h"
#include "models/testing/reference_cases.h"
#include "ops/ops.h"
#include "weft/model.h"

namespace weft::mixer {
namespace {

struct Published {
  const char* preset;
  std::int64_t parameters;
  double gmacs;
};

// Multiply-accumulates as timm's tables print them; its counter adds 5 for each element of a layer norm's result, which
// weft does not count. Parameters by formula, those of the paper's table 1 and timm's to their digits.
TEST(Mixer, PresetsHaveThePublishedSizes) {
  for (const auto& [preset, parameters, gmacs] : {Published{"mixer_s32_224", 19'104'624, 1.00},
                                                  {"mixer_s16_224", 18'528'264, 3.79},
                                                  {"mixer_b32_224", 60'293'428, 3.24},
                                                  {"mixer_b16_224", 59'880'472, 12.62},
                                                  {"mixer_l32_224", 206'939'264, 11.27},
                                                  {"mixer_l16_224", 208'196'168, 44.60}}) {
    const auto [family, found] = find_preset(preset);
    const auto architecture = family->configure(found->config);
    const auto graph = build_graph(*architecture, {1, 3, 224, 224}, std::array{architecture->depth() - 1});
    EXPECT_EQ(graph->parameter_count(), parameters) << preset;
    std::int64_t norms = 0;
    for (const Graph::Node& node : graph->nodes()) {
      if (node.operation.as<LayerNorm>()) norms += 5 * graph->value(node.outputs[0]).type.shape.elements();
    }
    EXPECT_NEAR(static_cast<double>(graph->macs() + norms) * 1e-9, gmacs, 0.00501) << preset;
    EXPECT_EQ(matching_preset(*family, found->config)->name, preset);
  }
}

TEST(Mixer, ConfigurationsGoThroughJsonAndBack) {
  const Config config{.img_size = {48, 32},
                      .patch_size = 8,
                      .in_chans = 1,
                      .num_classes = 0,
                      .embed_dim = 20,
                      .depth = 3,
                      .mlp_ratio = {0.75, 3}};
  const Json json = config_to_json(config);
  EXPECT_EQ(json["num_blocks"], 3);
  Config back;
  config_from_json(json, back, "test");
  EXPECT_EQ(back, config);
}

TEST(Mixer, RefusesValuesThatMakeNoNetwork) {
  const auto error_of = testing::config_error<Config>;
  EXPECT_EQ(error_of({}), "no error");
  EXPECT_EQ(error_of({.img_size = {230, 224}}), "[mixer] img_size must be a multiple of the patch_size 16, got 230");
  EXPECT_EQ(error_of({.img_size = {65536, 65536}, .patch_size = 1}),
            "[mixer] img_size must be of at most 16384 patches, got 4294967296");
  EXPECT_EQ(error_of({.embed_dim = 0, .depth = 0}),
            "[mixer] embed_dim must be 1 … 65536, got 0; num_blocks must be 1 … 1024, got 0; mlp_ratio must be above 0 "
            "… 64, with hidden layers of at least 1, got 0.5; mlp_ratio must be above 0 … 64, with hidden layers of at "
            "least 1, got 4");
  EXPECT_EQ(error_of({.embed_dim = 4, .mlp_ratio = {0.2, 4}}),
            "[mixer] mlp_ratio must be above 0 … 64, with hidden layers of at least 1, got 0.2");
  EXPECT_EQ((Config{.embed_dim = 49, .mlp_ratio = {3.0 / 49, 4}}).token_hidden(), 3);
}

TEST(Mixer, RefusesPicturesOfAnotherSize) {
  const auto [family, preset] = find_preset("mixer_b16_224");
  const auto architecture = family->configure(preset->config);
  try {
    build_graph(*architecture, {1, 3, 512, 448}, {});
    FAIL() << "no error";
  } catch (const ShapeError& error) {
    EXPECT_STREQ(
        error.what(),
        "[mixer] the picture must be 224 x 224 pixels, because the weights fix the number of tokens, got 512 x "
        "448; resize the picture, or make a new model with img_size=[512,448]");
  }
  EXPECT_THROW(build_graph(*architecture, {1, 3, 223, 224}, {}), ShapeError) << "would pad to as many tokens";
  const Model model = Model::create("mixer_s32_224", 0, {.section = "", .config = {{"img_size", "[64,96]"}}});
  EXPECT_GT(model.macs(64, 96), 0);
}

// One channel, one layer, one pixel, no head.
TEST(Mixer, TinyExtremesBuild) {
  const Config config{
      .img_size = {1, 1}, .patch_size = 1, .num_classes = 0, .embed_dim = 1, .depth = 1, .mlp_ratio = {1, 1}};
  Graph graph("tiny");
  const Value image = graph.input("image", {DType::kF32, {2, 3, 1, 1}});
  const ModelValues values = build(graph, image, config, std::vector{0});
  EXPECT_FALSE(values.logits);
  EXPECT_EQ(values.pooled.shape(), (Shape{2, 1}));
  EXPECT_EQ(values.maps[0].shape(), (Shape{2, 1, 1, 1}));
  testing::expect_finite_parameters(graph);
}

TEST(Mixer, EqualsTheOfficialCode) { testing::expect_equals_official("mlp-mixer-a", 2); }

TEST(Mixer, InFewerBitsIsWithinTheRoundingErrorToExpect) {
  if (testing::fewer_bits().empty()) GTEST_SKIP() << testing::kNoFewerBits;
  testing::expect_rounds_as_expected("mlp-mixer-a");
}

TEST(Mixer, RecognisesTheOfficialLayout) {
  // 3 x 5 patches are no square: the file cannot tell.
  EXPECT_THROW(Model::load(testing::golden("mlp-mixer-a/weights.pth")), ConfigError);
  const Model model =
      Model::load(testing::golden("mlp-mixer-a/weights.pth"), {.section = "", .config = {{"img_size", "[24,40]"}}});
  EXPECT_EQ(model.family(), "mixer");
  EXPECT_EQ(model.classes(), 6);
  EXPECT_EQ(model.depth(), 3);
  EXPECT_EQ(Json::parse(model.config())["mlp_ratio"], Json({0.5, 4.0}));
}

// A file of a published size, its names behind a prefix as training frameworks write them.
TEST(Mixer, RecognisesPublishedSizesBehindAPrefix) {
  const Config official{.embed_dim = 768, .depth = 12};
  Graph graph("mixer");
  build(graph, graph.input("image", {DType::kF32, {1, 3, 224, 224}}), official, {});
  TensorIndex tensors;
  for (const int id : graph.parameters()) tensors.emplace("module." + graph.value(id).name, graph.value(id).type);
  const auto recognition = recognise(tensors, Json::object());
  ASSERT_TRUE(recognition);
  Config config;
  config_from_json(recognition->config, config, "test");
  EXPECT_EQ(config, official);
  EXPECT_EQ(recognition->renamed.at("module.head.bias"), "head.bias");
  for (const Finding& finding : recognition->findings) {
    EXPECT_EQ(finding.assumed, finding.option == "img_size") << finding.option;
  }
  tensors.erase("module.stem.proj.weight");
  EXPECT_FALSE(recognise(tensors, Json::object()));
}

}  // namespace
}  // namespace weft::mixer
