#include "models/config.h"

#include "core/format.h"
#include "models/mixer/mixer.h"

namespace weft::mixer {
namespace {

class Mixer final : public ConfiguredArchitecture<Config> {
 public:
  using ConfiguredArchitecture::ConfiguredArchitecture;

  bool fixed_size() const override { return true; }
  int in_channels() const override { return options().in_chans; }
  int classes() const override { return options().num_classes; }
  std::vector<int> out_indices() const override { return {options().depth - 1}; }
};

// The published models: table 1 of the paper, under timm's names.
std::vector<Preset> presets() {
  const auto small = [](int patch) { return Config{.patch_size = patch}; };
  const auto base = [](int patch) { return Config{.patch_size = patch, .embed_dim = 768, .depth = 12}; };
  const auto large = [](int patch) { return Config{.patch_size = patch, .embed_dim = 1024, .depth = 24}; };
  return {
      preset("mixer_s32_224", "19.1 M parameters, 1.0 GMACs at 224", small(32)),
      preset("mixer_s16_224", "18.5 M parameters, 3.8 GMACs at 224", small(16)),
      preset("mixer_b32_224", "60.3 M parameters, 3.2 GMACs at 224", base(32)),
      preset("mixer_b16_224", "59.9 M parameters, 12.6 GMACs at 224", base(16)),
      preset("mixer_l32_224", "206.9 M parameters, 11.3 GMACs at 224", large(32)),
      preset("mixer_l16_224", "208.2 M parameters, 44.5 GMACs at 224", large(16)),
  };
}

}  // namespace

int Config::hidden(double ratio) const { return hidden_channels(embed_dim, ratio); }

void validate(const Config& c) {
  RangeCheck check;
  check_pictures(c, check);
  check_patches(c, check);
  check.within(c.embed_dim, 1, 65536, "embed_dim");
  check.within(c.depth, 1, 1024, "num_blocks");
  for (const double ratio : c.mlp_ratio) {
    check.expect(ratio > 0 && ratio <= 64 && c.embed_dim * ratio >= 1, "mlp_ratio",
                 fmt::format("above 0 … 64, with hidden layers of at least 1, got {}", ratio));
  }
  check.done(Config::kFamily);
}

Family make_family() {
  return {.name = Config::kFamily,
          .title = "MLP-Mixer",
          .paper = "Tolstikhin et al., NeurIPS 2021, arXiv:2105.01601",
          .presets = presets(),
          .extents = {"embed_dim", "num_blocks", "patch_size", "img_size"},
          .configure = configure<Mixer>,
          .recognise = recognise,
          .from_official = configure_official<Mixer, from_official>};
}

}  // namespace weft::mixer
