// Training on text: which token follows.
#pragma once

#include <memory>

#include "train/task.h"
#include "train/task_setting.h"

namespace weft {

std::unique_ptr<Task> make_text_task(TaskSetting setting);

}  // namespace weft
