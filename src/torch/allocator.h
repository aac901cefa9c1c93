// Memory for training steps, which want the same tensors again and again.
#pragma once

namespace weft::torch_engine {

/// From now on this process's libtorch keeps the large blocks of CPU memory that it frees, for later tensors of about
/// their size; what is in use and what is kept is at most half as much again as was in use at once. A step is half as
/// long again when the system has to provide (and to clear) its pages anew each time.
void keep_freed_memory();

}  // namespace weft::torch_engine
