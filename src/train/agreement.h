// That all processes of a run mean the same run.
#pragma once

#include "core/json.h"
#include "torch/processes.h"

namespace weft {

/// Throws ConfigError, in all processes alike, naming the first process and fact that differ from those of rank 0.
/// `facts` is an object.
void require_agreement(Processes& processes, const Json& facts);

}  // namespace weft
