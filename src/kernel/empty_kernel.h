// The kernel for results without elements.
#pragma once

#include <string_view>

#include "kernel/kernel.h"

namespace weft {

/// Computes nothing; where products would refuse an extent of 0.
class EmptyKernel final : public Kernel {
 public:
  /// `name` is the operator's, with "empty:" before it, and outlives the kernel.
  explicit EmptyKernel(std::string_view name) : name_(name) {}
  std::string_view name() const override { return name_; }
  void run(const KernelArgs&) const noexcept override {}

 private:
  std::string_view name_;
};

}  // namespace weft
