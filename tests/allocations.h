// Counts what operator new gives out, in this whole process (shared libraries included).
#pragma once

#include <cstddef>
#include <cstdint>

namespace weft::tests {

/// Counts from its construction on.
class AllocationCount {
 public:
  AllocationCount();
  std::size_t calls() const;
  /// Bytes of the largest single allocation.
  std::size_t largest() const;
  /// Bytes given out and not yet taken back; negative where more of what was given out before was taken back.
  std::int64_t kept() const;

 private:
  std::int64_t live_before_;
};

}  // namespace weft::tests
