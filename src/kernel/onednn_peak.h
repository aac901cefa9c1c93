// How fast this machine multiplies matrices at best: what the speed of a model is held against.
#pragma once

#include <vector>

#include "weft/tensor.h"

namespace weft::onednn {

/// Products of [256,768] by [768,768] on prepacked weights, one after the other on each of so many threads, on data of
/// their own, all at once.
///
///   kF32   f32 · f32 → f32
///   kBF16  bf16 · bf16 → bf16, with sums in f32
///   kI8    u8 · s8 → f32
class MatrixPeak {
 public:
  /// `threads` ≥ 1. Throws UnsupportedError for another type.
  MatrixPeak(DType precision, int threads);
  ~MatrixPeak();
  MatrixPeak(MatrixPeak&&) noexcept;

  /// Operations a second of all threads together, two per multiply-accumulate; 0 where the CPU does not multiply the
  /// type in hardware. The best of several repetitions of some milliseconds each.
  double measure() const;

 private:
  struct Lane;  // what one thread multiplies
  std::vector<Lane> lanes_;
  int products_ = 1;  // of a repetition
};

}  // namespace weft::onednn
