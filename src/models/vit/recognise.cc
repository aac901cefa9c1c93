// From the tensors of a checkpoint, or from the official code's configuration, to a Config.
#include <cmath>

#include "core/format.h"
#include "models/config.h"
#include "models/vit/vit.h"

namespace weft::vit {
namespace {

constexpr std::string_view kPlace = "vit";
constexpr int kHeadChannels = 64;  // of all published models

// Looks tensors up under timm's names, whatever stands before "blocks.0" in the file.
class Layout {
 public:
  explicit Layout(const TensorIndex& tensors) : tensors_(tensors) {
    constexpr std::string_view kMark = "blocks.0.attn.qkv.weight";
    for (const auto& [name, type] : tensors) {
      if (!name.ends_with(kMark)) continue;
      const std::string prefix = name.substr(0, name.size() - kMark.size());
      const auto there = [&](std::string_view other) { return tensors.contains(fmt::format("{}{}", prefix, other)); };
      const bool whole_word = prefix.empty() || prefix.ends_with('.');
      if (whole_word && there("pos_embed") && there("patch_embed.proj.weight") && there("blocks.0.mlp.fc1.weight")) {
        prefix_ = prefix;
      }
    }
  }

  bool recognised() const { return prefix_.has_value(); }
  const std::string& prefix() const { return *prefix_; }

  const TensorType* find(std::string_view name) const {
    const auto entry = tensors_.find(fmt::format("{}{}", *prefix_, name));
    return entry == tensors_.end() ? nullptr : &entry->second;
  }
  // Extent `axis` of a tensor that a member of this family must have.
  int extent(std::string_view name, int rank, int axis) const {
    const TensorType* type = find(name);
    require<WeightError>(type != nullptr, kPlace, "looks like a ViT, but has no tensor {}{}", *prefix_, name);
    require<WeightError>(type->shape.rank() == rank, kPlace, "{}{} must have {} axes, got {}", *prefix_, name, rank,
                         type->shape);
    const std::int64_t extent = type->shape[axis];
    require<WeightError>(extent > 0 && extent <= 1 << 24, kPlace, "{}{} has an impossible shape {}", *prefix_, name,
                         type->shape);
    return static_cast<int>(extent);
  }
  int depth() const {
    int depth = 0;
    while (find(fmt::format("blocks.{}.attn.qkv.weight", depth))) ++depth;
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
    read_heads();
    found("norm_eps", &Config::norm_eps, 1e-6, "leaves no trace; that of the published models", true);
    found("interpolate_mode", &Config::interpolate_mode, InterpolateMode::kBicubicAntialias,
          "leaves no trace; timm's way, DeiT's own code uses bicubic; matters at other sizes only", true);
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
    constexpr std::string_view kProjection = "patch_embed.proj.weight";
    const int channels = layout_.extent(kProjection, 4, 0);
    found("embed_dim", &Config::embed_dim, channels, from(kProjection));
    found("in_chans", &Config::in_chans, layout_.extent(kProjection, 4, 1), from(kProjection));
    found("patch_size", &Config::patch_size, layout_.extent(kProjection, 4, 2), from(kProjection));
    found("depth", &Config::depth, layout_.depth(), fmt::format("number of {}blocks.*", layout_.prefix()));
    constexpr std::string_view kHidden = "blocks.0.mlp.fc1.weight";
    found("mlp_ratio", &Config::mlp_ratio, static_cast<double>(layout_.extent(kHidden, 2, 0)) / channels,
          from(kHidden));
  }

