// The shift and the mixes of it (Vision-RWKV's token mixing) at once, forward and backward: SIMD kernels for one
// thread.
//
//   s = QShift(x)    y_j = x·m_j + s·(1 − m_j)
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "torch/tile_kernels.h"

namespace weft::torch_engine {

/// Of the shift: x is [entries, height·width, columns].
struct MixShape {
  std::int64_t height, width, columns;
  std::int64_t pixels;
  std::array<std::int64_t, 5> cuts;  // first channel of each group (ops/q_shift/q_shift.h)
  std::int64_t rows() const { return height * width; }
};

/// Most mixes of one shift.
constexpr std::size_t kMaxMixes = 4;

/// What the functions below want as scratch.
std::int64_t mix_scratch_floats(const MixShape& shape);

/// y_j, all of which may be bf16, for each mix m_j [columns].
void mix_forward(const MixShape& shape, const float* x, std::span<const float* const> mixes, std::span<const Target> y,
                 std::int64_t entries, float* scratch);

/// From the gradients g_j of y_j those of x, and of the mixes, which are added to `mix_sums` unless they are null.
void mix_backward(const MixShape& shape, std::span<const float* const> g, const float* x,
                  std::span<const float* const> mixes, Target gx, std::span<float* const> mix_sums,
                  std::int64_t entries, float* scratch);

/// s alone, or added to what is there; with `pixels` negated its transpose. x is not y.
void shift(const MixShape& shape, const float* x, Target y, std::int64_t entries, float* scratch);

}  // namespace weft::torch_engine
