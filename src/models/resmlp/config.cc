#include "models/config.h"

#include "core/format.h"
#include "models/resmlp/resmlp.h"

namespace weft::resmlp {
namespace {

class ResMlp final : public ConfiguredArchitecture<Config> {
 public:
  using ConfiguredArchitecture::ConfiguredArchitecture;

  bool fixed_size() const override { return true; }
  int in_channels() const override { return options().in_chans; }
  int classes() const override { return options().num_classes; }
  std::vector<int> out_indices() const override { return {options().depth - 1}; }
};

// The published models: resmlp_models.py of DeiT.
std::vector<Preset> presets() {
  return {
      preset("resmlp_12", "15.4 M parameters, 3.0 GMACs at 224", Config{.embed_dim = 384, .init_scale = 0.1}),
      preset("resmlp_24", "30.0 M parameters, 6.0 GMACs at 224",
             Config{.embed_dim = 384, .depth = 24, .init_scale = 1e-5}),
      preset("resmlp_36", "44.7 M parameters, 8.9 GMACs at 224",
             Config{.embed_dim = 384, .depth = 36, .init_scale = 1e-6}),
      preset("resmlpB_24", "129.1 M parameters, 100.2 GMACs at 224",
             Config{.patch_size = 8, .depth = 24, .init_scale = 1e-6}),
  };
}

}  // namespace

void validate(const Config& c) {
  RangeCheck check;
  check_pictures(c, check);
  check_patches(c, check);
  check.within(c.embed_dim, 1, 65536, "embed_dim");
  check.within(c.depth, 1, 1024, "depth");
  check.expect(c.init_scale >= 0 && c.init_scale <= 1, "init_scale", fmt::format("0 … 1, got {}", c.init_scale));
  check.done(Config::kFamily);
}

Family make_family() {
  return {.name = Config::kFamily,
          .title = "ResMLP",
          .paper = "Touvron et al., TPAMI 2022, arXiv:2105.03404",
          .presets = presets(),
          .extents = {"embed_dim", "depth", "patch_size", "img_size"},
          .configure = configure<ResMlp>,
          .recognise = recognise,
          .from_official = configure_official<ResMlp, from_official>};
}

}  // namespace weft::resmlp
