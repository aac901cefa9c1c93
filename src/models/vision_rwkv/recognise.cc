// From the tensors of a checkpoint, or from the official code's configuration, to a Config.
#include <array>

#include "core/format.h"
#include "models/recogniser.h"
#include "models/vision_rwkv/vision_rwkv.h"

namespace weft::vision_rwkv {
namespace {

void read_shapes(const Layout& layout, Recogniser<Config>& r) {
  constexpr std::string_view kProjection = "patch_embed.projection.weight";
  constexpr std::string_view kHidden = "layers.0.ffn.key.weight";
  r.found_extent(&Config::embed_dims, "layers.0.att.spatial_decay", 1, 0);
  r.found_depth("layers", "att.spatial_decay");
  r.found_extent(&Config::patch_size, kProjection, 4, 2);
  r.found_extent(&Config::in_channels, kProjection, 4, 1);
  r.found(&Config::hidden_rate, layout.extent(kHidden, 2, 0) / r.config().embed_dims, r.shape_of(kHidden));
}

void read_options(const Layout& layout, Recogniser<Config>& r) {
  r.found_presence(&Config::key_norm, "layers.0.att.key_norm.weight");
  const bool layer_scale = layout.has("layers.0.gamma1");
  r.found(&Config::init_values, layer_scale ? std::optional(1.0) : std::nullopt,
          r.presence_of("layers.0.gamma1") + (layer_scale ? "; the value matters to new models only" : ""));
  r.found_presence(&Config::final_norm, "ln1.weight");
  constexpr std::string_view kMix = "layers.0.att.spatial_mix_k";
  if (layout.has(kMix)) {
    r.assumed(&Config::shift_pixel, 1, r.presence_of(kMix) + "; a distance other than 1 leaves no trace");
  } else {
    r.found(&Config::shift_pixel, 0, r.presence_of(kMix));
  }
  r.assumed(&Config::post_norm, layer_scale,
            "leaves no trace; the published models with layer scale are post-norm, those without are pre-norm");
}

// Heads have one name whatever stands before the backbone's.
void read_head(const Layout& layout, Recogniser<Config>& r) {
  struct Form {
    Head head;
    const char* weight;
  };
  constexpr std::array<Form, 3> kForms = {
      {{Head::kLinear, "head.fc.weight"}, {Head::kPlain, "head.weight"}, {Head::kTanhMlp, "head.2.weight"}}};
  for (const auto& [head, weight] : kForms) {
    const TensorType* type = layout.tensor_in_file(weight);
    if (!type || type->shape.rank() != 2) continue;
    const std::string reason = fmt::format("shape of {}", weight);
    r.found(&Config::head, head, fmt::format("{} is there", weight));
    r.found(&Config::num_classes, static_cast<int>(type->shape[0]), reason);
    if (head == Head::kTanhMlp) r.found(&Config::hidden_dims, static_cast<int>(type->shape[1]), reason);
    return;
  }
  r.found(&Config::head, Head::kNone, "no head.fc.weight, head.weight or head.2.weight: a bare backbone");
}

void assume_the_rest(Recogniser<Config>& r) {
  r.assumed(&Config::channel_gamma, 0.25, "leaves no trace; the official default");
  r.assumed(&Config::interpolate_mode, InterpolateMode::kBicubic, "leaves no trace; the official default");
  r.assumed(&Config::wkv, Wkv::kPaper,
            "leaves no trace; released weights were trained with wkv=released_kernel, which differs slightly");
}

// The model's names have "backbone." before all but the head.
std::map<std::string, std::string> renames(const Layout& layout) {
  auto renamed = layout.renamed("backbone.");
  if (layout.prefix().empty()) {
    std::erase_if(renamed, [](const auto& names) { return names.first.starts_with("head."); });
  }
  return renamed;
}

// The official dictionary under our names: options that only training or the framework reads are dropped.
Json without_framework_options(Json options) {
  for (const char* name : {"type", "init_cfg", "with_cp", "drop_rate", "pretrained", "train_cfg"}) options.erase(name);
  if (options.contains("shift_mode")) {
    require<ConfigError>(options["shift_mode"] == "q_shift", Config::kFamily, "shift_mode must be q_shift, got {}",
                         printable(options["shift_mode"].dump()));
    options.erase("shift_mode");
  }
  number_to_list(options, "img_size", 2);
  number_to_list(options, "out_indices", 1);
  return options;
}

}  // namespace

std::optional<Recognition> recognise(const TensorIndex& tensors, const Json& overrides) {
  const auto layout = Layout::find(tensors, Config::kFamily, {"layers.0.att.spatial_decay"});
  if (!layout) return std::nullopt;
  Recogniser<Config> r(*layout, overrides);
  read_shapes(*layout, r);
  read_options(*layout, r);
  r.assume_img_size("pos_embed", layout->extent("pos_embed", 3, 1));
  read_head(*layout, r);
  assume_the_rest(r);
  return r.done(renames(*layout));
}

std::optional<Config> from_official(std::string_view system, const Json& model, const TensorIndex& /*tensors*/) {
  Config config;
  if (system == "vrwkv") {
    require<ConfigError>(model.contains("backbone"), Config::kFamily, "the official configuration has no backbone");
    config_from_json(without_framework_options(model["backbone"]), config, Config::kFamily);
    config.head = model.contains("head") ? Head::kLinear : Head::kNone;
    if (model.contains("head") && model["head"].is_object() && model["head"].contains("num_classes")) {
      config_from_json(Json{{"num_classes", model["head"]["num_classes"]}}, config, Config::kFamily);
    }
    return config;
  }
  if (system == "vrwkv-internimage") {
    Json options = without_framework_options(model);
    const bool key_norm = options.value("k_norm", true);  // on by default in that code
    options.erase("k_norm");
    options["key_norm"] = key_norm;
    config_from_json(options, config, Config::kFamily);
    config.head = config.depth > 12 ? Head::kTanhMlp : Head::kPlain;
    return config;
  }
  return std::nullopt;
}

}  // namespace weft::vision_rwkv
