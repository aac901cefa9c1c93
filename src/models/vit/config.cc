#include "models/config.h"

#include "core/format.h"
#include "models/vit/vit.h"

namespace weft::vit {
namespace {

class Vit final : public ConfiguredArchitecture<Config> {
 public:
  using ConfiguredArchitecture::ConfiguredArchitecture;

  int in_channels() const override { return options().in_chans; }
  int classes() const override { return options().num_classes; }
  std::vector<int> out_indices() const override { return {options().depth - 1}; }
};

// The published models: models.py of DeiT, vision_transformer.py of timm.
std::vector<Preset> presets() {
  Config tiny{.embed_dim = 192, .num_heads = 3};
  Config small{.embed_dim = 384, .num_heads = 6};
  Config base{.embed_dim = 768, .num_heads = 12};
  const Config large{.embed_dim = 1024, .depth = 24, .num_heads = 16};
  std::vector<Preset> all = {
      preset("vit_tiny_patch16_224", "5.7 M parameters, 1.3 GMACs at 224", tiny),
      preset("vit_small_patch16_224", "22.1 M parameters, 4.6 GMACs at 224", small),
      preset("vit_base_patch16_224", "86.6 M parameters, 17.6 GMACs at 224", base),
      preset("vit_large_patch16_224", "304.3 M parameters, 61.6 GMACs at 224", large),
  };
  for (Config* config : {&tiny, &small, &base}) config->interpolate_mode = InterpolateMode::kBicubic;
  all.push_back(preset("deit_tiny_patch16_224", "5.7 M parameters, 1.3 GMACs at 224", tiny));
  all.push_back(preset("deit_small_patch16_224", "22.1 M parameters, 4.6 GMACs at 224", small));
  all.push_back(preset("deit_base_patch16_224", "86.6 M parameters, 17.6 GMACs at 224", base));
  for (Config* config : {&tiny, &small, &base}) config->distilled = true;
  all.push_back(preset("deit_tiny_distilled_patch16_224", "5.9 M parameters, 1.3 GMACs at 224", tiny));
  all.push_back(preset("deit_small_distilled_patch16_224", "22.4 M parameters, 4.6 GMACs at 224", small));
  all.push_back(preset("deit_base_distilled_patch16_224", "87.3 M parameters, 17.7 GMACs at 224", base));
  return all;
}

}  // namespace

int Config::hidden() const { return hidden_channels(embed_dim, mlp_ratio); }

void validate(const Config& c) {
  RangeCheck check;
  check_pictures(c, check);
  check.within(c.embed_dim, 1, 65536, "embed_dim");
  check.within(c.depth, 1, 1024, "depth");
  check.within(c.num_heads, 1, 65536, "num_heads");
  check.expect(c.num_heads < 1 || c.embed_dim % c.num_heads == 0, "num_heads",
               fmt::format("a divisor of embed_dim {}, got {}", c.embed_dim, c.num_heads));
  check.expect(c.mlp_ratio > 0 && c.mlp_ratio <= 64 && c.hidden() >= 1, "mlp_ratio",
               fmt::format("above 0 … 64, with a hidden layer of at least 1, got {}", c.mlp_ratio));
  check.expect(c.norm_eps >= 0 && c.norm_eps <= 1, "norm_eps", fmt::format("0 … 1, got {}", c.norm_eps));
  check.expect(c.class_token || c.global_pool == GlobalPool::kAvg, "class_token", "true where global_pool is token");
  check.expect(!c.distilled || (c.class_token && c.global_pool == GlobalPool::kToken), "distilled",
               "false without a class token or where global_pool is not token");
  check.done(Config::kFamily);
}

Family make_family() {
  return {.name = Config::kFamily,
          .title = "Vision Transformer, DeiT",
          .paper = "Dosovitskiy et al., ICLR 2021, arXiv:2010.11929; Touvron et al., ICML 2021, arXiv:2012.12877",
          .presets = presets(),
          .extents = {"embed_dim", "depth", "patch_size", "img_size", "distilled"},
          .configure = configure<Vit>,
          .recognise = recognise,
          .from_official = configure_official<Vit, from_official>};
}

}  // namespace weft::vit
