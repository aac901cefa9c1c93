#include "models/config.h"

#include <algorithm>

#include "core/format.h"
#include "models/vision_rwkv/vision_rwkv.h"

namespace weft::vision_rwkv {
namespace {

class VisionRwkv final : public Architecture {
 public:
  explicit VisionRwkv(Config config) : config_(std::move(config)) { validate(config_); }

  std::string_view family() const override { return "vision_rwkv"; }
  Json config() const override { return config_to_json(config_); }
  int depth() const override { return config_.depth; }
  int in_channels() const override { return config_.in_channels; }
  std::array<int, 2> native_size() const override { return config_.img_size; }
  int classes() const override { return config_.head == Head::kNone ? 0 : config_.num_classes; }
  std::vector<int> out_indices() const override { return resolve_out_indices(config_); }
  ModelValues build(Graph& graph, Value image, std::span<const int> layers) const override {
    return vision_rwkv::build(graph, image, config_, layers);
  }

 private:
  Config config_;
};

std::unique_ptr<const Architecture> configure(const Json& json) {
  Config config;
  config_from_json(json, config, "vision_rwkv");
  return std::make_unique<VisionRwkv>(std::move(config));
}

std::unique_ptr<const Architecture> configure_official(std::string_view system, const Json& model,
                                                       const TensorIndex& /*tensors*/) {
  const auto config = from_official(system, model);
  return config ? std::make_unique<VisionRwkv>(*config) : nullptr;
}

// The published models: configs/vrwkv/*.py and vrwkv_l_22kto1k_384.yaml of the official code.
std::vector<Preset> presets() {
  const auto preset = [](std::string_view name, std::string_view summary, int side, const Config& config) {
    return Preset{.name = name, .summary = summary, .side = side, .config = config_to_json(config)};
  };
  return {
      preset("vrwkv_tiny", "6.2 M parameters, 1.2 GMACs at 224", 224, {.embed_dims = 192}),
      preset("vrwkv_small", "23.8 M parameters, 4.6 GMACs at 224", 224,
             {.embed_dims = 384, .post_norm = true, .init_values = 1.0, .drop_path_rate = 0.3}),
      preset("vrwkv_base", "93.6 M parameters, 18.2 GMACs at 224", 224,
             {.embed_dims = 768, .post_norm = true, .init_values = 1e-5, .drop_path_rate = 0.5}),
      // Its positional embedding is that of the 192-pixel pre-training.
      preset("vrwkv_large", "334.9 M parameters, 189.3 GMACs at 384", 384,
             {.img_size = {192, 192},
              .embed_dims = 1024,
              .depth = 24,
              .post_norm = true,
              .key_norm = true,
              .init_values = 1e-5,
              .drop_path_rate = 0.1,
              .head = Head::kTanhMlp}),
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
  std::string wrong;
  const auto check = [&](bool ok, std::string_view name, std::string_view expected) {
    if (!ok) wrong += fmt::format("{}{} must be {}", wrong.empty() ? "" : "; ", name, expected);
  };
  // The upper bounds keep every product of extents far from overflow.
  const auto within = [&](int value, int low, int high, std::string_view name) {
    check(value >= low && value <= high, name, fmt::format("{} … {}, got {}", low, high, value));
  };
  within(c.img_size[0], 1, 65536, "img_size");
  within(c.img_size[1], 1, 65536, "img_size");
  within(c.patch_size, 1, 1024, "patch_size");
  within(c.in_channels, 1, 4096, "in_channels");
  within(c.embed_dims, 1, 65536, "embed_dims");
  within(c.depth, 1, 1024, "depth");
  within(c.hidden_rate, 1, 64, "hidden_rate");
  within(c.shift_pixel, 0, 65536, "shift_pixel");
  within(c.num_classes, 1, 1 << 24, "num_classes");
  within(c.hidden_dims, 1, 1 << 20, "hidden_dims");
  check(c.channel_gamma >= 0 && c.channel_gamma <= 0.25, "channel_gamma",
        fmt::format("0 … 0.25, got {}", c.channel_gamma));
  check(c.drop_path_rate >= 0 && c.drop_path_rate < 1, "drop_path_rate",
        fmt::format("0 … below 1, got {}", c.drop_path_rate));
  const auto in_depth = [&](int i) { return i >= 0 && i < c.depth; };
  check(c.depth < 1 || (!c.out_indices.empty() && std::ranges::all_of(resolve_out_indices(c), in_depth)), "out_indices",
        fmt::format("layers of 0 … {} (negative ones count from the end)", c.depth - 1));
  require<ConfigError>(wrong.empty(), "vision_rwkv", "{}", wrong);
}

Family make_family() {
  return {.name = "vision_rwkv",
          .title = "Vision-RWKV",
          .paper = "Duan et al., ICLR 2025, arXiv:2403.02308",
          .presets = presets(),
          .configure = configure,
          .recognise = recognise,
          .from_official = configure_official};
}

}  // namespace weft::vision_rwkv
