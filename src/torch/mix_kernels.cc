#include "torch/mix_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "torch/mix_kernels.cc"
#include <hwy/foreach_target.h>
// Highway wants foreach_target.h first.
#include <hwy/highway.h>

#include <algorithm>

#include "torch/tile_kernels-inl.h"

HWY_BEFORE_NAMESPACE();
namespace weft::torch_engine::HWY_NAMESPACE {
namespace {

// Rows that a pass over the columns takes at once.
constexpr std::int64_t kTogether = 8;

constexpr std::size_t kGroups = 5;

// Of a row of s, for each group the row of x that it is of; `nothing` is a row of zeros.
using Sources = std::array<const float*, kGroups>;

HWY_INLINE Sources sources_of(const MixShape& shape, const float* x, const float* nothing, std::int64_t token) {
  const std::int64_t row = token / shape.width;
  const std::int64_t column = token - row * shape.width;
  const auto at = [&](std::int64_t r, std::int64_t c) HWY_ATTR {
    const bool inside = r >= 0 && r < shape.height && c >= 0 && c < shape.width;
    return inside ? x + (r * shape.width + c) * shape.columns : nothing;
  };
  return {at(row, column - shape.pixels), at(row, column + shape.pixels), at(row - shape.pixels, column),
          at(row + shape.pixels, column), at(row, column)};
}

// The groups that a vector of channels has: from `first` on, up to the one before `end`.
struct Groups {
  std::size_t first = 0, end = 0;

