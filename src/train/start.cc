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

ModelData fresh_model(const TrainConfig& config, int classes) {
  const auto [family, preset] = find_preset(config.model);
  Json options = config.options;
  set_default(options, "num_classes", classes);
  if (config.image_size > 0) set_default(options, "img_size", {config.image_size, config.image_size});
  Json model = preset->config;
  model.update(options);
  ModelData data;
  data.architecture = family->configure(model);
  data.weights = initial_weights(*data.architecture, config.seed);
  data.preprocess = preprocess_of(config, default_preprocess(*data.architecture));
  return data;
}

// Weights of the file wherever they fit; a head for other classes starts anew.
ModelData model_from_file(const TrainConfig& config, const Dataset& dataset) {
  ModelData data = read_model_file(config.from, {});
  const int old_classes = data.architecture->classes();
  const bool same_classes =
      old_classes == dataset.classes() && (data.labels.empty() || data.labels == dataset.class_names());
  Json model = data.architecture->config();
  model.update(config.options);
  model["num_classes"] = dataset.classes();
  data.architecture = find_family(data.architecture->family()).configure(model);
  const auto graph = training_graph(
      *data.architecture,
      {1, data.architecture->in_channels(), data.architecture->native_size()[0], data.architecture->native_size()[1]});
  const std::vector<int> layers = layers_of_parameters(*graph, *data.architecture);
  Weights weights = initial_weights(*data.architecture, config.seed);
  std::string wrong;
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const Graph::ValueInfo& parameter = graph->value(graph->parameters()[i]);
    const auto own = data.weights.find(parameter.name);
    const bool head = layers[i] > data.architecture->depth();
    const bool of_classes = head && (own == data.weights.end() || own->second.shape()[0] == old_classes);
    if (of_classes && !same_classes) continue;
    if (own != data.weights.end() && own->second.shape() == parameter.type.shape) {
      weights[parameter.name] = own->second.to(DType::kF32).clone();
    } else if (!head) {
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

DType dtype_of(WeightDType weights) {
  if (weights == WeightDType::kBF16) return DType::kBF16;
  return weights == WeightDType::kF16 ? DType::kF16 : DType::kF32;
}

}  // namespace

ModelData starting_model(const TrainConfig& config, const Dataset& dataset) {
  ModelData data = config.from.empty() ? fresh_model(config, dataset.classes()) : model_from_file(config, dataset);
  require<ConfigError>(data.architecture->classes() == dataset.classes(), "train",
                       "the model has {} classes, {} has {}", data.architecture->classes(), dataset.name(),
                       dataset.classes());
  data.labels = dataset.class_names();
  data.findings.clear();
  check_weights(data, config.from.empty() ? config.model : config.from);
  return data;
}

ModelData trained_model(const ModelData& start, const TrainConfig& config, const Weights& weights,
                        const TrainingMetrics& metrics) {
  ModelData data = start;
  data.weights.clear();
  for (const auto& [name, tensor] : weights) data.weights.emplace(name, tensor.to(dtype_of(config.weights)));
  Json result = {{"steps", metrics.steps}, {"epochs", metrics.epochs}, {"loss", metrics.loss}};
  if (metrics.top1 >= 0) result["top1"] = metrics.top1;
  if (metrics.top5 >= 0) result["top5"] = metrics.top5;
  data.provenance = {
      {"trained_by", fmt::format("weft {}", version())}, {"metrics", result}, {"training", config_to_json(config)}};
  return data;
}

}  // namespace weft
