// Counts what operator new gives out, in this whole process (shared libraries included).
#pragma once

#include <cstddef>

namespace weft::tests {

/// Counts from its construction on.
class AllocationCount {
 public:
  AllocationCount();
  std::size_t calls() const;
  /// Bytes of the largest single allocation.
  std::size_t largest() const;
};

}  // namespace weft::tests
