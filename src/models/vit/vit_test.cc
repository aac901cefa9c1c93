#include "models/vit/vit.h"

#include <gtest/gtest.h>

#include "api/model_data.h"
#include "io/npy.h"
#include "kernel/testing/product_types.h"
#include "models/config.h"
#include "models/testing/config_error.h"
#include "models/testing/reference_cases.h"
#include "weft/model.h"

namespace weft::vit {
namespace {

struct Published {
  const char* preset;
  std::int64_t parameters;
  double gmacs;
};

// Parameters exactly; multiply-accumulates as timm's tables print them. timm's counter adds 5 for each element of a
// layer norm's result, which weft does not count.
TEST(Vit, PresetsHaveThePublishedSizes) {
  for (const auto& [preset, parameters, gmacs] : {Published{"vit_tiny_patch16_224", 5'717'416, 1.26},
                                                  {"vit_small_patch16_224", 22'050'664, 4.61},
                                                  {"vit_base_patch16_224", 86'567'656, 17.58},
                                                  {"vit_large_patch16_224", 304'326'632, 61.60},
                                                  {"deit_tiny_patch16_224", 5'717'416, 1.26},
                                                  {"deit_small_patch16_224", 22'050'664, 4.61},
                                                  {"deit_base_patch16_224", 86'567'656, 17.58},
                                                  {"deit_tiny_distilled_patch16_224", 5'910'800, 1.27},
                                                  {"deit_small_distilled_patch16_224", 22'436'432, 4.63},
                                                  {"deit_base_distilled_patch16_224", 87'338'192, 17.68}}) {
    const auto [family, found] = find_preset(preset);
    const auto architecture = family->configure(found->config);
    const auto graph = build_graph(*architecture, {1, 3, 224, 224}, {});
    EXPECT_EQ(graph->parameter_count(), parameters) << preset;
    const std::int64_t tokens = 196 + (std::string_view(preset).find("distilled") == std::string_view::npos ? 1 : 2);
    const std::int64_t norms = 5 * (2 * architecture->depth() + 1) * tokens * found->config["embed_dim"].get<int>();
    EXPECT_NEAR(static_cast<double>(graph->macs() + norms) * 1e-9, gmacs, 0.00501) << preset;
    EXPECT_EQ(matching_preset(*family, found->config)->side, 224);
  }
}

TEST(Vit, ConfigurationsGoThroughJsonAndBack) {
  const Config config{.img_size = {48, 32},
                      .num_classes = 0,
                      .mlp_ratio = 2.5,
                      .qkv_bias = false,
                      .norm_eps = 1e-5,
                      .distilled = true,
                      .interpolate_mode = InterpolateMode::kBicubic};
  Config back;
  config_from_json(config_to_json(config), back, "test");
  EXPECT_EQ(back, config);
}

TEST(Vit, RefusesValuesThatMakeNoNetwork) {
  const auto error_of = testing::config_error<Config>;
  EXPECT_EQ(error_of({}), "no error");
  EXPECT_EQ(error_of({.img_size = {224, 230}}), "[vit] img_size must be a multiple of the patch_size 16, got 230");
  EXPECT_EQ(error_of({.embed_dim = 20, .num_heads = 3}), "[vit] num_heads must be a divisor of embed_dim 20, got 3");
  EXPECT_EQ(
      error_of({.depth = 0, .mlp_ratio = 0}),
      "[vit] depth must be 1 … 1024, got 0; mlp_ratio must be above 0 … 64, with a hidden layer of at least 1, got "
      "0");
  EXPECT_EQ(error_of({.class_token = false}), "[vit] class_token must be true where global_pool is token");
  EXPECT_EQ(error_of({.distilled = true, .global_pool = GlobalPool::kAvg}),
            "[vit] distilled must be false without a class token or where global_pool is not token");
  EXPECT_EQ(error_of({.class_token = false, .global_pool = GlobalPool::kAvg}), "no error");
  EXPECT_EQ((Config{.embed_dim = 49, .mlp_ratio = 3.0 / 49}).hidden(), 3);
}

// One channel, one layer, one pixel, no head.
TEST(Vit, TinyExtremesBuild) {
  for (const GlobalPool pool : {GlobalPool::kToken, GlobalPool::kAvg}) {
    const Config config{.img_size = {4, 4},
                        .patch_size = 4,
                        .num_classes = 0,
                        .embed_dim = 1,
                        .depth = 1,
                        .num_heads = 1,
                        .class_token = pool == GlobalPool::kToken,
                        .global_pool = pool};
    Graph graph("tiny");
    const Value image = graph.input("image", {DType::kF32, {2, 3, 1, 1}});
    const ModelValues values = build(graph, image, config, std::vector{0});
    EXPECT_FALSE(values.logits);
    EXPECT_EQ(values.pooled.shape(), (Shape{2, 1}));
    EXPECT_EQ(values.maps[0].shape(), (Shape{2, 1, 1, 1}));
    testing::expect_finite_parameters(graph);
  }
}

// Sides that are no multiples of the patch: as if the picture had been padded with zeros.
TEST(Vit, PadsAsPatchEmbedDoes) {
  const LoadOptions small{.config = {{"embed_dim", "24"},
                                     {"num_heads", "3"},
                                     {"depth", "2"},
                                     {"img_size", "[32,32]"},
                                     {"patch_size", "8"},
                                     {"num_classes", "5"}}};
  const Session session(Model::create("deit_tiny_distilled_patch16_224", 1, small));
  Tensor picture(DType::kF32, {1, 3, 37, 29});
  Tensor padded = Tensor::zeros({DType::kF32, {1, 3, 40, 32}});
  for (std::int64_t channel = 0, i = 0; channel < 3; ++channel) {
    for (std::int64_t y = 0; y < 37; ++y) {
      for (std::int64_t x = 0; x < 29; ++x, ++i) {
        const auto value = static_cast<float>((i * 7919) % 101) / 50 - 1;
        picture.mutable_data<float>()[static_cast<std::size_t>(i)] = value;
        padded.mutable_data<float>()[static_cast<std::size_t>((channel * 40 + y) * 32 + x)] = value;
      }
    }
  }
  const Features got = session.features(picture, {});
  const Features want = session.features(padded, {});
  EXPECT_EQ(got.maps.at(0).shape(), (Shape{1, 24, 5, 4}));
  EXPECT_EQ(got.pooled.shape(), (Shape{1, 24}));
  EXPECT_TRUE(std::ranges::equal(got.maps[0].data<float>(), want.maps[0].data<float>()));
  EXPECT_TRUE(std::ranges::equal(got.pooled.data<float>(), want.pooled.data<float>()));
}

class VitGolden : public ::testing::TestWithParam<const char*> {};

TEST_P(VitGolden, EqualsTheOfficialCode) { testing::expect_equals_official(GetParam(), 2); }

TEST_P(VitGolden, InFewerBitsIsWithinTheRoundingErrorToExpect) {
  if (testing::fewer_bits().empty()) GTEST_SKIP() << testing::kNoFewerBits;
  testing::expect_rounds_as_expected(GetParam());
}

INSTANTIATE_TEST_SUITE_P(Cases, VitGolden,
                         ::testing::Values("vit-cls", "vit-resized", "deit-distilled", "deit-resized"),
                         testing::case_name);

TEST(Vit, RecognisesTheOfficialLayouts) {
  const Model resized = Model::load(testing::golden("vit-resized/weights.pth"), {.config = {{"num_heads", "4"}}});
  EXPECT_EQ(resized.family(), "vit");
  EXPECT_EQ(resized.classes(), 9);
  EXPECT_EQ(resized.depth(), 2);
  const Json config = Json::parse(resized.config());
  EXPECT_EQ(config["img_size"], Json({24, 24}));
  EXPECT_EQ(config["embed_dim"], 20);
  EXPECT_EQ(config["mlp_ratio"], 4.0);
  EXPECT_EQ(config["qkv_bias"], true);
  EXPECT_EQ(config["distilled"], false);
  EXPECT_EQ(config["interpolate_mode"], "bicubic_antialias");

  const Model distilled = Model::load(testing::golden("deit-distilled/weights.pth"),
                                      {.config = {{"num_heads", "4"}, {"img_size", "[20,36]"}}});
  EXPECT_EQ(Json::parse(distilled.config())["distilled"], true);
  EXPECT_EQ(distilled.classes(), 6);

  // 5 x 7 patches are no square, 20 channels no whole heads of 64: the file cannot tell.
  EXPECT_THROW(Model::load(testing::golden("vit-cls/weights.pth"), {.config = {{"num_heads", "3"}}}), ConfigError);
  EXPECT_THROW(Model::load(testing::golden("vit-resized/weights.pth")), ConfigError);
  EXPECT_THROW(Model::load(testing::golden("vit-resized/weights.pth"), {.config = {{"num_heads", "3"}}}), ConfigError);
}

// Products in bf16 or int8 stand one behind the other eight times in two layers (qkv, scores, values, proj, fc1, fc2,
// and patches and heads around them). Each adds at most 2^-8 of its operands' size in bf16, 2^-7 in int8, to a residual
// stream of about the same size; rounding errors of both signs add up like the root of their number.
TEST(Vit, RunsInFewerBits) {
  if (testing::fewer_bits().empty()) GTEST_SKIP() << testing::kNoFewerBits;
  const Model model = Model::load(testing::golden("deit-distilled/weights.pth"),
                                  {.config = {{"num_heads", "4"}, {"img_size", "[20,36]"}}});
  const Tensor x = read_npy(testing::golden("deit-distilled/x.npy")).to(DType::kF32);
  const Tensor want = read_npy(testing::golden("deit-distilled/y0.npy"));
  for (const DType dtype : testing::fewer_bits()) {
    const double bound = dtype == DType::kBF16 ? 4 * 0x1p-8 : 4 * 0x1p-7;
    const Tensor logits = Session(model, {.threads = 2, .dtype = dtype}).logits(x);
    double error = 0;
    double largest = 0;
    for (std::size_t i = 0; i < 12; ++i) {
      const double y = want.to(DType::kF64).data<double>()[i];
      error = std::max(error, std::abs(logits.data<float>()[i] - y));
      largest = std::max(largest, std::abs(y));
    }
    EXPECT_LE(error, bound * largest) << name_of(dtype);
  }
}

// A file of a published size, its names behind a prefix as training frameworks write them.
TEST(Vit, RecognisesPublishedSizesBehindAPrefix) {
  const Config official{.embed_dim = 192, .num_heads = 3, .distilled = true};
  Graph graph("deit");
  build(graph, graph.input("image", {DType::kF32, {1, 3, 224, 224}}), official, {});
  TensorIndex tensors;
  for (const int id : graph.parameters()) tensors.emplace("module." + graph.value(id).name, graph.value(id).type);
  const auto recognition = recognise(tensors, Json::object());
  ASSERT_TRUE(recognition);
  Config config;
  config_from_json(recognition->config, config, "test");
  EXPECT_EQ(config, official);
  EXPECT_EQ(recognition->renamed.at("module.cls_token"), "cls_token");
  for (const Finding& finding : recognition->findings) {
    const bool traceless = finding.option == "num_heads" || finding.option == "norm_eps" ||
                           finding.option == "interpolate_mode" || finding.option == "img_size";
    EXPECT_EQ(finding.assumed, traceless) << finding.option;
  }
  tensors.erase("module.pos_embed");
  EXPECT_FALSE(recognise(tensors, Json::object()));
}

}  // namespace
}  // namespace weft::vit
