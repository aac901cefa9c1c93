#include "models/dwnet/dwnet.h"

#include <gtest/gtest.h>

#include "api/model_data.h"
#include "kernel/testing/product_types.h"
#include "models/config.h"
#include "models/testing/config_error.h"
#include "models/testing/reference_cases.h"
#include "weft/model.h"

namespace weft::dwnet {
namespace {

struct Published {
  const char* preset;
  std::int64_t parameters;
  double gmacs;
};

// Parameters are those of the official code's modules, multiply-accumulates those of its products and convolutions.
TEST(DwNet, PresetsHaveThePublishedSizes) {
  for (const auto& [preset, parameters, gmacs] : {Published{"dwnet_tiny", 24'172'744, 3.73},
                                                  {"dwnet_base", 74'347'112, 12.81},
                                                  {"ddwnet_tiny", 51'131'752, 3.75},
                                                  {"ddwnet_base", 161'597'928, 12.90},
                                                  {"iddwnet_tiny", 26'244'280, 4.37},
                                                  {"iddwnet_base", 80'253'608, 14.34}}) {
    SCOPED_TRACE(preset);
    const auto [family, found] = find_preset(preset);
    const auto architecture = family->configure(found->config);
    const auto graph = build_graph(*architecture, {1, 3, 224, 224}, {});
    EXPECT_EQ(graph->parameter_count(), parameters);
    EXPECT_NEAR(static_cast<double>(graph->macs()) * 1e-9, gmacs, 0.00501);
    EXPECT_EQ(matching_preset(*family, found->config)->name, preset);
  }
}

TEST(DwNet, ConfigurationsGoThroughJsonAndBack) {
  const Config config{.img_size = {48, 32},
                      .embed_dim = 12,
                      .depths = {1, 2},
                      .window_size = 5,
                      .ape = true,
                      .dynamic = true,
                      .inhomogeneous = true,
                      .inhomo_heads = {3, 4}};
  Config back;
  config_from_json(config_to_json(config), back, "test");
  EXPECT_EQ(back, config);
}

TEST(DwNet, RefusesValuesThatMakeNoNetwork) {
  const auto error_of = testing::config_error<Config>;
  EXPECT_EQ(error_of({}), "no error");
  EXPECT_EQ(error_of({.depths = {}}), "[dwnet] depths must be 1 … 8 stages, got 0");
  EXPECT_EQ(error_of({.window_size = 6}), "[dwnet] window_size must be odd, got 6");
  EXPECT_EQ(error_of({.inhomogeneous = true, .inhomo_heads = {3, 6, 12, 24}}),
            "[dwnet] inhomogeneous must be false where kernels are not dynamic");
  EXPECT_EQ(error_of({.dynamic = true, .inhomogeneous = true, .inhomo_heads = {3, 6, 12, 7}}),
            "[dwnet] inhomo_heads must be a divisor of its channels for each of 4 stages, got [3, 6, 12, 7]");
  EXPECT_EQ(error_of({.embed_dim = 1 << 30, .dynamic = true, .inhomogeneous = true}),
            "[dwnet] embed_dim must be 1 … 8192, got 1073741824");
  EXPECT_EQ(error_of({.out_indices = {1, 1}}),
            "[dwnet] out_indices must be stages of 0 … 3, in order; num_classes must be 0 where there are out_indices");
  EXPECT_EQ(error_of({.img_size = {30, 32}}), "no error");
  EXPECT_EQ(error_of({.img_size = {30, 32}, .ape = true}),
            "[dwnet] img_size must be a multiple of the patch_size 4, got 30");
}

Config small(bool dynamic, bool inhomogeneous) {
  return {.img_size = {16, 16},
          .num_classes = 3,
          .embed_dim = 4,
          .depths = {1, 1},
          .dynamic = dynamic,
          .inhomogeneous = inhomogeneous,
          .inhomo_heads = inhomogeneous ? std::vector{2, 8} : std::vector<int>{}};
}

// One pixel, odd grids, several sizes; with a position embedding in either layout.
TEST(DwNet, TakesAnySize) {
  for (const auto& [dynamic, inhomogeneous] : {std::pair{false, false}, {true, false}, {true, true}}) {
    for (const auto& [height, width] : {std::pair{1, 1}, {4, 4}, {9, 30}, {16, 16}, {33, 20}}) {
      for (const bool detection : {false, true}) {
        Config config = small(dynamic, inhomogeneous);
        config.ape = true;
        if (detection) {
          config.num_classes = 0;
          config.out_indices = {0, 1};
        }
        Graph graph("tiny");
        const Value image = graph.input("image", {DType::kF32, {2, 3, height, width}});
        const ModelValues values = build(graph, image, config, std::array{0, 1});
        const std::int64_t rows = (height + 3) / 4;
        const std::int64_t columns = (width + 3) / 4;
        EXPECT_EQ(values.maps[0].shape(), (Shape{2, 4, rows, columns}));
        EXPECT_EQ(values.maps[1].shape(), (Shape{2, 8, (rows + 1) / 2, (columns + 1) / 2}));
        EXPECT_EQ(values.pooled.shape(), (Shape{2, 8}));
        EXPECT_EQ(values.logits.has_value(), !detection);
        testing::expect_finite_parameters(graph);
      }
    }
  }
}

class DwNetGolden : public ::testing::TestWithParam<const char*> {};

TEST_P(DwNetGolden, EqualsTheOfficialCode) { testing::expect_equals_official(GetParam(), 2); }

TEST_P(DwNetGolden, InFewerBitsIsWithinTheRoundingErrorToExpect) {
  if (testing::fewer_bits().empty()) GTEST_SKIP() << testing::kNoFewerBits;
  testing::expect_rounds_as_expected(GetParam());
}

INSTANTIATE_TEST_SUITE_P(Cases, DwNetGolden,
                         ::testing::Values("dwnet-dw-w7", "dwnet-ddw-w7", "dwnet-iddw-w7", "dwnet-ddw-det-padded"),
                         testing::case_name);

TEST(DwNet, RecognisesTheOfficialLayouts) {
  const auto config_of = [](const char* name, const LoadOptions& options = {}) {
    return Json::parse(Model::load(testing::golden(fmt::format("{}/weights.pth", name)), options).config());
  };
  const Json fixed = config_of("dwnet-dw-w7");
  EXPECT_EQ(fixed["embed_dim"], 16);
  EXPECT_EQ(fixed["depths"], Json({2, 2, 1}));
  EXPECT_EQ(fixed["window_size"], 7);
  EXPECT_EQ(fixed["mlp_ratio"], 2.0);
  EXPECT_EQ(fixed["num_classes"], 6);
  EXPECT_EQ(fixed["dynamic"], false);
  const Json dynamic = config_of("dwnet-ddw-w7");
  EXPECT_EQ(dynamic["dynamic"], true);
  EXPECT_EQ(dynamic["inhomogeneous"], false);
  EXPECT_EQ(dynamic["window_size"], 7);
  const Json of_places = config_of("dwnet-iddw-w7");
  EXPECT_EQ(of_places["inhomogeneous"], true);
  EXPECT_EQ(of_places["inhomo_heads"], Json({3, 4, 12}));
  const Json detection = config_of("dwnet-ddw-det-padded");
  EXPECT_EQ(detection["out_indices"], Json({0, 1, 2}));
  EXPECT_EQ(detection["num_classes"], 0);
}

// A file of a published size, its names behind a prefix as training frameworks write them.
TEST(DwNet, RecognisesPublishedSizesBehindAPrefix) {
  for (const auto& [preset, assumed] : {std::pair{"dwnet_tiny", 1}, {"ddwnet_base", 1}, {"iddwnet_base", 2}}) {
    SCOPED_TRACE(preset);
    const auto [family, found] = find_preset(preset);
    const auto graph = build_graph(*family->configure(found->config), {1, 3, 224, 224}, {});
    TensorIndex tensors;
    for (const int id : graph->parameters()) tensors.emplace("module." + graph->value(id).name, graph->value(id).type);
    tensors.emplace("module.layers.0.blocks.0.bn.num_batches_tracked", TensorType{DType::kI64, {}});
    const auto recognition = recognise(tensors, Json::object());
    ASSERT_TRUE(recognition);
    EXPECT_EQ(recognition->config, found->config);
    EXPECT_EQ(recognition->renamed.at("module.head.weight"), "head.weight");
    EXPECT_EQ(recognition->derived, (std::set<std::string>{"module.layers.0.blocks.0.bn.num_batches_tracked"}));
    EXPECT_EQ(std::ranges::count(recognition->findings, true, &Finding::assumed), assumed);
    tensors.erase("module.patch_embed.proj.weight");
    EXPECT_FALSE(recognise(tensors, Json::object()));
  }
}

// What the official code does with `inhomogeneous` alone is a static network.
TEST(DwNet, ReadsOfficialConfigurations) {
  const Json official = {{"img_size", 64}, {"embed_dim", 8}, {"inhomogeneous", true}, {"inhomo_heads", {2, 2, 2, 2}}};
  const auto config = from_official("dwnet-dw", official, {});
  ASSERT_TRUE(config);
  EXPECT_EQ(config->img_size, (std::array{64, 64}));
  EXPECT_FALSE(config->inhomogeneous);
  const auto detection = from_official("dwnet-dw-det", {{"pretrain_img_size", 64}, {"embed_dim", 8}}, {});
  EXPECT_EQ(detection->out_indices, (std::vector{0, 1, 2, 3}));
  EXPECT_EQ(detection->num_classes, 0);
  EXPECT_FALSE(from_official("dwnet-", official, {}));
}

}  // namespace
}  // namespace weft::dwnet
