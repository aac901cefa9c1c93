#include "api/model_data.h"

#include <array>
#include <random>
#include <set>

#include "core/format.h"
#include "io/checkpoint.h"
#include "io/json.h"

namespace weft {

Json overrides_of(const LoadOptions& options) {
  Json json = Json::object();
  for (const auto& [key, text] : options.config) {
    require<ConfigError>(is_utf8(key) && is_utf8(text), "options", "{}={} is no UTF-8", printable(key, 60),
                         printable(text, 60));
    try {
      json[key] = Json::accept(text) ? parse_json(text, key) : Json(text);
    } catch (const IoError& error) {  // nested too deeply, or a key twice
      throw ConfigError(error.what());
    }
  }
  return json;
}

Weights initial_weights(const Architecture& architecture, std::uint64_t seed) {
  const auto graph = native_graph(architecture);
  std::mt19937_64 random(seed);
  Weights weights;
  for (const int id : graph->parameters()) {
    const Graph::ValueInfo& parameter = graph->value(id);
    Tensor tensor(parameter.type);
    parameter.initializer(tensor.mutable_data<float>(), random);
    weights.emplace(parameter.name, std::move(tensor));
  }
  return weights;
}

Weights weights_of(const std::map<std::string, Tensor>& tensors, const Recognition& recognition) {
  Weights weights;
  for (const auto& [name, tensor] : tensors) {
    if (recognition.derived.contains(name)) continue;
    const auto other = recognition.renamed.find(name);
    weights.emplace(other == recognition.renamed.end() ? name : other->second, tensor);
  }
  return weights;
}

void check_weights(const ModelData& data, std::string_view place) {
  const auto graph = native_graph(*data.architecture);
  std::string missing, misshaped, unexpected, ill;
  std::set<std::string_view> known;
  const auto note = [](std::string& list, std::string text) { list += (list.empty() ? "" : ", ") + std::move(text); };
  for (const int id : graph->parameters()) {
    const Graph::ValueInfo& parameter = graph->value(id);
    known.insert(parameter.name);
    const auto weight = data.weights.find(parameter.name);
    if (weight == data.weights.end()) {
      note(missing, fmt::format("{} {}", parameter.name, parameter.type.shape));
    } else if (weight->second.shape() != parameter.type.shape) {
      note(misshaped,
           fmt::format("{} must be {}, got {}", parameter.name, parameter.type.shape, weight->second.shape()));
    } else if (!all_finite(weight->second)) {
      note(ill, parameter.name);
    }
  }
  for (const auto& [name, tensor] : data.weights) {
    if (!known.contains(name)) note(unexpected, fmt::format("{} {}", printable(name), tensor.shape()));
  }
  std::string wrong;
  const auto tell = [&](std::string_view what, const std::string& list) {
    if (!list.empty()) wrong += fmt::format("{}{}: {}", wrong.empty() ? "" : "; ", what, list);
  };
  tell("missing", missing);
  tell("mis-shaped", misshaped);
  tell("unexpected", unexpected);
  tell("NaN or infinite values in", ill);
  require<WeightError>(wrong.empty(), place, "the tensors do not fit {}: {}", data.architecture->family(), wrong);
}

std::unique_ptr<Graph> native_graph(const Architecture& architecture) {
  if (architecture.language()) return build_language_graph(*architecture.language(), 1, 1, LogitsOf::kLast);
  const PictureArchitecture& pictures = require_pictures(architecture);
  const auto [height, width] = pictures.native_size();
  return build_graph(pictures, {1, pictures.in_channels(), height, width}, std::array{pictures.depth() - 1});
}

std::unique_ptr<Graph> build_language_graph(const LanguageArchitecture& architecture, std::int64_t batch,
                                            std::int64_t tokens, LogitsOf which) {
  constexpr std::int64_t kMost = 1 << 20;
  require<ShapeError>(batch > 0 && batch <= kMost && tokens > 0 && tokens <= kMost, architecture.family(),
                      "tokens must be [B,T] with both of 1 … {}, got [{},{}]", kMost, batch, tokens);
  auto graph = std::make_unique<Graph>(std::string(architecture.family()));
  graph->output("logits", architecture.build(*graph, graph->input("tokens", {DType::kI64, {batch, tokens}}), which));
  return graph;
}

std::unique_ptr<Graph> build_graph(const Architecture& any, const Shape& input, std::span<const int> layers) {
  const PictureArchitecture& architecture = require_pictures(any);
  const bool fits = input.rank() == 4 && input[0] > 0 && input[1] == architecture.in_channels() && input[2] > 0 &&
                    input[3] > 0 && input[2] <= 65536 && input[3] <= 65536;
  require<ShapeError>(fits, architecture.family(), "input must be [B,{},H,W] with B ≥ 1 and sides of 1 … 65536, got {}",
                      architecture.in_channels(), input);
  auto graph = std::make_unique<Graph>(std::string(architecture.family()));
  const Value image = graph->input("image", {DType::kF32, input});
  const ModelValues values = architecture.build(*graph, image, layers);
  for (std::size_t i = 0; i < values.maps.size(); ++i) graph->output(fmt::format("map{}", i), values.maps[i]);
  graph->output("pooled", values.pooled);
  if (values.logits) graph->output("logits", *values.logits);
  return graph;
}

void validate(const SessionOptions& options) {
  require<ConfigError>(options.max_memory >= 0, "session", "max_memory must be 0 or more, got {}", options.max_memory);
  require<ConfigError>(options.dtype == DType::kF32 || options.dtype == DType::kBF16 || options.dtype == DType::kI8,
                       "session", "dtype must be f32, bf16 or i8, got {}", name_of(options.dtype));
}

std::vector<int> resolve_layers(const Architecture& architecture, std::span<const int> layers) {
  if (layers.empty()) return require_pictures(architecture).out_indices();
  std::vector<int> resolved;
  for (const int layer : layers) {
    const int index = layer < 0 ? layer + architecture.depth() : layer;
    require<ConfigError>(index >= 0 && index < architecture.depth(), architecture.family(),
                         "there is no layer {}: layers are 0 … {}, or −{} … −1 from the end", layer,
                         architecture.depth() - 1, architecture.depth());
    resolved.push_back(index);
  }
  return resolved;
}

}  // namespace weft
