#include "train/start.h"

#include <random>

#include "api/model_file.h"
#include "core/format.h"
#include "core/options.h"
#include "train/plan.h"
#include "weft/weft.h"

namespace weft {
namespace {

// A value of config.options wins.
void set_default(Json& options, const char* key, Json value) {
  if (!options.contains(key)) options[key] = std::move(value);
}

Preprocess preprocess_of(const TrainConfig& config, const Preprocess& own) {
  Preprocess p = own;
  if (config.image_size > 0) {
    p.crop = config.image_size;
    p.resize = config.image_size == 224 ? 256 : config.image_size;
  }
  if (config.eval_resize > 0) p.resize = config.eval_resize;
  if (config.mean) p.mean = *config.mean;
  if (config.std) p.std = *config.std;
  require<ConfigError>(p.crop > 0, "train", "image_size must be given: the model in {} takes pictures of any size",
                       config.from);
  return p;
}

ModelData fresh_picture_model(const TrainConfig& config, int classes) {
  const auto [family, preset] = find_preset(config.model);
  Json options = config.options;
  set_default(options, "num_classes", classes);
  Json model = preset->config;
  if (config.image_size > 0 && model.contains("img_size")) {
    set_default(options, "img_size", {config.image_size, config.image_size});
  }
  model.update(options);
  ModelData data;
  data.architecture = family->configure(model);
  data.weights = initial_weights(*data.architecture, config.seed);
  data.preprocess = preprocess_of(config, default_preprocess(*data.architecture));
  return data;
}

// Of each parameter whether it has a row for each class: another number of classes gives it another shape.
std::vector<bool> rows_are_classes(const Graph& graph, const PictureArchitecture& architecture) {
  Json other = architecture.config();
  other["num_classes"] = architecture.classes() + 1;
  const auto wider = native_graph(*find_family(architecture.family()).configure(other));
  std::vector<bool> result;
  for (std::size_t i = 0; i < graph.parameters().size(); ++i) {
    result.push_back(graph.value(graph.parameters()[i]).type != wider->value(wider->parameters()[i]).type);
  }
  return result;
}

// Weights of the file wherever they fit; a head for other classes starts anew.
ModelData tuned_picture_model(const TrainConfig& config, ModelData data, const Dataset& dataset) {
  const int old_classes = require_pictures(*data.architecture).classes();
  const bool same_classes =
      old_classes == dataset.classes() && (data.labels.empty() || data.labels == dataset.class_names());
  Json model = data.architecture->config();
  model.update(config.options);
  model["num_classes"] = dataset.classes();
  data.architecture = find_family(data.architecture->family()).configure(model);
  const auto graph = native_graph(*data.architecture);
  const std::vector<bool> of_classes = rows_are_classes(*graph, require_pictures(*data.architecture));
  Weights weights = initial_weights(*data.architecture, config.seed);
  std::string wrong;
  for (std::size_t i = 0; i < of_classes.size(); ++i) {
    if (of_classes[i] && !same_classes) continue;
    const Graph::ValueInfo& parameter = graph->value(graph->parameters()[i]);
    const auto own = data.weights.find(parameter.name);
    if (own == data.weights.end() && old_classes == 0) continue;  // of a head that the options gave a bare backbone
    if (own != data.weights.end() && own->second.shape() == parameter.type.shape) {
      weights[parameter.name] = own->second.to(DType::kF32).clone();
    } else {
      wrong += fmt::format("{}{} must be {}, got {}", wrong.empty() ? "" : ", ", parameter.name, parameter.type.shape,
                           own == data.weights.end() ? "none" : own->second.shape().str());
    }
  }
  require<WeightError>(
      wrong.empty(), config.from,
      "its weights do not fit the options: {}; pictures of another size need no option, the positional "
      "embedding is resized to them",
      wrong);
  data.weights = std::move(weights);
  data.preprocess = preprocess_of(config, data.preprocess);
  return data;
}

ModelData fresh_language_model(const TrainConfig& config, std::int32_t tokens) {
  const auto [family, preset] = find_preset(config.model);
  Json options = config.options;
  if (tokens > 0) set_default(options, "vocab_size", tokens);
  Json model = preset->config;
  model.update(options);
  ModelData data;
  data.architecture = family->configure(model);
  data.weights = initial_weights(*data.architecture, config.seed);
  return data;
}

ModelData tuned_language_model(const TrainConfig& config, ModelData data, std::int32_t tokens) {
  const Json own = data.architecture->config();
  Json model = own;
  model.update(config.options);
  require<ConfigError>(model == own, config.from, "cannot be another model than it is: expected no options, got {}",
                       printable(dump(config.options), 200));
  // Models often know some more tokens than their vocabulary has.
  const int known = require_language(*data.architecture).vocab_size();
  require<ConfigError>(tokens == 0 || (tokens <= known && known / 2 < tokens), config.from,
                       "knows {} tokens, the tokenizer {} has {}; give the one that the model was trained with", known,
                       printable(config.tokenizer, 200), tokens);
  for (auto& [name, weight] : data.weights) weight = weight.to(DType::kF32).clone();
  return data;
}

DType dtype_of(WeightDType weights) {
  if (weights == WeightDType::kBF16) return DType::kBF16;
  return weights == WeightDType::kF16 ? DType::kF16 : DType::kF32;
}

}  // namespace

ModelData origin_of(const TrainConfig& config) {
  if (!config.from.empty()) return read_model_file(config.from, {});
  const auto [family, preset] = find_preset(config.model);
  ModelData data;
  data.architecture = family->configure(preset->config);
  return data;
}

ModelData starting_model(const TrainConfig& config, ModelData origin, const Dataset& dataset) {
  ModelData data = config.from.empty() ? fresh_picture_model(config, dataset.classes())
                                       : tuned_picture_model(config, std::move(origin), dataset);
  const int classes = require_pictures(*data.architecture).classes();
  require<ConfigError>(classes == dataset.classes(), "train", "the model has {} classes, {} has {}", classes,
                       dataset.name(), dataset.classes());
  data.labels = dataset.class_names();
  data.findings.clear();
  check_weights(data, config.from.empty() ? config.model : config.from);
  return data;
}

ModelData starting_language_model(const TrainConfig& config, ModelData origin, std::int32_t tokens) {
  ModelData data = config.from.empty() ? fresh_language_model(config, tokens)
                                       : tuned_language_model(config, std::move(origin), tokens);
  data.findings.clear();
  return data;
}

ModelData trained_model(const ModelData& start, const TrainConfig& config, const Weights& weights,
                        const Json& metrics) {
  ModelData data = start;
  data.weights.clear();
  for (const auto& [name, tensor] : weights) data.weights.emplace(name, tensor.to(dtype_of(config.weights)));
  data.provenance = {
      {"trained_by", fmt::format("weft {}", version())}, {"metrics", metrics}, {"training", config_to_json(config)}};
  return data;
}

}  // namespace weft
