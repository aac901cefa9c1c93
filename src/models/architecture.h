// What the rest of weft knows of a model family: how to configure, recognise and build its members.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "graph/graph.h"

namespace weft {

/// What a built graph offers.
struct ModelValues {
  /// Feature maps [B,C,H,W] of the layers asked for, in their order.
  std::vector<Value> maps;
  /// What the head reads, [B,C]: the global average of the map of the last of out_indices(), or a class token.
  Value pooled;
  /// [B,classes], when the model has a head.
  std::optional<Value> logits;
};

class PictureArchitecture;
class LanguageArchitecture;

/// One configured member of a family, of one of the two kinds below. Immutable.
class Architecture {
 public:
  virtual ~Architecture() = default;

  virtual std::string_view family() const = 0;
  /// The complete configuration; Family::configure gives the same architecture back from it.
  virtual Json config() const = 0;
  virtual int depth() const = 0;
  /// What names of a block's parameters, inputs and places begin with, before its number: "backbone.layers.".
  virtual std::string_view block_prefix() const = 0;
  /// Itself as what it is, null as what it is not.
  virtual const PictureArchitecture* pictures() const { return nullptr; }
  virtual const LanguageArchitecture* language() const { return nullptr; }
};

/// What reads pictures.
class PictureArchitecture : public Architecture {
 public:
  const PictureArchitecture* pictures() const final { return this; }

  virtual int in_channels() const = 0;
  /// Height and width that the weights were made for (the positional embedding). Other sizes work as well, unless
  /// fixed_size().
  virtual std::array<int, 2> native_size() const = 0;
  /// Whether pictures of other sizes than native_size() are refused: the option img_size makes a model for them.
  virtual bool fixed_size() const { return false; }
  /// 0 without a head.
  virtual int classes() const = 0;
  /// The layers whose maps are the backbone's official output.
  virtual std::vector<int> out_indices() const = 0;
  /// `image` is [B,in_channels,H,W]; `layers` are in 0 … depth() − 1.
  virtual ModelValues build(Graph& graph, Value image, std::span<const int> layers) const = 0;
};

/// Behind which tokens a language model tells what follows.
enum class LogitsOf : std::uint8_t { kAll, kLast };

/// What reads tokens and tells which follows.
class LanguageArchitecture : public Architecture {
 public:
  const LanguageArchitecture* language() const final { return this; }

  /// V: tokens are 0 … V − 1.
  virtual int vocab_size() const = 0;
  /// Logits [B,T,V], or [B,V] behind the last token, of `tokens` [B,T] of kI64. What is carried from one piece of a
  /// text to the next are states of the graph (Graph::state).
  virtual Value build(Graph& graph, Value tokens, LogitsOf which) const = 0;
};

/// The architecture as one of this kind. Throws UnsupportedError that says what it reads instead.
const PictureArchitecture& require_pictures(const Architecture& architecture);
const LanguageArchitecture& require_language(const Architecture& architecture);

/// Why an option has its value when a checkpoint is recognised.
struct Finding {
  std::string option;
  std::string value;
  std::string reason;
  /// The file does not tell: a documented default that the user may have to override.
  bool assumed = false;
};

/// A checkpoint recognised as a member of a family.
struct Recognition {
  Json config;
  std::vector<Finding> findings;
  /// Where tensors have other names than the model's parameters: model's name by the file's.
  std::map<std::string, std::string> renamed;
  /// Tensors of the file that follow from the configuration (masks, indices, counts of batches), by the file's names:
  /// they are left out.
  std::set<std::string> derived;
};

/// Names and types of the tensors in a checkpoint.
using TensorIndex = std::map<std::string, TensorType>;

struct Preset {
  std::string_view name;     // "vrwkv_tiny"
  std::string_view summary;  // one line for people
  /// Of what reads pictures: the side of the (square) ones that the published figures are for. May differ from the
  /// configuration's img_size, which sizes the positional embedding.
  int side = 224;
  Json config;
};

struct Family {
  std::string_view name;   // "vision_rwkv"
  std::string_view title;  // "Vision-RWKV"
  std::string_view paper;  // authors, year, arXiv number
  std::vector<Preset> presets;
  /// Options that tell the presets apart.
  std::vector<const char*> extents;
  /// Throws ConfigError for keys or values that are not the family's.
  std::unique_ptr<const Architecture> (*configure)(const Json& config);
  /// From names and shapes alone; nothing when the tensors are not of this family. `overrides` are options that the
  /// user set: they win over what the file says.
  std::optional<Recognition> (*recognise)(const TensorIndex& tensors, const Json& overrides);
  /// From the configuration that the official code uses, as the reference cases record it, and from the tensors of the
  /// checkpoint where that leaves something open; nothing when `system` is not this family's.
  std::unique_ptr<const Architecture> (*from_official)(std::string_view system, const Json& model,
                                                       const TensorIndex& tensors);
};

/// The published model that a configuration is an instance of, by its extents; null when there is none.
const Preset* matching_preset(const Family& family, const Json& config);

/// All families, those of models.def.
std::span<const Family> families();
/// Throws ConfigError that lists what there is.
const Family& find_family(std::string_view name);
/// The family and the preset of this name. Throws ConfigError that lists what there is.
std::pair<const Family*, const Preset*> find_preset(std::string_view name);

}  // namespace weft
