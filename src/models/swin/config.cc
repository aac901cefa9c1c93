#include "models/config.h"

#include "core/format.h"
#include "models/swin/swin.h"

namespace weft::swin {
namespace {

class Swin final : public ConfiguredArchitecture<Config> {
 public:
  using ConfiguredArchitecture::ConfiguredArchitecture;

  int in_channels() const override { return options().in_chans; }
  int classes() const override { return options().is_detection() ? 0 : options().num_classes; }
  std::vector<int> out_indices() const override {
    return options().is_detection() ? options().out_indices : std::vector{options().stages() - 1};
  }
};

struct Size {
  int embed_dim;
  std::vector<int> depths, num_heads;
};

// The published models: configs/swin and configs/swinv2 of the official code. Those fine-tuned after ImageNet-22K
// differ from these in weights, and version 2 in the windows of its pretraining.
std::vector<Preset> presets() {
  const Size tiny{96, {2, 2, 6, 2}, {3, 6, 12, 24}};
  const Size small{96, {2, 2, 18, 2}, {3, 6, 12, 24}};
  const Size base{128, {2, 2, 18, 2}, {4, 8, 16, 32}};
  const Size large{192, {2, 2, 18, 2}, {6, 12, 24, 48}};
  std::vector<Preset> all;
  const auto add = [&](std::string_view name, std::string_view summary, const Size& size, int version, int side,
                       int window, std::vector<int> pretrained = {}) {
    const Config config{.version = version,
                        .img_size = {side, side},
                        .embed_dim = size.embed_dim,
                        .depths = size.depths,
                        .num_heads = size.num_heads,
                        .window_size = window,
                        .pretrained_window_sizes = std::move(pretrained)};
    all.push_back(preset(name, summary, config, side));
  };
  add("swin_t", "28.3 M parameters, 4.5 GMACs at 224", tiny, 1, 224, 7);
  add("swin_s", "49.6 M parameters, 8.7 GMACs at 224", small, 1, 224, 7);
  add("swin_b", "87.8 M parameters, 15.4 GMACs at 224", base, 1, 224, 7);
  add("swin_l", "196.5 M parameters, 34.5 GMACs at 224", large, 1, 224, 7);
  add("swin_b_384", "87.9 M parameters, 47.1 GMACs at 384", base, 1, 384, 12);
  add("swin_l_384", "196.7 M parameters, 103.9 GMACs at 384", large, 1, 384, 12);
  add("swinv2_t_w8", "28.3 M parameters, 5.9 GMACs at 256", tiny, 2, 256, 8);
  add("swinv2_t_w16", "28.3 M parameters, 6.6 GMACs at 256", tiny, 2, 256, 16);
  add("swinv2_s_w8", "49.7 M parameters, 11.5 GMACs at 256", small, 2, 256, 8);
  add("swinv2_s_w16", "49.7 M parameters, 12.6 GMACs at 256", small, 2, 256, 16);
  add("swinv2_b_w8", "87.9 M parameters, 20.3 GMACs at 256", base, 2, 256, 8);
  add("swinv2_b_w16", "87.9 M parameters, 21.8 GMACs at 256", base, 2, 256, 16);
  const std::vector<int> pretrained{12, 12, 12, 6};
  add("swinv2_b_w12to16", "87.9 M parameters, 21.8 GMACs at 256", base, 2, 256, 16, pretrained);
  add("swinv2_b_w12to24", "87.9 M parameters, 54.7 GMACs at 384", base, 2, 384, 24, pretrained);
  add("swinv2_l_w12to16", "196.7 M parameters, 47.5 GMACs at 256", large, 2, 256, 16, pretrained);
  add("swinv2_l_w12to24", "196.7 M parameters, 115.4 GMACs at 384", large, 2, 384, 24, pretrained);
  return all;
}

}  // namespace

int Config::window(int stage) const {
  if (is_detection()) return window_size;
  int side = (std::min(img_size[0], img_size[1]) + patch_size - 1) / patch_size;
  for (int i = 0; i < stage; ++i) side = (side + 1) / 2;
  return std::min(window_size, side);
}

int Config::hidden(int stage) const { return hidden_channels(channels(stage), mlp_ratio); }

void validate(const Config& c) {
  RangeCheck check;
  check.within(c.version, 1, 2, "version");
  check_pictures(c, check);
  check.within(c.embed_dim, 1, 8192, "embed_dim");
  check.within(c.stages(), 1, 8, "number of depths");
  for (const int depth : c.depths) check.within(depth, 1, 1024, "depths");
  check.expect(c.num_heads.size() == c.depths.size(), "num_heads",
               fmt::format("one for each of the {} stages, got {}", c.stages(), c.num_heads.size()));
  check.within(c.window_size, 1, 1024, "window_size");
  check.expect(c.mlp_ratio > 0 && c.mlp_ratio <= 64 && c.embed_dim * c.mlp_ratio >= 1, "mlp_ratio",
               fmt::format("above 0 … 64, with a hidden layer of at least 1, got {}", c.mlp_ratio));
  for (std::size_t i = 0; i < std::min(c.num_heads.size(), c.depths.size()) && i < 8; ++i) {
    const std::int64_t channels = std::int64_t{c.embed_dim} << i;
    check.expect(c.num_heads[i] >= 1 && channels % c.num_heads[i] == 0, "num_heads",
                 fmt::format("divisors of the channels, got {} for {}", c.num_heads[i], channels));
  }
  const auto& pretrained = c.pretrained_window_sizes;
  check.expect(
      pretrained.empty() || (c.version == 2 && pretrained.size() == c.depths.size()), "pretrained_window_sizes",
      fmt::format("none, or in version 2 one for each of the {} stages, got {}", c.stages(), pretrained.size()));
  for (const int window : pretrained) check.within(window, 0, 1024, "pretrained_window_sizes");
  for (const int stage : c.out_indices) check.within(stage, 0, c.stages() - 1, "out_indices");
  check.expect(std::ranges::is_sorted(c.out_indices, std::less_equal()), "out_indices",
               fmt::format("in order, each once, got {}", fmt::join(c.out_indices, ",")));
  check.done(Config::kFamily);
}

Family make_family() {
  return {.name = Config::kFamily,
          .title = "Swin Transformer",
          .paper = "Liu et al., ICCV 2021, arXiv:2103.14030; Liu et al., CVPR 2022, arXiv:2111.09883",
          .presets = presets(),
          .extents = {"version", "embed_dim", "depths", "window_size", "img_size", "pretrained_window_sizes"},
          .configure = configure<Swin>,
          .recognise = recognise,
          .from_official = configure_official<Swin, from_official>};
}

}  // namespace weft::swin
