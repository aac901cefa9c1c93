#include "ops/patch_embed/patch_embed.h"

#include <gtest/gtest.h>

#include "ops/testing/op_test.h"

namespace weft {
namespace {

using testing::check_kernel;
using testing::random_tensor;

// Sums of K products in f32: the error grows like √K half-ulps of partial sums; 64 half-ulps cover K ≤ 4096.
constexpr double kTolerance = 64 * 0x1p-24;

void check(const Shape& image, std::int64_t channels, const PatchEmbed& patch, bool bias = true) {
  std::vector<Tensor> inputs = {random_tensor(image, 1),
                                random_tensor({channels, image[1], patch.patch_h, patch.patch_w}, 2)};
  if (bias) inputs.push_back(random_tensor({channels}, 3));
  check_kernel({.name = fmt::format("{} to {} channels{}", image, channels, bias ? " + bias" : ""),
                .operation = patch,
                .inputs = inputs,
                .tolerance = kTolerance,
                .constant = {false, true, true}});
}

TEST(PatchEmbed, MatchesTheReference) {
  check({2, 3, 64, 48}, 26, {});
  check({1, 3, 224, 224}, 32, {});
  check({2, 1, 8, 12}, 7, {.patch_h = 4, .patch_w = 2}, false);
  check({1, 4, 5, 3}, 1, {.patch_h = 1, .patch_w = 1});
  check({1, 3, 4, 4}, 5, {.patch_h = 4, .patch_w = 4});
}

TEST(PatchEmbed, PadsAtTheBottomAndTheRight) {
  for (const std::int64_t height : {1, 7, 8, 9, 15, 16, 17}) check({2, 3, height, 19}, 9, {.patch_h = 8, .patch_w = 6});
  check({1, 3, 225, 223}, 16, {});
  check({1, 3, 1, 1}, 4, {});
}

TEST(PatchEmbed, TakesImagesWithoutPixels) {
  check({0, 3, 16, 16}, 4, {});
  check({2, 3, 0, 16}, 4, {});
  check({2, 3, 16, 0}, 4, {}, false);
}

TEST(PatchEmbed, CountsTheOfficialWork) {
  const std::vector<TensorType> in = {{DType::kF32, {2, 3, 224, 220}}, {DType::kF32, {192, 3, 16, 16}}};
  EXPECT_EQ(infer(PatchEmbed{}, in)[0].shape, (Shape{2, 196, 192}));
  EXPECT_EQ(macs(PatchEmbed{}, in), 2LL * 196 * 192 * 3 * 16 * 16);
}

TEST(PatchEmbed, DeclaresItsParameters) {
  Graph graph("toy");
  const Value image = graph.input("image", {DType::kF32, {1, 3, 32, 32}});
  EXPECT_EQ(patch_embed(image, Scope(graph)["patch_embed"]["projection"], 8, {}).shape(), (Shape{1, 4, 8}));
  ASSERT_EQ(graph.parameters().size(), 2U);
  EXPECT_EQ(graph.value(graph.parameters()[0]).name, "patch_embed.projection.weight");
  EXPECT_EQ(graph.value(graph.parameters()[0]).type.shape, (Shape{8, 3, 16, 16}));
  EXPECT_EQ(graph.value(graph.parameters()[1]).name, "patch_embed.projection.bias");
}

TEST(PatchEmbed, RefusesWhatDoesNotFit) {
  const auto error_of = testing::infer_error<PatchEmbed>;
  const Shape weight = {8, 3, 16, 16};
  EXPECT_EQ(error_of({}, {{1, 3, 20, 20}, weight, {8}}), "no error");
  EXPECT_EQ(error_of({}, {{1, 3, 20, 20}}), "[patch_embed] takes image, weight and an optional bias, got 1 inputs");
  EXPECT_EQ(error_of({}, {{3, 20, 20}, weight}), "[patch_embed] image must be [B,Cin,H,W], Cin ≥ 1, got [3,20,20]");
  EXPECT_EQ(error_of({}, {{1, 1, 20, 20}, weight}),
            "[patch_embed] weight must be [C,Cin,ph,pw]=[C,1,16,16], C ≥ 1, got [8,3,16,16]");
  EXPECT_EQ(error_of({.patch_h = 16, .patch_w = 8}, {{1, 3, 20, 20}, weight}),
            "[patch_embed] weight must be [C,Cin,ph,pw]=[C,3,16,8], C ≥ 1, got [8,3,16,16]");
  EXPECT_EQ(error_of({}, {{1, 3, 20, 20}, weight, {3}}), "[patch_embed] bias must be [C]=[8], got [3]");
  EXPECT_EQ(error_of({.patch_h = 0}, {{1, 3, 20, 20}, weight}),
            "[patch_embed] a patch must be at least 1 x 1, got 0 x 16");
}

}  // namespace
}  // namespace weft