  // Goes on to the vector that begins with this channel.
  HWY_INLINE void go_to(const MixShape& shape, std::size_t channel) {
    const auto lanes = static_cast<std::int64_t>(hn::Lanes(D()));
    const auto begin = static_cast<std::int64_t>(channel);
    while (first + 1 < kGroups && shape.cuts[first + 1] <= begin) ++first;
    end = first + 1;
    while (end < kGroups && shape.cuts[end] < begin + lanes) ++end;
  }
};

// A vector of s.
template <class Load>
HWY_INLINE V shifted(const MixShape& shape, const Sources& sources, const Groups& groups, const Load& load) {
  V value = load(sources[groups.first]);
  for (std::size_t group = groups.first + 1; group < groups.end; ++group) {
    const auto own = static_cast<std::size_t>(shape.cuts[group]) - load.i;
    value = hn::IfThenElse(hn::FirstN(D(), own), value, load(sources[group]));
  }
  return value;
}

// s of one entry, or added to what is there.
HWY_INLINE void shift_entry(const MixShape& shape, const float* x, const float* nothing, Target y) {
  for (std::int64_t token = 0; token < shape.rows(); ++token, y = y.behind(shape.columns)) {
    const Sources sources = sources_of(shape, x, nothing, token);
    Groups groups;
    for_each_vector(static_cast<std::size_t>(shape.columns), [&](auto load, auto store) HWY_ATTR {
      groups.go_to(shape, load.i);
      put(shifted(shape, sources, groups, load), y, 0, load, store);
    });
  }
}

void shift_tile(const MixShape& shape, const float* x, Target y, std::int64_t entries, float* nothing) {
  const std::int64_t elements = shape.rows() * shape.columns;
  std::fill_n(nothing, shape.columns, 0.0F);
  for (; entries > 0; --entries, x += elements, y = y.behind(elements)) shift_entry(shape, x, nothing, y);
}

template <std::size_t kMixes, bool kBF16>
HWY_INLINE void forward_of(const MixShape& shape, const float* x, std::span<const float* const> mixes,
                           std::span<const Target> y, std::int64_t entries, const float* nothing) {
  const auto columns = static_cast<std::size_t>(shape.columns);
  std::size_t done = 0;  // elements of y
  for (; entries > 0; --entries, x += shape.rows() * shape.columns) {
    for (std::int64_t token = 0; token < shape.rows(); ++token, done += columns) {
      const Sources sources = sources_of(shape, x, nothing, token);
      const float* const own = x + token * shape.columns;
      Groups groups;
      for_each_vector(columns, [&](auto load, auto store) HWY_ATTR {
        groups.go_to(shape, load.i);
        const V s = shifted(shape, sources, groups, load);
        const V difference = hn::Sub(load(own), s);
        for (std::size_t j = 0; j < kMixes; ++j) {
          const V value = hn::MulAdd(difference, load(mixes[j]), s);
          if constexpr (kBF16) {
            store(value, y[j].bf16() + done);
          } else {
            store(value, y[j].at + done);
          }
        }
      });
    }
  }
}

template <std::size_t kMixes>
HWY_INLINE void backward_of(const MixShape& shape, std::span<const float* const> g, const float* x,
                            std::span<const float* const> mixes, Target gx, std::span<float* const> mix_sums,
                            std::int64_t entries, float* gs, const float* nothing) {
  const auto columns = static_cast<std::size_t>(shape.columns);
  const std::size_t elements = static_cast<std::size_t>(shape.rows()) * columns;
  const bool wants_mixes = std::ranges::any_of(mix_sums, [](const float* sum) { return sum != nullptr; });
  MixShape back = shape;
  back.pixels = -shape.pixels;
  for (std::size_t first = 0; entries > 0; --entries, x += elements, first += elements) {
    for (std::int64_t begin = 0; begin < shape.rows(); begin += kTogether) {
      const std::int64_t end = std::min(begin + kTogether, shape.rows());
      std::array<Sources, kTogether> sources{};
      for (std::int64_t token = begin; wants_mixes && token < end; ++token) {
        sources[static_cast<std::size_t>(token - begin)] = sources_of(shape, x, nothing, token);
      }
      Groups groups;
      for_each_vector(columns, [&](auto load, auto store) HWY_ATTR {
        groups.go_to(shape, load.i);
        V mix[kMixes], sum[kMixes];
        for (std::size_t j = 0; j < kMixes; ++j) {
          mix[j] = load(mixes[j]);
          sum[j] = hn::Zero(D());
        }
        for (std::int64_t token = begin; token < end; ++token) {
          const std::size_t at = static_cast<std::size_t>(token) * columns;
          V total = hn::Zero(D());
          V share = total;  // of x itself
          V difference = total;
          if (wants_mixes) {
            const Sources& own = sources[static_cast<std::size_t>(token - begin)];
            difference = hn::Sub(load(x + at), shifted(shape, own, groups, load));
          }
          for (std::size_t j = 0; j < kMixes; ++j) {
            const V gradient = load(g[j] + first + at);
            total = hn::Add(total, gradient);
            share = hn::MulAdd(gradient, mix[j], share);
            sum[j] = hn::MulAdd(gradient, difference, sum[j]);
          }
          if (!gx) continue;
          put(share, gx, first + at, load, store);
          store(hn::Sub(total, share), gs + at);
        }
        for (std::size_t j = 0; j < kMixes; ++j) {
          if (mix_sums[j]) store(hn::Add(load(mix_sums[j]), sum[j]), mix_sums[j]);
        }
      });
    }
    if (gx) shift_entry(back, gs, nothing, {gx.at + first, true});
  }
}

// Calls f with the number of mixes as a constant.
template <class F>
HWY_INLINE void with_count(std::size_t mixes, F&& f) {
  switch (mixes) {
    case 1:
      return f(std::integral_constant<std::size_t, 1>());
    case 2:
      return f(std::integral_constant<std::size_t, 2>());
    case 3:
      return f(std::integral_constant<std::size_t, 3>());
    default:
      return f(std::integral_constant<std::size_t, kMaxMixes>());
  }
}

void mix_forward_tile(const MixShape& shape, const float* x, std::span<const float* const> mixes,
                      std::span<const Target> y, std::int64_t entries, float* nothing) {
  std::fill_n(nothing, shape.columns, 0.0F);
  with_count(mixes.size(), [&](auto count) HWY_ATTR {
    if (y[0].is_bf16) return forward_of<count(), true>(shape, x, mixes, y, entries, nothing);
    forward_of<count(), false>(shape, x, mixes, y, entries, nothing);
  });
}

void mix_backward_tile(const MixShape& shape, std::span<const float* const> g, const float* x,
                       std::span<const float* const> mixes, Target gx, std::span<float* const> mix_sums,
                       std::int64_t entries, float* gs, float* nothing) {
  std::fill_n(nothing, shape.columns, 0.0F);
  with_count(mixes.size(), [&](auto count) HWY_ATTR {
    backward_of<count()>(shape, g, x, mixes, gx, mix_sums, entries, gs, nothing);
  });
}

}  // namespace
}  // namespace weft::torch_engine::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace weft::torch_engine {
namespace {

HWY_EXPORT(shift_tile);
HWY_EXPORT(mix_forward_tile);
HWY_EXPORT(mix_backward_tile);

}  // namespace

std::int64_t mix_scratch_floats(const MixShape& shape) { return (shape.rows() + 1) * shape.columns; }

void shift(const MixShape& shape, const float* x, Target y, std::int64_t entries, float* scratch) {
  HWY_DYNAMIC_DISPATCH(shift_tile)(shape, x, y, entries, scratch);
}

void mix_forward(const MixShape& shape, const float* x, std::span<const float* const> mixes, std::span<const Target> y,
                 std::int64_t entries, float* scratch) {
  HWY_DYNAMIC_DISPATCH(mix_forward_tile)(shape, x, mixes, y, entries, scratch);
}

void mix_backward(const MixShape& shape, std::span<const float* const> g, const float* x,
                  std::span<const float* const> mixes, Target gx, std::span<float* const> mix_sums,
                  std::int64_t entries, float* scratch) {
  HWY_DYNAMIC_DISPATCH(mix_backward_tile)
  (shape, g, x, mixes, gx, mix_sums, entries, scratch + shape.columns, scratch);
}

}  // namespace weft::torch_engine
#endif
