#include "ops/patch_embed/patch_embed.h"

#include "core/format.h"

namespace weft {
namespace {

void check_image(const PatchEmbed& attributes, const Shape& image) {
  require<ConfigError>(attributes.patch_h >= 1 && attributes.patch_w >= 1, "patch_embed",
                       "a patch must be at least 1 x 1, got {} x {}", attributes.patch_h, attributes.patch_w);
  require<ShapeError>(image.rank() == 4 && image[1] >= 1, "patch_embed", "image must be [B,Cin,H,W], Cin ≥ 1, got {}",
                      image);
}

}  // namespace

std::vector<TensorType> infer(const PatchEmbed& attributes, std::span<const TensorType> in) {
  require<ShapeError>(in.size() == 2 || in.size() == 3, "patch_embed",
                      "takes image, weight and an optional bias, got {} inputs", in.size());
  const Shape& image = in[0].shape;
  const Shape& weight = in[1].shape;
  const auto& [patch_h, patch_w] = attributes;
  check_image(attributes, image);
  require<ShapeError>(weight.rank() == 4 && weight == Shape{weight[0], image[1], patch_h, patch_w} && weight[0] >= 1,
                      "patch_embed", "weight must be [C,Cin,ph,pw]=[C,{},{},{}], C ≥ 1, got {}", image[1], patch_h,
                      patch_w, weight);
  require<ShapeError>(in.size() == 2 || in[2].shape == Shape{weight[0]}, "patch_embed", "bias must be [C]=[{}], got {}",
                      weight[0], in.back().shape);
  const std::int64_t tokens = attributes.grid_height(image) * attributes.grid_width(image);
  return {{in[0].dtype, {image[0], tokens, weight[0]}}};
}

std::int64_t macs(const PatchEmbed& attributes, std::span<const TensorType> in) {
  const Shape& image = in[0].shape;
  return count_product({image[0], attributes.grid_height(image), attributes.grid_width(image), in[1].shape.elements()});
}

void reference(const PatchEmbed& attributes, std::span<const Tensor> in, std::span<Tensor> out) {
  const Shape& image = in[0].shape();
  const auto x = in[0].data<double>();
  const auto weight = in[1].data<double>();
  const auto y = out[0].mutable_data<double>();
  const std::int64_t channels = out[0].shape()[2];
  const std::int64_t grid_w = attributes.grid_width(image);
  const std::int64_t tokens = out[0].shape()[1];
  for (std::int64_t i = 0; i < out[0].elements(); ++i) {
    const std::int64_t c = i % channels;
    const std::int64_t top = i / channels % tokens / grid_w * attributes.patch_h;
    const std::int64_t left = i / channels % tokens % grid_w * attributes.patch_w;
    double sum = in.size() == 3 ? in[2].data<double>()[static_cast<std::size_t>(c)] : 0;
    for (std::int64_t from = 0; from < image[1]; ++from) {
      for (std::int64_t h = 0; h < attributes.patch_h && top + h < image[2]; ++h) {
        for (std::int64_t w = 0; w < attributes.patch_w && left + w < image[3]; ++w) {
          const std::int64_t pixel =
              ((i / channels / tokens * image[1] + from) * image[2] + top + h) * image[3] + left + w;
          const std::int64_t tap = ((c * image[1] + from) * attributes.patch_h + h) * attributes.patch_w + w;
          sum += x[static_cast<std::size_t>(pixel)] * weight[static_cast<std::size_t>(tap)];
        }
      }
    }
    y[static_cast<std::size_t>(i)] = sum;
  }
}

Value patch_embed(Value image, Value weight, std::optional<Value> bias, const PatchEmbed& patch) {
  return bias ? image.graph().add_one(patch, {image, weight, *bias}) : image.graph().add_one(patch, {image, weight});
}

Value patch_embed(Value image, const Scope& scope, std::int64_t channels, const PatchEmbed& patch) {
  check_image(patch, image.shape());
  const std::int64_t from = image.shape()[1];
  const Initializer uniform = init::uniform_fan_in(from * patch.patch_h * patch.patch_w);
  const Value weight = scope.param("weight", {channels, from, patch.patch_h, patch.patch_w}, uniform);
  return patch_embed(image, weight, scope.param("bias", {channels}, uniform), patch);
}

}  // namespace weft
