#include "models/resmlp/resmlp.h"

#include <gtest/gtest.h>

#include "api/model_data.h"
#include "kernel/testing/product_types.h"
#include "models/config.h"
#include "models/testing/config_error.h"
#include "models/testing/reference_cases.h"
#include "weft/model.h"

namespace weft::resmlp {
namespace {

struct Published {
  const char* preset;
  std::int64_t parameters;
  double gmacs;
};

// Parameters and multiply-accumulates as timm's tables print them, the former to the last by formula.
TEST(ResMlp, PresetsHaveThePublishedSizes) {
  for (const auto& [preset, parameters, gmacs] : {Published{"resmlp_12", 15'350'872, 3.01},
                                                  {"resmlp_24", 30'020'680, 5.96},
                                                  {"resmlp_36", 44'690'488, 8.91},
                                                  {"resmlpB_24", 129'138'280, 100.23}}) {
    const auto [family, found] = find_preset(preset);
    const auto architecture = family->configure(found->config);
    const auto graph = build_graph(*architecture, {1, 3, 224, 224}, {});
    EXPECT_EQ(graph->parameter_count(), parameters) << preset;
    EXPECT_NEAR(static_cast<double>(graph->macs()) * 1e-9, gmacs, 0.00501) << preset;
    EXPECT_EQ(matching_preset(*family, found->config)->name, preset);
  }
}

TEST(ResMlp, ConfigurationsGoThroughJsonAndBack) {
  const Config config{.img_size = {48, 32},
                      .patch_size = 8,
                      .in_chans = 1,
                      .num_classes = 0,
                      .embed_dim = 20,
                      .depth = 3,
                      .init_scale = 0.25};
  Config back;
  config_from_json(config_to_json(config), back, "test");
  EXPECT_EQ(back, config);
}

TEST(ResMlp, RefusesValuesThatMakeNoNetwork) {
  const auto error_of = testing::config_error<Config>;
  EXPECT_EQ(error_of({}), "no error");
  EXPECT_EQ(error_of({.img_size = {224, 230}}), "[resmlp] img_size must be a multiple of the patch_size 16, got 230");
  EXPECT_EQ(error_of({.img_size = {65536, 65536}, .patch_size = 1}),
            "[resmlp] img_size must be of at most 16384 patches, got 4294967296");
  EXPECT_EQ(error_of({.depth = 0, .init_scale = -1}),
            "[resmlp] depth must be 1 … 1024, got 0; init_scale must be 0 … 1, got -1");
}

TEST(ResMlp, RefusesPicturesOfAnotherSize) {
  const auto [family, preset] = find_preset("resmlp_12");
  try {
    build_graph(*family->configure(preset->config), {1, 3, 256, 224}, {});
    FAIL() << "no error";
  } catch (const ShapeError& error) {
    EXPECT_STREQ(error.what(),
                 "[resmlp] the picture must be 224 x 224 pixels, because the weights fix the number of tokens, got 256 "
                 "x 224; resize the picture, or make a new model with img_size=[256,224]");
  }
}

// One channel, one layer, one pixel, no head.
TEST(ResMlp, TinyExtremesBuild) {
  const Config config{.img_size = {1, 1}, .patch_size = 1, .num_classes = 0, .embed_dim = 1, .depth = 1};
  Graph graph("tiny");
  const Value image = graph.input("image", {DType::kF32, {2, 3, 1, 1}});
  const ModelValues values = build(graph, image, config, std::vector{0});
  EXPECT_FALSE(values.logits);
  EXPECT_EQ(values.pooled.shape(), (Shape{2, 1}));
  EXPECT_EQ(values.maps[0].shape(), (Shape{2, 1, 1, 1}));
  testing::expect_finite_parameters(graph);
}

TEST(ResMlp, EqualsTheOfficialCode) { testing::expect_equals_official("resmlp-a", 2); }

TEST(ResMlp, InFewerBitsIsWithinTheRoundingErrorToExpect) {
  if (testing::fewer_bits().empty()) GTEST_SKIP() << testing::kNoFewerBits;
  testing::expect_rounds_as_expected("resmlp-a");
}

TEST(ResMlp, RecognisesTheOfficialLayout) {
  // 7 x 5 patches are no square: the file cannot tell.
  EXPECT_THROW(Model::load(testing::golden("resmlp-a/weights.pth")), ConfigError);
  const Model model =
      Model::load(testing::golden("resmlp-a/weights.pth"), {.section = "", .config = {{"img_size", "[28,20]"}}});
  EXPECT_EQ(model.family(), "resmlp");
  EXPECT_EQ(model.classes(), 7);
  EXPECT_EQ(model.depth(), 3);
}

// A file of a published size, its names behind a prefix as training frameworks write them.
TEST(ResMlp, RecognisesPublishedSizesBehindAPrefix) {
  const Config official{.embed_dim = 384, .depth = 12};
  Graph graph("resmlp");
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
    EXPECT_EQ(finding.assumed, finding.option == "img_size" || finding.option == "init_scale") << finding.option;
  }
  tensors.erase("module.blocks.0.norm1.alpha");
  EXPECT_FALSE(recognise(tensors, Json::object()));
}

}  // namespace
}  // namespace weft::resmlp
