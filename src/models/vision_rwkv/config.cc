#include "models/config.h"

#include <algorithm>

#include "core/format.h"
#include "models/vision_rwkv/vision_rwkv.h"

namespace weft::vision_rwkv {
namespace {

class VisionRwkv final : public ConfiguredArchitecture<Config> {
 public:
  using ConfiguredArchitecture::ConfiguredArchitecture;

  int in_channels() const override { return options().in_channels; }
  int classes() const override { return options().head == Head::kNone ? 0 : options().num_classes; }
  std::vector<int> out_indices() const override { return resolve_out_indices(options()); }
};

// The published models: configs/vrwkv/*.py and vrwkv_l_22kto1k_384.yaml of the official code.
std::vector<Preset> presets() {
  return {
      preset("vrwkv_tiny", "6.2 M parameters, 1.2 GMACs at 224", Config{.embed_dims = 192}),
      preset("vrwkv_small", "23.8 M parameters, 4.6 GMACs at 224",
             Config{.embed_dims = 384, .post_norm = true, .init_values = 1.0, .drop_path_rate = 0.3}),
      preset("vrwkv_base", "93.6 M parameters, 18.2 GMACs at 224",
             Config{.embed_dims = 768, .post_norm = true, .init_values = 1e-5, .drop_path_rate = 0.5}),
      // Its positional embedding is that of the 192-pixel pre-training.
      preset("vrwkv_large", "334.9 M parameters, 189.3 GMACs at 384",
             Config{.img_size = {192, 192},
                    .embed_dims = 1024,
                    .depth = 24,
                    .post_norm = true,
                    .key_norm = true,
                    .init_values = 1e-5,
                    .drop_path_rate = 0.1,
                    .head = Head::kTanhMlp},
             384),
  };
}

}  // namespace

std::vector<int> resolve_out_indices(const Config& config) {
  std::vector<int> indices = config.out_indices;
  for (int& index : indices) index += index < 0 ? config.depth : 0;
  std::ranges::sort(indices);
  indices.erase(std::unique(indices.begin(), indices.end()), indices.end());
  return indices;
}

void validate(const Config& c) {
  RangeCheck check;
  // The upper bounds keep every product of extents far from overflow.
  check.within(c.img_size[0], 1, 65536, "img_size");
  check.within(c.img_size[1], 1, 65536, "img_size");
  check.within(c.patch_size, 1, 1024, "patch_size");
  check.within(c.in_channels, 1, 4096, "in_channels");
  check.within(c.embed_dims, 1, 65536, "embed_dims");
  check.within(c.depth, 1, 1024, "depth");
  check.within(c.hidden_rate, 1, 64, "hidden_rate");
  check.within(c.shift_pixel, 0, 65536, "shift_pixel");
  check.within(c.num_classes, 1, 1 << 24, "num_classes");
  check.within(c.hidden_dims, 1, 1 << 20, "hidden_dims");
  check.expect(c.channel_gamma >= 0 && c.channel_gamma <= 0.25, "channel_gamma",
               fmt::format("0 … 0.25, got {}", c.channel_gamma));
  check.expect(c.drop_path_rate >= 0 && c.drop_path_rate < 1, "drop_path_rate",
               fmt::format("0 … below 1, got {}", c.drop_path_rate));
  const auto in_depth = [&](int i) { return i >= 0 && i < c.depth; };
  check.expect(c.depth < 1 || (!c.out_indices.empty() && std::ranges::all_of(resolve_out_indices(c), in_depth)),
               "out_indices", fmt::format("layers of 0 … {} (negative ones count from the end)", c.depth - 1));
  check.done(Config::kFamily);
}

Family make_family() {
  return {.name = Config::kFamily,
          .title = "Vision-RWKV",
          .paper = "Duan et al., ICLR 2025, arXiv:2403.02308",
          .presets = presets(),
          .extents = {"embed_dims", "depth", "patch_size", "img_size"},
          .configure = configure<VisionRwkv>,
          .recognise = recognise,
          .from_official = configure_official<VisionRwkv, from_official>};
}

}  // namespace weft::vision_rwkv
