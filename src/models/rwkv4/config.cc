#include "models/config.h"

#include "core/format.h"
#include "models/rwkv4/rwkv4.h"

namespace weft::rwkv4 {
namespace {

class Rwkv4 final : public ConfiguredLanguageModel<Config> {
 public:
  using ConfiguredLanguageModel::ConfiguredLanguageModel;

  int vocab_size() const override { return options().vocab_size; }
};

// The models trained on the Pile, by Peng et al., Table 2.
std::vector<Preset> presets() {
  const auto pile = [](std::string_view name, std::string_view summary, int layers, int channels) {
    return preset(name, summary,
                  Config{.n_layer = layers, .n_embd = channels, .dim_att = channels, .dim_ffn = 4 * channels});
  };
  return {
      pile("rwkv4_169m", "169 M parameters", 12, 768), pile("rwkv4_430m", "430 M parameters", 24, 1024),
      pile("rwkv4_1b5", "1.5 G parameters", 24, 2048), pile("rwkv4_3b", "3.0 G parameters", 32, 2560),
      pile("rwkv4_7b", "7.4 G parameters", 32, 4096),  pile("rwkv4_14b", "14.1 G parameters", 40, 5120),
  };
}

}  // namespace

void validate(const Config& c) {
  RangeCheck check;
  check.within(c.n_layer, 1, 1024, "n_layer");
  check.within(c.n_embd, 1, 65536, "n_embd");
  check.within(c.vocab_size, 1, 1 << 24, "vocab_size");
  check.within(c.dim_att, 1, 65536, "dim_att");
  check.within(c.dim_ffn, 1, 1 << 20, "dim_ffn");
  check.done(Config::kFamily);
}

Family make_family() {
  return {.name = Config::kFamily,
          .title = "RWKV-4",
          .paper = "Peng et al., EMNLP 2023 Findings, arXiv:2305.13048",
          .presets = presets(),
          .extents = {"n_layer", "n_embd", "vocab_size"},
          .configure = configure<Rwkv4>,
          .recognise = recognise,
          .from_official = configure_official<Rwkv4, from_official>};
}

}  // namespace weft::rwkv4
