// From the tensors of a checkpoint, or from the official code's configuration, to a Config.
#include "core/format.h"
#include "models/recogniser.h"
#include "models/rmt/rmt.h"

namespace weft::rmt {
namespace {

constexpr std::string_view kDecay = "layers.0.Relpos.decay";
constexpr std::string_view kStem = "patch_embed.proj.0.weight";
constexpr std::string_view kQuery = "layers.0.blocks.0.retention.q_proj.weight";

// One entry for each stage, `read` getting the stage's name, "layers.0.".
template <class T, class F>
std::vector<T> by_stage(int stages, F&& read) {
  std::vector<T> list;
  list.reserve(static_cast<std::size_t>(stages));
  for (int i = 0; i < stages; ++i) list.push_back(read(fmt::format("layers.{}.", i)));
  return list;
}

void read_stages(const Layout& layout, Recogniser<Config>& r, int stages) {
  const auto channels = [&](const std::string& stage) {
    return layout.extent(stage + "blocks.0.retention.q_proj.weight", 2, 0);
  };
  r.found(&Config::embed_dims, by_stage<int>(stages, channels),
          r.shape_of("layers.*.blocks.0.retention.q_proj.weight"));
  r.found(
      &Config::depths,
      by_stage<int>(
          stages, [&](const std::string& stage) { return layout.count(stage + "blocks", "retention.q_proj.weight"); }),
      fmt::format("number of {}", layout.in_file("layers.*.blocks.*")));
  r.found(&Config::num_heads,
          by_stage<int>(stages, [&](const std::string& stage) { return layout.extent(stage + "Relpos.decay", 1, 0); }),
          r.shape_of("layers.*.Relpos.decay"));
  r.found(&Config::mlp_ratios,
          by_stage<double>(stages,
                           [&](const std::string& stage) {
                             return static_cast<double>(layout.extent(stage + "blocks.0.ffn.fc1.weight", 2, 0)) /
                                    channels(stage);
                           }),
          r.shape_of("layers.*.blocks.0.ffn.fc1.weight"));
  r.found(&Config::layerscales,
          by_stage<bool>(stages, [&](const std::string& stage) { return layout.has(stage + "blocks.0.gamma_1"); }),
          fmt::format("which of {} are there", layout.in_file("layers.*.blocks.0.gamma_1")));
}

// What leaves no trace is as in the published model of these extents.
void assume_the_rest(Recogniser<Config>& r, std::size_t stages) {
  const Preset* const preset = matching_preset(find_family(Config::kFamily), config_to_json(r.config()));
  Config usual;
  if (preset) {
    config_from_json(preset->config, usual, Config::kFamily);
  } else {
    usual.chunkwise_recurrents.assign(stages, true);
    usual.chunkwise_recurrents.back() = false;
    usual.init_values.assign(stages, 2);
    usual.heads_ranges.assign(stages, 6);
  }
  const std::string model = preset ? fmt::format("that of {}", preset->name) : "as in most of the published models";
  r.assumed(&Config::chunkwise_recurrents, usual.chunkwise_recurrents, "leaves no trace; " + model);
  for (const auto option : {&Config::init_values, &Config::heads_ranges}) {
    r.assumed(option, usual.*option, "matters to new models only, the decays are in the file; " + model);
  }
  r.assumed(&Config::layer_init_values, usual.layer_init_values, "leaves no trace; matters to new models only");
  r.assumed(&Config::drop_path_rate, usual.drop_path_rate, "leaves no trace; matters to training only");
}

}  // namespace

std::optional<Recognition> recognise(const TensorIndex& tensors, const Json& overrides) {
  const auto layout = Layout::find(tensors, Config::kFamily, {kDecay, kStem, kQuery});
  if (!layout) return std::nullopt;
  require<UnsupportedError>(
      !layout->has("aux_head.weight"), Config::kFamily,
      "{} is there: models trained with token labels, which add the largest of all tokens' own logits, "
      "are not supported",
      layout->in_file("aux_head.weight"));
  Recogniser<Config> r(*layout, overrides);
  const int stages = layout->count("layers", "Relpos.decay");
  r.found_extent(&Config::in_chans, kStem, 4, 1);
  read_stages(*layout, r, stages);
  r.found_extent(&Config::projection, "proj.weight", 2, 0);
  r.found_classes("head.weight");
  assume_the_rest(r, static_cast<std::size_t>(stages));
  return r.done(layout->renamed(""), layout->named({"num_batches_tracked"}));
}

std::optional<Config> from_official(std::string_view system, const Json& model, const TensorIndex& /*tensors*/) {
  if (system != "rmt") return std::nullopt;
  Config config;
  config_from_json(official_options(model, Config::kFamily, {"norm_layer", "patch_norm", "use_checkpoints"}), config,
                   Config::kFamily);
  return config;
}

}  // namespace weft::rmt
