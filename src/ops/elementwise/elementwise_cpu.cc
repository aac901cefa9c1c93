#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/elementwise/elementwise_cpu.cc"
#include <hwy/foreach_target.h>
// Highway wants foreach_target.h first.
#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

#include <array>
#include <string>

#include "kernel/math-inl.h"
#include "kernel/simd.h"
#include "ops/elementwise/broadcast.h"
#include "ops/elementwise/elementwise.h"

HWY_BEFORE_NAMESPACE();
namespace weft::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

template <class D, class V>
V apply(const Add&, D, V a, V b) {
  return hn::Add(a, b);
}

template <class D, class V>
V apply(const Mul&, D, V a, V b) {
  return hn::Mul(a, b);
}

template <class D, class V>
V apply(const Scale& op, D d, V x) {
  return hn::Mul(hn::Set(d, op.factor), x);
}

template <class D, class V>
V apply(const Lerp&, D d, V x, V shifted, V mix) {
  return hn::MulAdd(x, mix, hn::Mul(shifted, hn::Sub(hn::Set(d, 1.0F), mix)));
}

// Beyond the bounds the result is 1 or less than the smallest normal number.
template <class D, class V>
V apply(const Sigmoid&, D d, V x) {
  const V one = hn::Set(d, 1.0F);
  const V e = exp_in_range(d, hn::Clamp(hn::Neg(x), hn::Set(d, -87.0F), hn::Set(d, 88.0F)));
  return hn::IfThenElse(hn::IsNaN(x), x, hn::Div(one, hn::Add(one, e)));
}

template <class D, class V>
V apply(const Tanh&, D d, V x) {
  return hn::IfThenElse(hn::IsNaN(x), x, hn::Tanh(d, x));
}

template <class D, class V>
V apply(const SquaredRelu&, D d, V x) {
  return hn::IfThenZeroElse(hn::Lt(x, hn::Zero(d)), hn::Mul(x, x));  // a NaN is not below 0
}

template <class D, class V>
V apply(const Gelu&, D d, V x) {
  const V half = hn::Set(d, 0.5F);
  return hn::MulAdd(half, x, hn::Mul(half, abs_x_erf(d, x)));
}

// One row: `count` consecutive elements of the result. Input i starts at in[i] and repeats in[i][0] where repeats[i].
template <class A, std::size_t... kInput>
void run_row(const A& op, std::array<const float*, A::kArity> in, const std::array<bool, A::kArity>& repeats,
             float* out, std::int64_t count, std::index_sequence<kInput...>) {
  const hn::ScalableTag<float> d;
  const std::size_t lanes = hn::Lanes(d);
  // A repeated element becomes a vector in memory that the loop does not advance in.
  HWY_ALIGN float repeated[A::kArity][hn::MaxLanes(hn::ScalableTag<float>())];
  std::array<std::size_t, A::kArity> step;
  for (std::size_t i = 0; i < A::kArity; ++i) {
    step[i] = repeats[i] ? 0 : lanes;
    if (!repeats[i]) continue;
    hn::Store(hn::Set(d, *in[i]), d, repeated[i]);
    in[i] = repeated[i];
  }
  auto left = static_cast<std::size_t>(count);
  for (; left >= lanes; left -= lanes, out += lanes) {
    hn::StoreU(apply(op, d, hn::LoadU(d, in[kInput])...), d, out);
    ((in[kInput] += step[kInput]), ...);
  }
  if (left > 0) store_n(apply(op, d, load_n(d, in[kInput], left)...), d, out, left);
}

// Whole rows of `columns` elements; input i goes on by steps[i] from row to row: it has all of them, or one for all.
template <class A, std::size_t... kInput>
void run_rows(const A& op, std::array<const float*, A::kArity> in, const std::array<std::int64_t, A::kArity>& steps,
              float* out, std::int64_t rows, std::size_t columns, std::index_sequence<kInput...>) {
  const hn::ScalableTag<float> d;
  const std::size_t lanes = hn::Lanes(d);
  for (; rows > 0; --rows, out += columns) {
    std::size_t c = 0;
    for (; c + 2 * lanes <= columns; c += 2 * lanes) {
      const auto first = apply(op, d, hn::LoadU(d, in[kInput] + c)...);
      const auto second = apply(op, d, hn::LoadU(d, in[kInput] + c + lanes)...);
      hn::StoreU(first, d, out + c);
      hn::StoreU(second, d, out + c + lanes);
    }
    for (; c + lanes <= columns; c += lanes) hn::StoreU(apply(op, d, hn::LoadU(d, in[kInput] + c)...), d, out + c);
    if (c < columns) store_n(apply(op, d, load_n(d, in[kInput] + c, columns - c)...), d, out + c, columns - c);
    ((in[kInput] += steps[kInput]), ...);
  }
}

