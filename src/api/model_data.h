// What a Model is made of, for the parts of weft that look inside.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/json.h"
#include "cpu/plan.h"
#include "models/architecture.h"
#include "weft/image.h"
#include "weft/model.h"

namespace weft {

struct ModelData {
  std::shared_ptr<const Architecture> architecture;
  Weights weights;  // by the model's names, in the file's element type
  std::vector<std::string> labels;
  Preprocess preprocess;
  /// Where the weights come from: file, format, section, or preset and seed.
  Json provenance = Json::object();
  /// How the file was recognised; empty for a model that says what it is.
  std::vector<Finding> findings;
};

/// The options' "key=value" pairs as JSON: what does not parse is a string, so that interpolate_mode=bilinear needs no
/// quotes.
Json overrides_of(const LoadOptions& options);

/// Fresh weights by the architecture's initialisers, f32; the same for the same seed.
Weights initial_weights(const Architecture& architecture, std::uint64_t seed);

/// A file's tensors under the model's names.
Weights weights_of(const std::map<std::string, Tensor>& tensors, const Recognition& recognition);

/// Throws one WeightError that names every parameter without weights, every mis-shaped or unexpected tensor and every
/// one with values that are not finite.
void check_weights(const ModelData& data, std::string_view place);

/// A graph with all parameters of an architecture: of the picture that its weights were made for, or of one token.
std::unique_ptr<Graph> native_graph(const Architecture& architecture);

/// The graph of a language model for `tokens` [B,T], with its states and, as the last output, "logits". Throws
/// ShapeError where there is none.
std::unique_ptr<Graph> build_language_graph(const LanguageArchitecture& architecture, std::int64_t batch,
                                            std::int64_t tokens, LogitsOf which);

/// The graph of a model at an input shape [B,C,H,W], with outputs "map0", "map1", …, "pooled" and, where there is a
/// head, "logits". Throws ShapeError for an input that the model cannot take, UnsupportedError where it takes no
/// pictures.
std::unique_ptr<Graph> build_graph(const Architecture& architecture, const Shape& input, std::span<const int> layers);

/// Throws ConfigError for options that make no sense.
void validate(const SessionOptions& options);

/// Layers with negative ones counted from the end; the model's own when there are none. Throws ConfigError.
std::vector<int> resolve_layers(const Architecture& architecture, std::span<const int> layers);

}  // namespace weft
