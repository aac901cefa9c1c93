// The model that a run starts from, and the models that come out of it.
#pragma once

#include <filesystem>

#include "api/model_data.h"
#include "data/dataset.h"
#include "train/config.h"

namespace weft {

/// The model that a configuration speaks of, without its options: as its file has it, or a preset, whose weights are
/// yet to be made. Throws ConfigError, WeightError, IoError.
ModelData origin_of(const TrainConfig& config);

/// Fresh weights of a preset, or those of a file, for as many classes as the data set has, with its names as labels.
/// From a file the head is made anew where its classes are others. Throws ConfigError, WeightError.
ModelData starting_model(const TrainConfig& config, ModelData origin, const Dataset& data);

/// The same of a model that reads text, for a tokenizer of so many tokens; 0: of a number that nobody says. A preset is
/// made for them unless an option says otherwise; a model of a file is what it is. Throws ConfigError, WeightError.
ModelData starting_language_model(const TrainConfig& config, ModelData origin, std::int32_t tokens);

/// The model with these weights, in config's element type, and with what it was trained by, and to what success, in its
/// provenance.
ModelData trained_model(const ModelData& start, const TrainConfig& config, const Weights& weights, const Json& metrics);

}  // namespace weft
