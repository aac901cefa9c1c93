#include "torch/tile_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "torch/tile_kernels.cc"
#include <hwy/foreach_target.h>
// Highway wants foreach_target.h first.
#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "kernel/math-inl.h"
#include "torch/tile_kernels-inl.h"

HWY_BEFORE_NAMESPACE();
namespace weft::torch_engine::HWY_NAMESPACE {
namespace {

using weft::HWY_NAMESPACE::abs_x_erf;
using weft::HWY_NAMESPACE::exp_in_range;

enum class Store : std::uint8_t { kSet, kAdd, kBF16 };

template <std::size_t kInputs, Store kStore, class F, std::size_t... kInput>
HWY_INLINE void map_rows(F&& f, std::array<Operand, kInputs> in, Target y, std::int64_t rows, std::size_t columns,
                         std::index_sequence<kInput...>) {
  const std::size_t lanes = hn::Lanes(D());
  for (; rows > 0; --rows, y = y.behind(static_cast<std::int64_t>(columns))) {
    std::size_t i = 0;
    if constexpr (kStore == Store::kBF16) {  // two at once, which pack into one
      for (; i + 2 * lanes <= columns; i += 2 * lanes) {
        store_bf16(f(Whole{i}(in[kInput].at)...), f(Whole{i + lanes}(in[kInput].at)...), D(), y.bf16() + i);
      }
    }
    for_each_vector(columns - i, [&](auto load, auto store) HWY_ATTR {
      const V value = f(load(in[kInput].at + i)...);
      if constexpr (kStore == Store::kBF16) {
        store(value, y.bf16() + i);
      } else {
        store(kStore == Store::kAdd ? hn::Add(load(y.at + i), value) : value, y.at + i);
      }
    });
    ((in[kInput].at += in[kInput].is_row ? 0 : columns), ...);
  }
}

template <std::size_t kInputs, class F>
HWY_INLINE void map_with(F&& f, std::span<const Operand> in, Target y, std::int64_t rows, std::size_t columns) {
  std::array<Operand, kInputs> inputs;
  std::copy_n(in.begin(), kInputs, inputs.begin());
  if (std::ranges::none_of(inputs, &Operand::is_row)) {  // one long row
    columns *= static_cast<std::size_t>(rows);
    rows = 1;
  }
  constexpr auto kAll = std::make_index_sequence<kInputs>();
  if (y.is_bf16) return map_rows<kInputs, Store::kBF16>(f, inputs, y, rows, columns, kAll);
  if (y.adds) return map_rows<kInputs, Store::kAdd>(f, inputs, y, rows, columns, kAll);
  map_rows<kInputs, Store::kSet>(f, inputs, y, rows, columns, kAll);
}

// Beyond the bounds the result is 1 or less than the smallest normal number.
HWY_INLINE V sigmoid(V x) {
  const V e = exp_in_range(D(), hn::Clamp(hn::Neg(x), set(-87.0F), set(88.0F)));
  return hn::IfThenElse(hn::IsNaN(x), x, hn::Div(set(1), hn::Add(set(1), e)));
}

HWY_INLINE V gelu(V x) { return hn::MulAdd(set(0.5F), x, hn::Mul(set(0.5F), abs_x_erf(D(), x))); }

// Φ(x) + x·φ(x), with Φ(x) = (1 + erf(x/√2))/2 and φ(x) = e^(−x²/2)/√(2π), which is 0 in f32 from |x| = 13 on.
HWY_INLINE V gelu_slope(V x) {
  const D d;
  const V u = hn::Abs(x);
  const V erf_u = hn::IfThenElse(hn::Lt(u, set(1e-6F)), hn::Mul(u, set(0.797884561F)), hn::Div(abs_x_erf(d, x), u));
  const V half = hn::MulAdd(set(0.5F), hn::CopySign(erf_u, x), set(0.5F));
  const V exponent = hn::Max(hn::Mul(set(-0.5F), hn::Mul(x, x)), set(-87.0F));
  return hn::MulAdd(hn::Mul(x, set(0.398942280F)), exp_in_range(d, exponent), half);
}

void map_tile(Map function, std::span<const Operand> in, Target y, std::int64_t rows, std::size_t columns,
              float factor) {
  const auto one = [&](auto f) HWY_ATTR { map_with<1>(f, in, y, rows, columns); };
  const auto two = [&](auto f) HWY_ATTR { map_with<2>(f, in, y, rows, columns); };
  switch (function) {
    case Map::kCopy:
      return one([](V a) HWY_ATTR { return a; });
    case Map::kAdd:
      return two([](V a, V b) HWY_ATTR { return hn::Add(a, b); });
    case Map::kMul:
      return two([](V a, V b) HWY_ATTR { return hn::Mul(a, b); });
    case Map::kScale:
      return one([=](V a) HWY_ATTR { return hn::Mul(a, set(factor)); });
    case Map::kLerp:
      return map_with<3>([](V a, V b, V c) HWY_ATTR { return hn::MulAdd(a, c, hn::Mul(b, hn::Sub(set(1), c))); }, in, y,
                         rows, columns);
    case Map::kSigmoid:
      return one([](V a) HWY_ATTR { return sigmoid(a); });
    case Map::kTanh:
      return one([](V a) HWY_ATTR { return hn::IfThenElse(hn::IsNaN(a), a, hn::Tanh(D(), a)); });
    case Map::kSquaredRelu:  // a NaN is not below 0
      return one([](V a) HWY_ATTR { return hn::IfThenZeroElse(hn::Lt(a, hn::Zero(D())), hn::Mul(a, a)); });
    case Map::kGelu:
      return one([](V a) HWY_ATTR { return gelu(a); });
    case Map::kSigmoidGradient:
      return two([](V g, V s) HWY_ATTR { return hn::Mul(g, hn::NegMulAdd(s, s, s)); });
    case Map::kTanhGradient:
      return two([](V g, V t) HWY_ATTR { return hn::Mul(g, hn::NegMulAdd(t, t, set(1))); });
    case Map::kSquaredReluGradient:
      return two([](V g, V x)
                     HWY_ATTR { return hn::IfThenZeroElse(hn::Lt(x, hn::Zero(D())), hn::Mul(g, hn::Add(x, x))); });
    case Map::kGeluGradient:
      return two([](V g, V x) HWY_ATTR { return hn::Mul(g, gelu_slope(x)); });
  }
}

void add_rows_tile(const float* g, float* sum, std::int64_t rows, std::size_t columns) {
  for_each_vector(columns, [&](auto load, auto store) HWY_ATTR {
    V total = hn::Zero(D());
    const float* from = g;
    for (std::int64_t row = 0; row < rows; ++row, from += columns) total = hn::Add(total, load(from));
    store(hn::Add(load(sum), total), sum);
  });
}

void add_products_tile(const float* g, const float* x, float* sum, std::int64_t rows, std::size_t columns) {
  for_each_vector(columns, [&](auto load, auto store) HWY_ATTR {
    V total = hn::Zero(D());
    const float* a = g;
    const float* b = x;
    for (std::int64_t row = 0; row < rows; ++row, a += columns, b += columns) {
      total = hn::MulAdd(load(a), load(b), total);
    }
    store(hn::Add(load(sum), total), sum);
  });
}

void lerp_backward_tile(const float* g, const float* x, const float* s, const float* m, Target gx, Target gs,
                        float* mix, std::int64_t rows, std::size_t columns) {
  for_each_vector(columns, [&](auto load, auto store) HWY_ATTR {
    const V factor = load(m);
    const V rest = hn::Sub(set(1), factor);
    V total = hn::Zero(D());
    for (std::int64_t row = 0; row < rows; ++row) {
      const std::size_t offset = static_cast<std::size_t>(row) * columns;
      const V gradient = load(g + offset);
      if (gx) put(hn::Mul(gradient, factor), gx, offset, load, store);
      if (gs) put(hn::Mul(gradient, rest), gs, offset, load, store);
      if (mix) total = hn::MulAdd(gradient, hn::Sub(load(x + offset), load(s + offset)), total);
    }
    if (mix) store(hn::Add(load(mix), total), mix);
  });
}

struct Moments {
  float mean, factor;  // the factor is 1/√(variance + eps)
};

std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

// Σ over the row of f(x).
template <class F>
HWY_INLINE float sum_over(const float* x, std::size_t columns, F&& f) {
  const D d;
  const std::size_t lanes = hn::Lanes(d);
  V even = hn::Zero(d), odd = even;
  std::size_t i = 0;
  for (; i + 2 * lanes <= columns; i += 2 * lanes) {
    even = hn::Add(even, f(hn::LoadU(d, x + i)));
    odd = hn::Add(odd, f(hn::LoadU(d, x + i + lanes)));
  }
  for (; i + lanes <= columns; i += lanes) even = hn::Add(even, f(hn::LoadU(d, x + i)));
  if (i < columns) {
    odd = hn::Add(odd, hn::IfThenElseZero(hn::FirstN(d, columns - i), f(load_n(d, x + i, columns - i))));
  }
  return hn::GetLane(hn::SumOfLanes(d, hn::Add(even, odd)));
}

// Of some rows.
HWY_INLINE void moments_of(const float* x, std::int64_t rows, std::size_t columns, float eps, Moments* moments) {
  const auto count = static_cast<float>(columns);
  for (std::int64_t row = 0; row < rows; ++row) {
    moments[row].mean = sum_over(x + index(row) * columns, columns, [](V v) HWY_ATTR { return v; }) / count;
  }
  for (std::int64_t row = 0; row < rows; ++row) {
    const V center = set(moments[row].mean);
    const float squares = sum_over(x + index(row) * columns, columns, [&](V v) HWY_ATTR {
      const V difference = hn::Sub(v, center);
      return hn::Mul(difference, difference);
    });
    moments[row].factor = 1 / std::sqrt(squares / count + eps);
  }
}

// Rows whose sums are found before the first is written: the sums of one row wait for each other, those of several do
// not.
constexpr std::int64_t kTogether = 8;

void norm_forward_tile(const float* x, const float* gamma, const float* beta, Target y, std::int64_t rows,
                       std::size_t columns, float eps) {
  const auto step = static_cast<std::int64_t>(columns);
  for (; rows > 0; rows -= kTogether) {
    const std::int64_t together = std::min(rows, kTogether);
    std::array<Moments, kTogether> moments;
    moments_of(x, together, columns, eps, moments.data());
    for (std::int64_t row = 0; row < together; ++row, x += step, y = y.behind(step)) {
      const V mean = set(moments[index(row)].mean);
      const V factor = set(moments[index(row)].factor);
      for_each_vector(columns, [&](auto load, auto store) HWY_ATTR {
        const V value = hn::MulAdd(hn::Mul(hn::Sub(load(x), mean), factor), load(gamma), load(beta));
        if (y.is_bf16) {
          store(value, y.bf16());
        } else {
          store(value, y.at);
        }
      });
    }
  }
}

// With z = (x − mean)·f, f = 1/√(variance + eps) and q = g·gamma: gx = f·(q − mean(q) − z·mean(q·z)).
void norm_backward_tile(const float* g, const float* x, const float* gamma, Target gx, float* gamma_sum,
                        float* beta_sum, std::int64_t rows, std::size_t columns, float eps) {
  const auto count = static_cast<float>(columns);
  for (; rows > 0; rows -= kTogether) {
    const std::int64_t together = std::min(rows, kTogether);
    std::array<Moments, kTogether> moments;
    std::array<float, kTogether> means_q, means_qz;
    moments_of(x, together, columns, eps, moments.data());
    for (std::int64_t row = 0; row < together; ++row) {
      const V mean = set(moments[index(row)].mean);
      const V factor = set(moments[index(row)].factor);
      V sum_q = hn::Zero(D()), sum_qz = sum_q;
      const std::size_t at = index(row) * columns;
      for_each_vector(columns, [&](auto load, auto) HWY_ATTR {
        const V q = hn::Mul(load(g + at), load(gamma));  // 0 beyond the row
        sum_q = hn::Add(sum_q, q);
        sum_qz = hn::MulAdd(q, hn::Mul(hn::Sub(load(x + at), mean), factor), sum_qz);
      });
      means_q[index(row)] = hn::GetLane(hn::SumOfLanes(D(), sum_q)) / count;
      means_qz[index(row)] = hn::GetLane(hn::SumOfLanes(D(), sum_qz)) / count;
    }
    for_each_vector(columns, [&](auto load, auto store) HWY_ATTR {
      const V scale = load(gamma);
      V of_gamma = hn::Zero(D()), of_beta = of_gamma;
      for (std::int64_t row = 0; row < together; ++row) {
        const std::size_t at = index(row) * columns;
        const V factor = set(moments[index(row)].factor);
        const V z = hn::Mul(hn::Sub(load(x + at), set(moments[index(row)].mean)), factor);
        const V gradient = load(g + at);
        of_gamma = hn::MulAdd(gradient, z, of_gamma);
        of_beta = hn::Add(gradient, of_beta);
        const V centred = hn::Sub(hn::Mul(gradient, scale), set(means_q[index(row)]));
        if (gx) put(hn::Mul(factor, hn::NegMulAdd(z, set(means_qz[index(row)]), centred)), gx, at, load, store);
      }
      if (gamma_sum) store(hn::Add(load(gamma_sum), of_gamma), gamma_sum);
      if (beta_sum) store(hn::Add(load(beta_sum), of_beta), beta_sum);
    });
    x += index(together) * columns;
    g += index(together) * columns;
    if (gx) gx = gx.behind(together * static_cast<std::int64_t>(columns));
  }
}

void round_to_bf16_tile(const float* x, std::uint16_t* y, std::size_t count) {
  const D d;
  const std::size_t lanes = hn::Lanes(d);
  std::size_t i = 0;
  for (; i + 2 * lanes <= count; i += 2 * lanes) store_bf16(hn::LoadU(d, x + i), hn::LoadU(d, x + i + lanes), d, y + i);
  for (; i + lanes <= count; i += lanes) store_bf16(hn::LoadU(d, x + i), d, y + i);
  if (i < count) store_bf16_n(load_n(d, x + i, count - i), d, y + i, count - i);
}

}  // namespace
}  // namespace weft::torch_engine::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace weft::torch_engine {
namespace {

HWY_EXPORT(map_tile);
HWY_EXPORT(add_rows_tile);
HWY_EXPORT(add_products_tile);
HWY_EXPORT(lerp_backward_tile);
HWY_EXPORT(norm_forward_tile);
HWY_EXPORT(norm_backward_tile);
HWY_EXPORT(round_to_bf16_tile);

}  // namespace

