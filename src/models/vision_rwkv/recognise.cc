// From the tensors of a checkpoint, or from the official code's configuration, to a Config.
#include <algorithm>
#include <array>
#include <cmath>

#include "core/format.h"
#include "models/config.h"
#include "models/vision_rwkv/vision_rwkv.h"

namespace weft::vision_rwkv {
namespace {

constexpr std::string_view kPlace = "vision_rwkv";

// Looks tensors up under the names of the official mmcls layout, whatever stands before "layers.0" in the file.
class Layout {
 public:
  explicit Layout(const TensorIndex& tensors) : tensors_(tensors) {
    constexpr std::string_view kMark = "layers.0.att.spatial_decay";
    for (const auto& [name, type] : tensors) {
      if (!name.ends_with(kMark)) continue;
      const std::string prefix = name.substr(0, name.size() - kMark.size());
      if (prefix.empty() || prefix.ends_with('.')) prefix_ = prefix;
    }
  }

  bool recognised() const { return prefix_.has_value(); }
  const std::string& prefix() const { return *prefix_; }

  const TensorType* backbone(std::string_view name) const { return find(fmt::format("{}{}", *prefix_, name)); }
  const TensorType* find(const std::string& name) const {
    const auto entry = tensors_.find(name);
    return entry == tensors_.end() ? nullptr : &entry->second;
  }
  // Extent `axis` of a tensor that a member of this family must have.
  int extent(std::string_view name, int rank, int axis) const {
    const TensorType* type = backbone(name);
    require<WeightError>(type != nullptr, kPlace, "looks like Vision-RWKV, but has no tensor {}{}", *prefix_, name);
    require<WeightError>(type->shape.rank() == rank, kPlace, "{}{} must have {} axes, got {}", *prefix_, name, rank,
                         type->shape);
    const std::int64_t extent = type->shape[axis];
    require<WeightError>(extent > 0 && extent <= 65536, kPlace, "{}{} has an impossible shape {}", *prefix_, name,
                         type->shape);
    return static_cast<int>(extent);
  }
  int depth() const {
    int depth = 0;
    while (backbone(fmt::format("layers.{}.att.spatial_decay", depth))) ++depth;
    return depth;
  }

 private:
  const TensorIndex& tensors_;
  std::optional<std::string> prefix_;
};

class Recogniser {
 public:
  Recogniser(const Layout& layout, const Json& overrides) : layout_(layout), overrides_(overrides) {}

  Recognition run(const TensorIndex& tensors) {
    read_shapes();
    read_options();
    read_img_size();
    read_head();
    assume();
    config_from_json(overrides_, config_, kPlace);
    for (Finding& finding : findings_) {
      if (!overrides_.contains(finding.option)) continue;
      finding = {finding.option, overrides_[finding.option].dump(), "set by the user", false};
    }
    return {config_to_json(config_), std::move(findings_), renames(tensors)};
  }

 private:
  template <class T>
  void found(std::string_view option, T Config::*member, T value, std::string reason, bool assumed = false) {
    config_.*member = value;
    findings_.push_back(
        {std::string(option), detail::value_to_json(config_.*member).dump(), std::move(reason), assumed});
  }

  void read_shapes() {
    const auto from = [&](std::string_view name) { return fmt::format("shape of {}{}", layout_.prefix(), name); };
    const int channels = layout_.extent("layers.0.att.spatial_decay", 1, 0);
    found("embed_dims", &Config::embed_dims, channels, from("layers.0.att.spatial_decay"));
    found("depth", &Config::depth, layout_.depth(), fmt::format("number of {}layers.*", layout_.prefix()));
    constexpr std::string_view kProjection = "patch_embed.projection.weight";
    found("patch_size", &Config::patch_size, layout_.extent(kProjection, 4, 2), from(kProjection));
    found("in_channels", &Config::in_channels, layout_.extent(kProjection, 4, 1), from(kProjection));
    constexpr std::string_view kHidden = "layers.0.ffn.key.weight";
    found("hidden_rate", &Config::hidden_rate, layout_.extent(kHidden, 2, 0) / channels, from(kHidden));
  }

  void read_options() {
    const auto has = [&](std::string_view name) { return layout_.backbone(name) != nullptr; };
    const auto presence = [&](bool there, std::string_view name) {
      return fmt::format("{}{} is {}", layout_.prefix(), name, there ? "there" : "absent");
    };
    const bool key_norm = has("layers.0.att.key_norm.weight");
    found("key_norm", &Config::key_norm, key_norm, presence(key_norm, "layers.0.att.key_norm.weight"));
    const bool layer_scale = has("layers.0.gamma1");
    found("init_values", &Config::init_values, layer_scale ? std::optional(1.0) : std::nullopt,
          presence(layer_scale, "layers.0.gamma1") + (layer_scale ? "; the value matters to new models only" : ""));
    const bool final_norm = has("ln1.weight");
    found("final_norm", &Config::final_norm, final_norm, presence(final_norm, "ln1.weight"));
    const bool shift = has("layers.0.att.spatial_mix_k");
    found("shift_pixel", &Config::shift_pixel, shift ? 1 : 0,
          presence(shift, "layers.0.att.spatial_mix_k") + (shift ? "; a distance other than 1 leaves no trace" : ""),
          shift);
    found("post_norm", &Config::post_norm, layer_scale,
          "leaves no trace; the published models with layer scale are post-norm, those without are pre-norm", true);
  }

