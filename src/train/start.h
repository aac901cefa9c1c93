// The model that a run starts from, and the models that come out of it.
#pragma once

#include <filesystem>

#include "api/model_data.h"
#include "data/dataset.h"
#include "train/config.h"

namespace weft {

/// Fresh weights of a preset, or those of a file, for as many classes as the data set has, with its names as labels.
/// From a file the head is made anew where its classes are others. Throws ConfigError, WeightError, IoError.
ModelData starting_model(const TrainConfig& config, const Dataset& data);

/// What the model's provenance says of its training.
struct TrainingMetrics {
  std::int64_t steps = 0;
  std::int64_t epochs = 0;
  double loss = 0;   // of the last line of the log
  double top1 = -1;  // −1: not evaluated
  double top5 = -1;
};

/// The model with these weights, in config's element type, and with what it was trained by in its provenance.
ModelData trained_model(const ModelData& start, const TrainConfig& config, const Weights& weights,
                        const TrainingMetrics& metrics);

}  // namespace weft