void map(Map function, std::span<const Operand> in, Target y, std::int64_t rows, std::size_t columns, float factor) {
  HWY_DYNAMIC_DISPATCH(map_tile)(function, in, y, rows, columns, factor);
}

void add_rows(const float* g, float* sum, std::int64_t rows, std::size_t columns) {
  HWY_DYNAMIC_DISPATCH(add_rows_tile)(g, sum, rows, columns);
}

void add_rows_of_products(const float* g, const float* x, float* sum, std::int64_t rows, std::size_t columns) {
  HWY_DYNAMIC_DISPATCH(add_products_tile)(g, x, sum, rows, columns);
}

void lerp_backward(const float* g, const float* x, const float* s, const float* m, Target gx, Target gs, float* mix,
                   std::int64_t rows, std::size_t columns) {
  HWY_DYNAMIC_DISPATCH(lerp_backward_tile)(g, x, s, m, gx, gs, mix, rows, columns);
}

void norm_forward(const float* x, const float* gamma, const float* beta, Target y, std::int64_t rows,
                  std::size_t columns, float eps) {
  HWY_DYNAMIC_DISPATCH(norm_forward_tile)(x, gamma, beta, y, rows, columns, eps);
}

void norm_backward(const float* g, const float* x, const float* gamma, Target gx, float* gamma_sum, float* beta_sum,
                   std::int64_t rows, std::size_t columns, float eps) {
  HWY_DYNAMIC_DISPATCH(norm_backward_tile)(g, x, gamma, gx, gamma_sum, beta_sum, rows, columns, eps);
}

void round_to_bf16(const float* x, std::uint16_t* y, std::size_t count) {
  HWY_DYNAMIC_DISPATCH(round_to_bf16_tile)(x, y, count);
}

}  // namespace weft::torch_engine
#endif
