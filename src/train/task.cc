#include "train/task.h"

#include "train/picture_task.h"
#include "train/start.h"
#include "train/text_task.h"

namespace weft {

std::unique_ptr<Task> make_task(const TrainConfig& config, const RunOptions& options,
                                std::shared_ptr<Processes> processes) {
  ModelData origin = origin_of(config);
  const bool text = origin.architecture->language() != nullptr;
  TaskSetting setting{config, options, std::move(processes), std::move(origin)};
  if (text) return make_text_task(std::move(setting));
  return make_picture_task(std::move(setting));
}

}  // namespace weft