template <class A>
void run_tile(const A& op, const Broadcast& shape, const std::vector<bool>& complete, const float* const* in,
              float* out, std::int64_t begin, std::int64_t end) {
  constexpr auto kInputs = std::make_index_sequence<A::kArity>();
  std::array<bool, A::kArity> repeats;
  std::array<std::int64_t, A::kArity> steps;
  bool plain = shape.extents.size() <= 2 && begin % shape.inner() == 0 && end % shape.inner() == 0;
  for (std::size_t i = 0; i < A::kArity; ++i) {
    repeats[i] = shape.strides[i].back() == 0;
    steps[i] = complete[i] ? shape.inner() : shape.strides[i].front();
    plain = plain && !repeats[i] && (complete[i] || steps[i] == 0);
  }
  if (plain) {
    std::array<const float*, A::kArity> from;
    std::copy_n(in, A::kArity, from.begin());
    return run_rows(op, from, steps, out, (end - begin) / shape.inner(), static_cast<std::size_t>(shape.inner()),
                    kInputs);
  }
  std::int64_t row = begin / shape.inner();
  std::int64_t column = begin - row * shape.inner();
  for (std::int64_t element = begin; element < end; ++row, column = 0) {
    const std::int64_t count = std::min(end - element, shape.inner() - column);
    std::array<const float*, A::kArity> from;
    for (std::size_t i = 0; i < A::kArity; ++i) {
      from[i] = in[i] + (complete[i] ? element - begin : shape.row_offset(i, row) + (repeats[i] ? 0 : column));
    }
    run_row(op, from, repeats, out + (element - begin), count, kInputs);
    element += count;
  }
}

// Elements [begin, end) of the result; inputs that are complete, and the result, start there.
void elementwise_tile(const Elementwise& op, const Broadcast& shape, const std::vector<bool>& complete,
                      const float* const* in, float* out, std::int64_t begin, std::int64_t end) {
  std::visit([&](const auto& attributes) HWY_ATTR { run_tile(attributes, shape, complete, in, out, begin, end); }, op);
}

}  // namespace
}  // namespace weft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace weft {
namespace {

HWY_EXPORT(elementwise_tile);

class ElementwiseKernel final : public RowKernel {
 public:
  ElementwiseKernel(const Elementwise& op, const KernelRequest& request)
      : op_(op),
        name_("hwy:" + std::visit([](const auto& attributes) { return std::string(attributes.kName); }, op)),
        shape_(request.in, request.out[0].shape),
        rows_(row_count(request.out[0].shape)) {
    if (rows_ > 0) columns_ = request.out[0].shape.elements() / rows_;
    for (const TensorType& type : request.in) {
      complete_.push_back(type.shape.elements() == request.out[0].shape.elements());
    }
  }

  std::string_view name() const override { return name_; }
  // An input with all the elements of the result has them in the same order, whatever its 1s.
  bool may_overwrite(int i) const override { return complete_[static_cast<std::size_t>(i)]; }
  std::int64_t rows() const override { return rows_; }
  bool reads_by_rows(int i) const override { return complete_[static_cast<std::size_t>(i)]; }

  void run_rows(const RowArgs& args) const noexcept override {
    std::array<const float*, 3> in{};
    for (std::size_t i = 0; i < args.in.size(); ++i) in[i] = args.input(static_cast<int>(i));
    HWY_DYNAMIC_DISPATCH(elementwise_tile)
    (op_, shape_, complete_, in.data(), args.output(), args.begin * columns_, args.end * columns_);
  }

 private:
  Elementwise op_;
  std::string name_;
  Broadcast shape_;
  std::int64_t rows_, columns_ = 0;
  std::vector<bool> complete_;
};

}  // namespace

std::unique_ptr<Kernel> make_elementwise_kernel(const Elementwise& attributes, const KernelRequest& request) {
  return std::make_unique<ElementwiseKernel>(attributes, request);
}

}  // namespace weft
#endif
