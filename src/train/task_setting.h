// What each task is made of.
#pragma once

#include <memory>

#include "api/model_data.h"
#include "torch/processes.h"
#include "train/config.h"
#include "train/run.h"

namespace weft {

struct TaskSetting {
  TrainConfig config;
  RunOptions options;
  std::shared_ptr<Processes> processes;
  ModelData origin;  // origin_of(config)
};

}  // namespace weft
