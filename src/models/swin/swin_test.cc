#include "models/swin/swin.h"

#include <gtest/gtest.h>

#include "api/model_data.h"
#include "kernel/testing/product_types.h"
#include "models/config.h"
#include "models/testing/config_error.h"
#include "models/testing/reference_cases.h"
#include "ops/testing/random.h"
#include "weft/model.h"

namespace weft::swin {
namespace {

struct Published {
  const char* preset;
  std::int64_t parameters;
  double gmacs;
};

// Parameters exactly (the official tables print 28, 50, 88 and 197 M); multiply-accumulates as those tables print them,
// to 0.1 G. The official counter adds one for each element that a norm reads: less than 0.1 %.
TEST(Swin, PresetsHaveThePublishedSizes) {
  for (const auto& [preset, parameters, gmacs] : {Published{"swin_t", 28'288'354, 4.5},
                                                  {"swin_s", 49'606'258, 8.7},
                                                  {"swin_b", 87'768'224, 15.4},
                                                  {"swin_l", 196'532'476, 34.5},
                                                  {"swin_b_384", 87'903'584, 47.1},
                                                  {"swin_l_384", 196'735'516, 103.9},
                                                  {"swinv2_t_w8", 28'347'154, 5.9},
                                                  {"swinv2_t_w16", 28'347'154, 6.6},
                                                  {"swinv2_s_w8", 49'728'418, 11.5},
                                                  {"swinv2_s_w16", 49'728'418, 12.6},
                                                  {"swinv2_b_w8", 87'918'816, 20.3},
                                                  {"swinv2_b_w16", 87'918'816, 21.8},
                                                  {"swinv2_b_w12to16", 87'918'816, 21.8},
                                                  {"swinv2_b_w12to24", 87'918'816, 54.7},
                                                  {"swinv2_l_w12to16", 196'739'932, 47.5},
                                                  {"swinv2_l_w12to24", 196'739'932, 115.4}}) {
    const auto [family, found] = find_preset(preset);
    const auto architecture = family->configure(found->config);
    const auto graph = build_graph(*architecture, {1, 3, found->side, found->side}, {});
    EXPECT_EQ(graph->parameter_count(), parameters) << preset;
    EXPECT_NEAR(static_cast<double>(graph->macs()) * 1e-9, gmacs, 0.05 + 1e-3 * gmacs) << preset;
    EXPECT_EQ(matching_preset(*family, found->config)->name, preset);
  }
}

TEST(Swin, ConfigurationsGoThroughJsonAndBack) {
  const Config config{.version = 2,
                      .img_size = {64, 32},
                      .num_classes = 0,
                      .depths = {1, 2},
                      .num_heads = {2, 4},
                      .mlp_ratio = 2.5,
                      .ape = true,
                      .pretrained_window_sizes = {0, 3},
                      .out_indices = {1}};
  Config back;
  config_from_json(config_to_json(config), back, "test");
  EXPECT_EQ(back, config);
}

TEST(Swin, RefusesValuesThatMakeNoNetwork) {
  const auto error_of = testing::config_error<Config>;
  EXPECT_EQ(error_of({}), "no error");
  EXPECT_EQ(error_of({.version = 3}), "[swin] version must be 1 … 2, got 3");
  EXPECT_EQ(error_of({.img_size = {224, 230}}), "[swin] img_size must be a multiple of the patch_size 4, got 230");
  EXPECT_EQ(error_of({.depths = {2, 2}}), "[swin] num_heads must be one for each of the 2 stages, got 4");
  EXPECT_EQ(error_of({.depths = {}, .num_heads = {}}), "[swin] number of depths must be 1 … 8, got 0");
  EXPECT_EQ(error_of({.num_heads = {3, 6, 12, 7}}), "[swin] num_heads must be divisors of the channels, got 7 for 768");
  EXPECT_EQ(
      error_of({.window_size = 0, .mlp_ratio = 0}),
      "[swin] window_size must be 1 … 1024, got 0; mlp_ratio must be above 0 … 64, with a hidden layer of at least "
      "1, got 0");
  EXPECT_EQ(error_of({.pretrained_window_sizes = {0, 0, 0, 0}}),
            "[swin] pretrained_window_sizes must be none, or in version 2 one for each of the 4 stages, got 4");
  EXPECT_EQ(error_of({.out_indices = {2, 4, 1}}),
            "[swin] out_indices must be 0 … 3, got 4; out_indices must be in order, each once, got 2,4,1");
}

// Where the official classification code makes windows as small as the grid, and the detection code does not.
TEST(Swin, WindowsFitTheConfiguredGrid) {
  Config config{.img_size = {96, 192}, .depths = {2, 2, 2}, .num_heads = {3, 6, 12}};
  EXPECT_EQ(config.window(0), 7);
  EXPECT_EQ(config.window(1), 7);
  EXPECT_EQ(config.window(2), 6);
  config.out_indices = {0};
  EXPECT_EQ(config.window(2), 7);
}

// One pixel, one channel, one block a stage, no head; and with a window of one token.
TEST(Swin, TinyExtremesBuild) {
  for (const int version : {1, 2}) {
    for (const bool detection : {false, true}) {
      const Config config{.version = version,
                          .img_size = {4, 4},
                          .num_classes = 0,
                          .embed_dim = 1,
                          .depths = {2, 1},
                          .num_heads = {1, 2},
                          .window_size = detection ? 1 : 7,
                          .out_indices = detection ? std::vector{0, 1} : std::vector<int>{}};
      validate(config);
      Graph graph("tiny");
      const Value image = graph.input("image", {DType::kF32, {2, 3, 1, 1}});
      const ModelValues values = build(graph, image, config, std::vector{0, 1});
      EXPECT_FALSE(values.logits);
      EXPECT_EQ(values.pooled.shape(), (Shape{2, 2}));
      EXPECT_EQ(values.maps[0].shape(), (Shape{2, 1, 1, 1}));
      EXPECT_EQ(values.maps[1].shape(), (Shape{2, 2, 1, 1}));
      testing::expect_finite_parameters(graph);
    }
  }
}

using Options = std::vector<std::pair<std::string, std::string>>;

LoadOptions small(const Options& more) {
  LoadOptions options{.section = "",
                      .config = {{"img_size", "[32,32]"},
                                 {"patch_size", "2"},
                                 {"embed_dim", "12"},
                                 {"depths", "[2,2]"},
                                 {"num_heads", "[2,3]"},
                                 {"window_size", "4"},
                                 {"num_classes", "5"}}};
  options.config.insert(options.config.end(), more.begin(), more.end());
  return options;
}

// Any size runs, and maps have the extents of the detection code: those of the padded picture, halved and rounded up.
TEST(Swin, TakesPicturesOfAnySize) {
  for (const char* preset : {"swin_t", "swinv2_t_w8"}) {
    for (const char* ape : {"false", "true"}) {
      const Session session(Model::create(preset, 1, small({{"ape", ape}})), {.threads = 2});
      for (const auto& [height, width] : {std::pair{32, 32}, {31, 45}, {5, 70}, {1, 1}}) {
        const Features features = session.features(testing::random_tensor({1, 3, height, width}, 1), std::vector{0, 1});
        const std::int64_t h = (height + 1) / 2;
        const std::int64_t w = (width + 1) / 2;
        EXPECT_EQ(features.maps.at(0).shape(), (Shape{1, 12, h, w}));
        EXPECT_EQ(features.maps.at(1).shape(), (Shape{1, 24, (h + 1) / 2, (w + 1) / 2}));
        for (const float x : features.pooled.data<float>()) EXPECT_TRUE(std::isfinite(x));
      }
    }
  }
}

class SwinGolden : public ::testing::TestWithParam<const char*> {};

TEST_P(SwinGolden, EqualsTheOfficialCode) { testing::expect_equals_official(GetParam(), 2); }

TEST_P(SwinGolden, InFewerBitsIsWithinTheRoundingErrorToExpect) {
  if (testing::fewer_bits().empty()) GTEST_SKIP() << testing::kNoFewerBits;
  testing::expect_rounds_as_expected(GetParam());
}

INSTANTIATE_TEST_SUITE_P(Cases, SwinGolden, ::testing::Values("swin-w4", "swin-w7-ape", "swin-det-padded", "swinv2-w4"),
                         testing::case_name);

TEST(Swin, RecognisesTheOfficialLayouts) {
  const auto load = [](const char* name, Options config = {}) {
    return Model::load(testing::golden(std::string(name) + "/weights.pth"),
                       {.section = "", .config = std::move(config)});
  };
  const Model plain = load("swin-w4", {{"img_size", "[32,64]"}});
  EXPECT_EQ(plain.family(), "swin");
  EXPECT_EQ(plain.classes(), 6);
  EXPECT_EQ(plain.depth(), 3);
  const Json config = Json::parse(plain.config());
  EXPECT_EQ(config["version"], 1);
  EXPECT_EQ(config["embed_dim"], 12);
  EXPECT_EQ(config["patch_size"], 2);
  EXPECT_EQ(config["depths"], Json({2, 2, 2}));
  EXPECT_EQ(config["num_heads"], Json({2, 3, 4}));
  EXPECT_EQ(config["window_size"], 4);
  EXPECT_EQ(config["mlp_ratio"], 2.0);
  EXPECT_EQ(config["ape"], false);

  const Json second =
      Json::parse(load("swinv2-w4", {{"img_size", "[32,64]"}, {"pretrained_window_sizes", "[0,3,2]"}}).config());
  EXPECT_EQ(second["version"], 2);
  EXPECT_EQ(second["window_size"], 4);
  EXPECT_EQ(second["num_heads"], Json({2, 3, 4}));

  const Json detection = Json::parse(load("swin-det-padded").config());
  EXPECT_EQ(detection["out_indices"], Json({0, 1, 2}));
  EXPECT_EQ(detection["img_size"], Json({24, 24}));
  EXPECT_EQ(detection["ape"], true);
  EXPECT_EQ(detection["num_classes"], 0);

  // 14 x 28 positions are no square: the file cannot tell.
  EXPECT_THROW(load("swin-w7-ape"), ConfigError);
  EXPECT_EQ(load("swin-w7-ape", {{"img_size", "[28,56]"}}).classes(), 5);
}

// A mask of few bytes can not make the picture a large one.
TEST(Swin, TellsThePictureByMasksOfItsWindows) {
  const auto [family, preset] = find_preset("swin_t");
  const auto graph = build_graph(*family->configure(preset->config), {1, 3, 224, 224}, {});
  TensorIndex tensors;
  for (const int id : graph->parameters()) tensors.emplace(graph->value(id).name, graph->value(id).type);
  TensorType& mask = tensors["layers.0.blocks.1.attn_mask"];
  mask = {DType::kF32, {16, 49, 49}};
  EXPECT_EQ(recognise(tensors, Json::object())->config["img_size"], Json({112, 112}));
  for (const Shape& other : {Shape{1 << 24, 1, 1}, Shape{16, 49, 1}, Shape{16, 48, 48}}) {
    mask.shape = other;
    EXPECT_THROW(recognise(tensors, Json::object()), WeightError) << other.str();
  }
}

// A detection file tells the pictures' size by its position embedding, but not beyond what validate refuses.
TEST(Swin, ExtentsOfPositionsDoNotOverflow) {
  const Config config{.num_classes = 0, .ape = true, .out_indices = {0, 1, 2, 3}};
  const Family& family = find_family(Config::kFamily);
  const auto graph = build_graph(*family.configure(config_to_json(config)), {1, 3, 224, 224}, {});
  TensorIndex tensors;
  for (const int id : graph->parameters()) tensors.emplace(graph->value(id).name, graph->value(id).type);
  tensors.at("absolute_pos_embed").shape = {1, 96, 1 << 24, 1};
  tensors.at("patch_embed.proj.weight").shape = {96, 3, 1024, 1024};
  const auto recognition = recognise(tensors, Json::object());
  EXPECT_EQ(recognition->config["img_size"], Json({1 << 24, 1024}));
  EXPECT_THROW(family.configure(recognition->config), ConfigError);
}

// A file of a published size, of which the last stage's windows tell the pictures' size.
TEST(Swin, RecognisesPublishedSizesBehindAPrefix) {
  for (const char* name : {"swin_t", "swin_l_384", "swinv2_b_w12to24", "swinv2_t_w16"}) {
    const auto [family, preset] = find_preset(name);
    const auto graph = build_graph(*family->configure(preset->config), {1, 3, preset->side, preset->side}, {});
    TensorIndex tensors;
    for (const int id : graph->parameters()) tensors.emplace("module." + graph->value(id).name, graph->value(id).type);
    const Json version = preset->config["version"];
    Json overrides = Json::object();
    if (version == 2) {
      const std::int64_t side = 2 * preset->config["window_size"].get<int>() - 1;
      tensors.emplace("module.layers.0.blocks.0.attn.relative_coords_table",
                      TensorType{DType::kF32, {1, side, side, 2}});
      const std::int64_t last = 2 * (preset->side / 32) - 1;
      tensors.emplace("module.layers.3.blocks.0.attn.relative_coords_table",
                      TensorType{DType::kF32, {1, last, last, 2}});
      overrides["pretrained_window_sizes"] = preset->config["pretrained_window_sizes"];
    }
    const auto recognition = recognise(tensors, overrides);
    ASSERT_TRUE(recognition) << name;
    EXPECT_EQ(recognition->config, preset->config) << name;
    EXPECT_EQ(recognition->renamed.at("module.norm.weight"), "norm.weight");
    tensors.erase("module.patch_embed.proj.weight");
    EXPECT_FALSE(recognise(tensors, Json::object()));
  }
}

}  // namespace
}  // namespace weft::swin
