#include "models/config.h"

#include "core/format.h"
#include "models/rmt/rmt.h"

namespace weft::rmt {
namespace {

class Rmt final : public ConfiguredArchitecture<Config> {
 public:
  using ConfiguredArchitecture::ConfiguredArchitecture;

  int in_channels() const override { return options().in_chans; }
  int classes() const override { return options().num_classes; }
  std::vector<int> out_indices() const override { return {depth() - 1}; }
};

// The published models: RMT_T3, RMT_S, RMT_M2 and RMT_L6 of the official RMT.py.
std::vector<Preset> presets() {
  const Config tiny{.embed_dims = {64, 128, 256, 512},
                    .depths = {2, 2, 8, 2},
                    .num_heads = {4, 4, 8, 16},
                    .init_values = {2, 2, 2, 2},
                    .heads_ranges = {4, 4, 6, 6}};
  Config small = tiny;
  small.depths = {3, 4, 18, 4};
  small.mlp_ratios = {4, 4, 3, 3};
  small.drop_path_rate = 0.15;
  small.chunkwise_recurrents = {true, true, true, false};
  Config base = small;
  base.embed_dims = {80, 160, 320, 512};
  base.depths = {4, 8, 25, 8};
  base.num_heads = {5, 5, 10, 16};
  base.heads_ranges = {5, 5, 6, 6};
  base.drop_path_rate = 0.4;
  base.layerscales = {false, false, true, true};
  Config large = base;
  large.embed_dims = {112, 224, 448, 640};
  large.num_heads = {7, 7, 14, 20};
  large.heads_ranges = {6, 6, 6, 6};
  large.drop_path_rate = 0.5;
  return {
      preset("rmt_t", "14.3 M parameters, 2.6 GMACs at 224", tiny),
      preset("rmt_s", "27.0 M parameters, 4.8 GMACs at 224", small),
      preset("rmt_b", "54.2 M parameters, 10.4 GMACs at 224", base),
      preset("rmt_l", "95.5 M parameters, 19.5 GMACs at 224", large),
  };
}

// Lists of one entry for each stage, the entries by the check that they are given.
class StageCheck {
 public:
  StageCheck(RangeCheck& check, std::size_t stages) : check_(check), stages_(stages) {}

  template <class T, class F>
  void operator()(const std::vector<T>& list, std::string_view option, std::string_view expected, F&& fits) {
    check_.expect(list.size() == stages_, option,
                  fmt::format("a list of {}, one entry for each of embed_dims, got {}", stages_, list.size()));
    for (std::size_t i = 0; i < list.size() && list.size() == stages_; ++i) {
      check_.expect(fits(list[i], i), option, fmt::format("{}, got {}", expected, list[i]));
    }
  }

 private:
  RangeCheck& check_;
  std::size_t stages_;
};

}  // namespace

int Config::hidden(std::size_t stage) const { return hidden_channels(embed_dims[stage], mlp_ratios[stage]); }

void validate(const Config& c) {
  RangeCheck check;
  // The upper bounds keep every product of extents far from overflow.
  const std::size_t stages = c.embed_dims.size();
  check.expect(stages >= 1 && stages <= 16, "embed_dims", fmt::format("a list of 1 … 16, got {}", stages));
  const auto any = [](auto, std::size_t) { return true; };
  const auto within = [](double low, double high) {
    return [=](double value, std::size_t) { return value >= low && value <= high; };
  };
  StageCheck of_stages(check, stages);
  of_stages(c.embed_dims, "embed_dims", "2 … 65536", within(2, 65536));
  of_stages(c.depths, "depths", "1 … 1024", within(1, 1024));
  of_stages(
      c.num_heads, "num_heads", "divisors of embed_dims that leave an even number of channels to a head",
      [&](int heads, std::size_t i) { return heads >= 1 && heads <= 65536 && c.embed_dims[i] % (2 * heads) == 0; });
  of_stages(c.init_values, "init_values", "above 0 … 64",
            [](double value, std::size_t) { return value > 0 && value <= 64; });
  of_stages(c.heads_ranges, "heads_ranges", "0 … 64", within(0, 64));
  of_stages(c.mlp_ratios, "mlp_ratios", "above 0 … 64, with hidden layers of at least 1",
            [&](double ratio, std::size_t i) { return ratio > 0 && ratio <= 64 && c.embed_dims[i] * ratio >= 1; });
  of_stages(c.chunkwise_recurrents, "chunkwise_recurrents", "", any);
  of_stages(c.layerscales, "layerscales", "", any);
  check.within(c.in_chans, 1, 4096, "in_chans");
  check.within(c.num_classes, 0, 1 << 24, "num_classes");
  check.within(c.projection, 1, 1 << 20, "projection");
  check.expect(c.drop_path_rate >= 0 && c.drop_path_rate < 1, "drop_path_rate",
               fmt::format("0 … below 1, got {}", c.drop_path_rate));
  check.expect(c.layer_init_values >= 0 && c.layer_init_values <= 1, "layer_init_values",
               fmt::format("0 … 1, got {}", c.layer_init_values));
  check.done(Config::kFamily);
}

Family make_family() {
  return {.name = Config::kFamily,
          .title = "RMT",
          .paper = "Fan et al., CVPR 2024, arXiv:2309.11523",
          .presets = presets(),
          .extents = {"embed_dims", "depths"},
          .configure = configure<Rmt>,
          .recognise = recognise,
          .from_official = configure_official<Rmt, from_official>};
}

}  // namespace weft::rmt