  // pos_embed holds one row a patch; which grid, only a square number tells.
  void read_img_size() {
    const int positions = layout_.extent("pos_embed", 3, 1);
    const int side = static_cast<int>(std::lround(std::sqrt(positions)));
    const bool given = overrides_.contains("img_size");
    require<ConfigError>(
        side * side == positions || given, kPlace,
        "{}pos_embed has {} positions, which is no square; tell the picture's size with img_size=[H,W]",
        layout_.prefix(), positions);
    const int pixels = side * config_.patch_size;  // at most 256 · 65536
    found("img_size", &Config::img_size, {pixels, pixels},
          fmt::format("{}pos_embed has {} positions, taken as a square", layout_.prefix(), positions), true);
  }

  void read_head() {
    struct Form {
      Head head;
      std::string_view weight;
    };
    constexpr std::array<Form, 3> kForms = {
        {{Head::kLinear, "head.fc.weight"}, {Head::kPlain, "head.weight"}, {Head::kTanhMlp, "head.2.weight"}}};
    for (const auto& [head, weight] : kForms) {
      const TensorType* type = layout_.find(std::string(weight));
      if (!type || type->shape.rank() != 2) continue;
      const std::string reason = fmt::format("{} is there", weight);
      found("head", &Config::head, head, reason);
      found("num_classes", &Config::num_classes, static_cast<int>(type->shape[0]), fmt::format("shape of {}", weight));
      if (head == Head::kTanhMlp) {
        found("hidden_dims", &Config::hidden_dims, static_cast<int>(type->shape[1]),
              fmt::format("shape of {}", weight));
      }
      return;
    }
    found("head", &Config::head, Head::kNone, "no head.fc.weight, head.weight or head.2.weight: a bare backbone");
  }

  void assume() {
    found("channel_gamma", &Config::channel_gamma, 0.25, "leaves no trace; the official default", true);
    found("interpolate_mode", &Config::interpolate_mode, InterpolateMode::kBicubic,
          "leaves no trace; the official default", true);
    found("wkv", &Config::wkv, Wkv::kPaper,
          "leaves no trace; released weights were trained with wkv=released_kernel, which differs slightly", true);
  }

  // The model's names have "backbone." before all but the head.
  std::map<std::string, std::string> renames(const TensorIndex& tensors) const {
    std::map<std::string, std::string> renamed;
    if (layout_.prefix() == "backbone.") return renamed;
    for (const auto& [name, type] : tensors) {
      if (!name.starts_with(layout_.prefix()) || (layout_.prefix().empty() && name.starts_with("head."))) continue;
      renamed[name] = "backbone." + name.substr(layout_.prefix().size());
    }
    return renamed;
  }

  const Layout& layout_;
  const Json& overrides_;
  Config config_;
  std::vector<Finding> findings_;
};

// The official dictionary under our names: options that only training or the framework reads are dropped.
Json without_framework_options(Json options) {
  for (const char* name : {"type", "init_cfg", "with_cp", "drop_rate", "pretrained", "train_cfg"}) options.erase(name);
  if (options.contains("shift_mode")) {
    require<ConfigError>(options["shift_mode"] == "q_shift", kPlace, "shift_mode must be q_shift, got {}",
                         printable(options["shift_mode"].dump()));
    options.erase("shift_mode");
  }
  if (const auto size = options.find("img_size"); size != options.end() && size->is_number()) {
    *size = Json::array({*size, *size});
  }
  if (const auto indices = options.find("out_indices"); indices != options.end() && indices->is_number()) {
    *indices = Json::array({*indices});
  }
  return options;
}

}  // namespace

std::optional<Recognition> recognise(const TensorIndex& tensors, const Json& overrides) {
  const Layout layout(tensors);
  if (!layout.recognised()) return std::nullopt;
  return Recogniser(layout, overrides).run(tensors);
}

std::optional<Config> from_official(std::string_view system, const Json& model) {
  Config config;
  if (system == "vrwkv") {
    require<ConfigError>(model.contains("backbone"), kPlace, "the official configuration has no backbone");
    config_from_json(without_framework_options(model["backbone"]), config, kPlace);
    config.head = model.contains("head") ? Head::kLinear : Head::kNone;
    if (model.contains("head") && model["head"].is_object() && model["head"].contains("num_classes")) {
      config_from_json(Json{{"num_classes", model["head"]["num_classes"]}}, config, kPlace);
    }
    return config;
  }
  if (system == "vrwkv-internimage") {
    Json options = without_framework_options(model);
    const bool key_norm = options.value("k_norm", true);  // on by default in that code
    options.erase("k_norm");
    options["key_norm"] = key_norm;
    config_from_json(options, config, kPlace);
    config.head = config.depth > 12 ? Head::kTanhMlp : Head::kPlain;
    return config;
  }
  return std::nullopt;
}

}  // namespace weft::vision_rwkv