  void read_options() {
    const auto presence = [&](std::string_view option, bool Config::*member, std::string_view name) {
      const bool there = layout_.find(name) != nullptr;
      found(option, member, there, fmt::format("{}{} is {}", layout_.prefix(), name, there ? "there" : "absent"));
    };
    presence("qkv_bias", &Config::qkv_bias, "blocks.0.attn.qkv.bias");
    presence("class_token", &Config::class_token, "cls_token");
    presence("distilled", &Config::distilled, "dist_token");
    const bool mean = layout_.find("fc_norm.weight") != nullptr;
    found("global_pool", &Config::global_pool, mean ? GlobalPool::kAvg : GlobalPool::kToken,
          fmt::format("{}fc_norm.weight is {}", layout_.prefix(), mean ? "there" : "absent"));
    const bool head = layout_.find("head.weight") != nullptr;
    found("num_classes", &Config::num_classes, head ? layout_.extent("head.weight", 2, 0) : 0,
          head ? fmt::format("shape of {}head.weight", layout_.prefix())
               : fmt::format("no {}head.weight: a bare backbone", layout_.prefix()));
  }

  // pos_embed holds one row a token; which grid those of the patches make, only a square number tells.
  void read_img_size() {
    const int positions = layout_.extent("pos_embed", 3, 1) - config_.prefix_tokens();
    const int side = static_cast<int>(std::lround(std::sqrt(std::max(positions, 0))));
    require<ConfigError>((positions > 0 && side * side == positions) || overrides_.contains("img_size"), kPlace,
                         "{}pos_embed has {} positions of patches, which is no square; tell the picture's size with "
                         "img_size=[H,W]",
                         layout_.prefix(), positions);
    const int pixels = static_cast<int>(std::min<std::int64_t>(std::int64_t{side} * config_.patch_size, 1 << 24));
    found("img_size", &Config::img_size, {pixels, pixels},
          fmt::format("{}pos_embed has {} positions of patches, taken as a square", layout_.prefix(), positions), true);
  }

  void read_heads() {
    require<ConfigError>(config_.embed_dim % kHeadChannels == 0 || overrides_.contains("num_heads"), kPlace,
                         "embed_dim {} is no multiple of {}, the channels of a head in the published models; tell the "
                         "number of heads with num_heads=N",
                         config_.embed_dim, kHeadChannels);
    found("num_heads", &Config::num_heads, std::max(config_.embed_dim / kHeadChannels, 1),
          fmt::format("leaves no trace; the published models have {} channels to a head", kHeadChannels), true);
  }

  std::map<std::string, std::string> renames(const TensorIndex& tensors) const {
    std::map<std::string, std::string> renamed;
    const std::string& prefix = layout_.prefix();
    if (prefix.empty()) return renamed;
    for (const auto& [name, type] : tensors) {
      if (name.starts_with(prefix)) renamed[name] = name.substr(prefix.size());
    }
    return renamed;
  }

  const Layout& layout_;
  const Json& overrides_;
  Config config_;
  std::vector<Finding> findings_;
};

}  // namespace

std::optional<Recognition> recognise(const TensorIndex& tensors, const Json& overrides) {
  const Layout layout(tensors);
  if (!layout.recognised()) return std::nullopt;
  return Recogniser(layout, overrides).run(tensors);
}

std::optional<Config> from_official(std::string_view system, const Json& model, const TensorIndex& tensors) {
  if (system != "vit" && system != "deit") return std::nullopt;
  require<ConfigError>(model.is_object(), kPlace, "the official configuration must be a JSON object, got {}",
                       model.type_name());
  Json options = model;
  if (options.contains("pretrained_img_size")) options["img_size"] = options["pretrained_img_size"];
  if (const auto size = options.find("img_size"); size != options.end() && size->is_number()) {
    *size = Json::array({*size, *size});
  }
  // Not the network's: what a case was run on, whether other sizes are let in, what only training reads.
  for (const char* name : {"input", "pretrained_img_size", "dynamic_img_size", "dynamic_img_pad", "drop_rate",
                           "pos_drop_rate", "patch_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate"}) {
    options.erase(name);
  }
  Config config;
  config.distilled = system == "deit" && tensors.contains("dist_token");
  config.interpolate_mode = system == "deit" ? InterpolateMode::kBicubic : InterpolateMode::kBicubicAntialias;
  config_from_json(options, config, kPlace);
  return config;
}

}  // namespace weft::vit
