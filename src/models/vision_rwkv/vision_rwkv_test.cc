#include "models/vision_rwkv/vision_rwkv.h"

#include <gtest/gtest.h>

#include "api/model_data.h"
#include "kernel/testing/product_types.h"
#include "models/config.h"
#include "models/testing/reference_cases.h"
#include "weft/model.h"

namespace weft::vision_rwkv {
namespace {

struct Published {
  const char* preset;
  std::int64_t parameters;
  double gmacs;
  int side;
};

// The official repository's figures: parameters exactly, multiply-accumulates to the digits printed
TEST(VisionRwkv, PresetsHaveThePublishedSizes) {
  for (const auto& [preset, parameters, gmacs, side] : {Published{"vrwkv_tiny", 6'155'176, 1.169, 224},
                                                        {"vrwkv_small", 23'820'136, 4.593, 224},
                                                        {"vrwkv_base", 93'645'544, 18.203, 224},
                                                        {"vrwkv_large", 334'881'768, 189.3, 384}}) {
    const auto [family, found] = find_preset(preset);
    const auto architecture = family->configure(found->config);
    EXPECT_EQ(found->side, side);
    const auto graph = build_graph(*architecture, {1, 3, side, side}, {});
    EXPECT_EQ(graph->parameter_count(), parameters) << preset;
    EXPECT_NEAR(static_cast<double>(graph->macs()) * 1e-9, gmacs, gmacs > 100 ? 0.05 : 0.0005) << preset;
  }
}

TEST(VisionRwkv, ConfigurationsGoThroughJsonAndBack) {
  const Config config{.img_size = {40, 24},
                      .shift_pixel = 2,
                      .init_mode = InitMode::kLocal,
                      .init_values = 0.1,
                      .interpolate_mode = InterpolateMode::kBilinear,
                      .out_indices = {0, 2, -1},
                      .head = Head::kTanhMlp,
                      .wkv = Wkv::kReleasedKernel};
  Config back;
  config_from_json(config_to_json(config), back, "test");
  EXPECT_EQ(back, config);
}

TEST(VisionRwkv, TellsEverythingThatIsWrongInAConfigurationAtOnce) {
  Config config;
  const Json json = {{"depth", "twelve"}, {"post_norms", true}, {"wkv", "exact"}, {"img_size", {1, 2, 3}}};
  try {
    config_from_json(json, config, "test");
    FAIL() << "no error";
  } catch (const ConfigError& error) {
    for (const char* part :
         {"depth: expected an integer, got \"twelve\"", "unknown key post_norms", "wkv: ", "img_size: "}) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  }
  EXPECT_EQ(resolve_out_indices({.depth = 4, .out_indices = {-1, 0, 3, 2}}), (std::vector{0, 2, 3}));
  EXPECT_THROW(validate({.depth = 0}), ConfigError);
  EXPECT_THROW(validate({.channel_gamma = 0.3}), ConfigError);
  EXPECT_THROW(validate({.depth = 2, .out_indices = {2}}), ConfigError);
}

// One channel, one layer, one pixel: every denominator of the initialisers stays sound.
TEST(VisionRwkv, TinyExtremesBuild) {
  for (const InitMode mode : {InitMode::kFancy, InitMode::kLocal, InitMode::kGlobal}) {
    const Config config{
        .img_size = {1, 1}, .patch_size = 4, .embed_dims = 1, .depth = 1, .init_mode = mode, .num_classes = 1};
    Graph graph("tiny");
    const Value image = graph.input("image", {DType::kF32, {1, 3, 1, 1}});
    const ModelValues values = build(graph, image, config, {});
    EXPECT_EQ(values.logits->shape(), (Shape{1, 1}));
    testing::expect_finite_parameters(graph);
  }
}

// The official initialiser's formulas, worked out by hand for 3 channels and 2 layers.
TEST(VisionRwkv, ParametersStartAsTheOfficialOnes) {
  Graph graph("start");
  const Value image = graph.input("image", {DType::kF32, {1, 3, 16, 16}});
  build(graph, image, {.embed_dims = 3, .depth = 2, .init_values = 0.5, .num_classes = 2}, {});
  const auto start = [&](std::string_view name) {
    std::mt19937_64 random(1);
    for (const int id : graph.parameters()) {
      if (graph.value(id).name != name) continue;
      std::vector<float> values(static_cast<std::size_t>(graph.value(id).type.shape.elements()));
      graph.value(id).initializer(values, random);
      return values;
    }
    return std::vector<float>();
  };
  const auto near = [](const std::vector<float>& got, std::vector<double> want) {
    ASSERT_EQ(got.size(), want.size());
    for (std::size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(got[i], want[i], 1e-6);
  };
  near(start("backbone.layers.0.att.spatial_decay"), {-5, -5 + 8 * std::pow(0.5, 0.7), 3});
  near(start("backbone.layers.1.att.spatial_decay"), {-5, -5 + 8 * std::pow(0.5, 2.0), 3});
  near(start("backbone.layers.1.att.spatial_first"), {std::log(0.3), std::log(0.3) + 0.5, std::log(0.3) - 0.5});
  near(start("backbone.layers.1.att.spatial_mix_k"), {0, std::sqrt(1.0 / 3), std::sqrt(2.0 / 3)});
  near(start("backbone.layers.1.att.spatial_mix_v"), {0.3, std::sqrt(1.0 / 3) + 0.3, std::sqrt(2.0 / 3) + 0.3});
  near(start("backbone.layers.1.att.spatial_mix_r"), {0, std::pow(1.0 / 3, 0.25), std::pow(2.0 / 3, 0.25)});
  near(start("backbone.layers.0.ffn.spatial_mix_k"), {0, 1.0 / 3, 2.0 / 3});
  near(start("backbone.layers.1.gamma2"), {0.5, 0.5, 0.5});
  near(start("backbone.ln1.weight"), {1, 1, 1});
  near(start("backbone.pos_embed"), std::vector<double>(196 * 3, 0.0));
}

class VisionRwkvGolden : public ::testing::TestWithParam<const char*> {};

TEST_P(VisionRwkvGolden, EqualsTheOfficialCode) { testing::expect_equals_official(GetParam(), 3); }

TEST_P(VisionRwkvGolden, InFewerBitsIsWithinTheRoundingErrorToExpect) {
  if (testing::fewer_bits().empty()) GTEST_SKIP() << testing::kNoFewerBits;
  testing::expect_rounds_as_expected(GetParam());
}

INSTANTIATE_TEST_SUITE_P(Cases, VisionRwkvGolden,
                         ::testing::Values("vrwkv-plain", "vrwkv-rect", "vrwkv-pad",
                                           "vrwkv-keynorm-postnorm-layerscale", "vrwkv-noshift", "vrwkv-shift2",
                                           "vrwkv-internimage-layout"),
                         testing::case_name);

TEST(VisionRwkv, RecognisesTheOfficialLayouts) {
  const Model plain = Model::load(testing::golden("vrwkv-plain/weights.pth"));
  EXPECT_EQ(plain.family(), "vision_rwkv");
  EXPECT_EQ(plain.classes(), 7);
  EXPECT_EQ(plain.depth(), 3);
  EXPECT_EQ(plain.labels().front(), "class0");
  const Json config = Json::parse(plain.config());
  EXPECT_EQ(config["img_size"], Json({96, 96}));
  EXPECT_EQ(config["post_norm"], false);
  EXPECT_EQ(config["head"], "linear");

  const Model large = Model::load(testing::golden("vrwkv-internimage-layout/weights.pth"));
  const Json large_config = Json::parse(large.config());
  EXPECT_EQ(large_config["head"], "tanh_mlp");
  EXPECT_EQ(large_config["key_norm"], true);
  EXPECT_EQ(large_config["post_norm"], true);
  EXPECT_EQ(large_config["hidden_dims"], 24);

  const Model override = Model::load(testing::golden("vrwkv-plain/weights.pth"),
                                     {.config = {{"wkv", "released_kernel"}, {"post_norm", "true"}}});
  EXPECT_EQ(Json::parse(override.config())["wkv"], "released_kernel");
  EXPECT_EQ(Json::parse(override.config())["post_norm"], true);
  EXPECT_THROW(Model::load(testing::golden("vrwkv-plain/weights.pth"), {.config = {{"post_nrom", "true"}}}),
               ConfigError);
  // 5 x 3 patches are no square: the file cannot tell the size of the picture.
  EXPECT_THROW(Model::load(testing::golden("vrwkv-noshift/weights.pth")), ConfigError);
  EXPECT_EQ(Model::load(testing::golden("vrwkv-noshift/weights.pth"), {.config = {{"img_size", "[40,24]"}}}).classes(),
            4);
}

}  // namespace
}  // namespace weft::vision_rwkv
