// Training on pictures whose classes are known.
#pragma once

#include <memory>

#include "train/task.h"
#include "train/task_setting.h"

namespace weft {

std::unique_ptr<Task> make_picture_task(TaskSetting setting);

}  // namespace weft
