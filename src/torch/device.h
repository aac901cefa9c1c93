// What the component's entry points share: the device, its threads, and errors as weft tells them.
#pragma once

#include <torch/torch.h>

#include <string>
#include <string_view>

#include "core/format.h"
#include "torch/engine.h"
#include "torch/executor.h"

namespace weft::torch_engine {

/// Sets the threads, libtorch's for the whole process, and says how graphs are run. Throws as load_torch_engine says.
ExecutorOptions open_device(const TorchOptions& options);
/// "libtorch 1.13.0 on cpu"
std::string describe(const at::TensorOptions& tensors);
/// Throws UnsupportedError when the caller is another version than this library.
void check_version(std::string_view caller);

/// libtorch's exceptions, in flight, as weft's, in one line. Called in a handler.
[[noreturn]] void rethrow_translated();

template <class F>
auto translated(F&& f) {
  try {
    return f();
  } catch (const c10::Error&) {
    rethrow_translated();
  }
}

}  // namespace weft::torch_engine
