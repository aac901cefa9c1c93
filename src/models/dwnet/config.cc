#include "models/config.h"

#include <algorithm>
#include <functional>

#include "core/format.h"
#include "models/dwnet/dwnet.h"

namespace weft::dwnet {
namespace {

// These bounds keep every product of extents far from overflow.
constexpr int kWidest = 8192;
constexpr std::size_t kMostStages = 8;

class DwNet final : public ConfiguredArchitecture<Config> {
 public:
  using ConfiguredArchitecture::ConfiguredArchitecture;

  int in_channels() const override { return options().in_chans; }
  int classes() const override { return options().num_classes; }
  std::vector<int> out_indices() const override {
    return options().is_detection() ? options().out_indices : std::vector{options().stages() - 1};
  }
};

// The published models: configs/*dwnet_*_patch4_window7_224.yaml of the official code.
std::vector<Preset> presets() {
  const Config tiny{};
  const Config base{.embed_dim = 128, .depths = {2, 2, 18, 2}};
  const auto dynamic = [](Config config) {
    config.dynamic = true;
    return config;
  };
  const auto inhomogeneous = [&](Config config, std::vector<int> heads) {
    config.inhomogeneous = true;
    config.inhomo_heads = std::move(heads);
    return dynamic(config);
  };
  return {
      preset("dwnet_tiny", "24.2 M parameters, 3.7 GMACs at 224", tiny),
      preset("dwnet_base", "74.4 M parameters, 12.8 GMACs at 224", base),
      preset("ddwnet_tiny", "51.1 M parameters, 3.8 GMACs at 224", dynamic(tiny)),
      preset("ddwnet_base", "161.6 M parameters, 12.9 GMACs at 224", dynamic(base)),
      preset("iddwnet_tiny", "26.3 M parameters, 4.4 GMACs at 224", inhomogeneous(tiny, {3, 6, 12, 24})),
      preset("iddwnet_base", "80.3 M parameters, 14.3 GMACs at 224", inhomogeneous(base, {4, 8, 16, 32})),
  };
}

void check_stages(const Config& c, RangeCheck& check) {
  check.expect(!c.depths.empty() && c.depths.size() <= kMostStages, "depths",
               fmt::format("1 … {} stages, got {}", kMostStages, c.depths.size()));
  for (const int depth : c.depths) check.within(depth, 1, 1024, "depths");
  const auto is_stage = [&](int i) { return i >= 0 && i < c.stages(); };
  check.expect(
      std::ranges::all_of(c.out_indices, is_stage) && std::ranges::is_sorted(c.out_indices, std::ranges::less_equal()),
      "out_indices", fmt::format("stages of 0 … {}, in order", c.stages() - 1));
  check.expect(c.num_classes == 0 || !c.is_detection(), "num_classes", "0 where there are out_indices");
}

void check_kernels(const Config& c, RangeCheck& check) {
  check.within(c.window_size, 1, 255, "window_size");
  check.expect(c.window_size % 2 == 1, "window_size", fmt::format("odd, got {}", c.window_size));
  check.expect(!c.dynamic || c.embed_dim >= 4, "embed_dim", "at least 4 where kernels are dynamic");
  check.expect(!c.inhomogeneous || c.dynamic, "inhomogeneous", "false where kernels are not dynamic");
  if (!c.inhomogeneous || c.embed_dim > kWidest) return;
  bool fits = c.inhomo_heads.size() == c.depths.size();
  for (std::size_t i = 0; fits && i < std::min(c.depths.size(), kMostStages); ++i) {
    fits = c.inhomo_heads[i] >= 1 && c.channels(static_cast<int>(i)) % c.inhomo_heads[i] == 0;
  }
  check.expect(fits, "inhomo_heads",
               fmt::format("a divisor of its channels for each of {} stages, got {}", c.stages(), c.inhomo_heads));
}

}  // namespace

int Config::hidden(int stage) const { return hidden_channels(channels(stage), mlp_ratio); }

void validate(const Config& c) {
  RangeCheck check;
  check_pictures(c, check, c.ape);
  check.within(c.embed_dim, 1, kWidest, "embed_dim");
  check.expect(c.mlp_ratio > 0 && c.mlp_ratio <= 64 && (c.embed_dim > kWidest || c.hidden(0) >= 1), "mlp_ratio",
               fmt::format("above 0 … 64, with a hidden layer of at least 1, got {}", c.mlp_ratio));
  check_stages(c, check);
  check_kernels(c, check);
  check.done(Config::kFamily);
}

Family make_family() {
  return {.name = Config::kFamily,
          .title = "DWNet",
          .paper = "Han et al., ICLR 2022, arXiv:2106.04263",
          .presets = presets(),
          .extents = {"embed_dim", "depths", "patch_size", "window_size", "dynamic", "inhomogeneous"},
          .configure = configure<DwNet>,
          .recognise = recognise,
          .from_official = configure_official<DwNet, from_official>};
}

}  // namespace weft::dwnet
