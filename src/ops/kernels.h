// From an operation to its CPU kernel.
#pragma once

#include <memory>

#include "graph/operation.h"
#include "kernel/kernel.h"

namespace weft {

/// The best kernel for this operation, these shapes and this machine. Throws UnsupportedError for a type that no kernel
/// serves.
std::unique_ptr<Kernel> make_kernel(const Operation& operation, const KernelRequest& request);

/// The same, ready to run on its own.
std::unique_ptr<Kernel> make_lone_kernel(const Operation& operation, const KernelRequest& request);

}  // namespace weft
