#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/elementwise/elementwise_cpu.cc"
#include <hwy/foreach_target.h>
// Highway wants foreach_target.h first.
#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

#include <algorithm>
#include <array>
#include <limits>
#include <string>

#include "kernel/encode-inl.h"
#include "kernel/math-inl.h"
#include "kernel/simd.h"
#include "ops/elementwise/broadcast.h"
#include "ops/elementwise/elementwise.h"

#ifndef WEFT_ELEMENTWISE_ROW_INPUT_
#define WEFT_ELEMENTWISE_ROW_INPUT_
namespace weft {
namespace {

// An input of which each row of the result wants one row.
struct RowInput {
  const std::byte* at = nullptr;
  std::size_t step = 0;  // bytes to the next row; 0: one row for all
  bool is_bf16 = false;
};

// Sigmoid for a session in fewer bits: within 2^-11.
struct RoughSigmoid {
  static constexpr std::size_t kArity = 1;
};

}  // namespace
}  // namespace weft
#endif

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

// With e^−x = 2^n·2^f, n an integer and |f| ≤ 1/2: the cubic with the smallest relative error, 2^-13.7 (Lawson's
// iteration), and a reciprocal of 12 bits, which each x86 has.
template <class D, class V>
V apply([[maybe_unused]] const RoughSigmoid& op, D d, V x) {
#if HWY_ARCH_X86
  const auto set = [d](float value) HWY_ATTR { return hn::Set(d, value); };
  const V t = hn::Clamp(hn::Mul(x, set(-1.44269504F)), set(-126.0F), set(126.0F));
  // Added to this, t loses its fraction, and the last bits show the exponent of 2^n.
  const V to_exponent = set(0x1.8p23F + 127);
  const V shifted = hn::Add(t, to_exponent);
  const V f = hn::Sub(t, hn::Sub(shifted, to_exponent));
  V p = hn::MulAdd(f, set(0.055171684F), set(0.242611213F));
  p = hn::MulAdd(f, p, set(0.693260991F));
  p = hn::MulAdd(f, p, set(0.999928068F));
  const V power = hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(hn::RebindToSigned<D>(), shifted)));
  return hn::IfThenElse(hn::IsNaN(x), x, hn::ApproximateReciprocal(hn::MulAdd(p, power, set(1.0F))));
#else
  return apply(Sigmoid(), d, x);
#endif
}

template <class D, class V>
V apply(const Tanh&, D d, V x) {
  return hn::IfThenElse(hn::IsNaN(x), x, hn::Tanh(d, x));
}

template <class D, class V>
V apply(const Relu&, D d, V x) {
  return hn::IfThenZeroElse(hn::Lt(x, hn::Zero(d)), x);  // a NaN is not below 0
}

template <class D, class V>
V apply(const SquaredRelu&, D d, V x) {
  return hn::IfThenZeroElse(hn::Lt(x, hn::Zero(d)), hn::Mul(x, x));
}

template <class D, class V>
V apply(const Gelu&, D d, V x) {
  const V half = hn::Set(d, 0.5F);
  return hn::MulAdd(half, x, hn::Mul(half, abs_x_erf(d, x)));
}

// Highway's is right up to where the result leaves the range of f32; a NaN is not above, and stays one.
template <class D, class V>
V apply(const Exp&, D d, V x) {
  const V largest = hn::Set(d, 88.722839F);
  const V y = hn::Exp(d, hn::Min(x, largest));
  const V infinity = hn::Set(d, std::numeric_limits<float>::infinity());
  return hn::IfThenElse(hn::Gt(x, largest), infinity, hn::IfThenElse(hn::IsNaN(x), x, y));
}

template <class D, class V>
V apply(const Clamp& op, D d, V x) {
  const V low = hn::Set(d, op.low);
  const V high = hn::Set(d, op.high);
  return hn::IfThenElse(hn::Lt(x, low), low, hn::IfThenElse(hn::Gt(x, high), high, x));  // a NaN is neither
}

template <class D, class V>
V apply(const Silu&, D d, V x) {
  return hn::Mul(x, apply(Sigmoid(), d, x));
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

// Whole rows of `columns` elements. kBF16: some inputs are.
template <class A, bool kBF16, DType kEncoding, std::size_t... kInput>
HWY_INLINE void run_rows(const A& op, const std::array<RowInput, A::kArity>& in, RowWriter<kEncoding> out,
                         std::int64_t rows, std::size_t columns, std::index_sequence<kInput...>) {
  const hn::ScalableTag<float> d;
  const std::size_t lanes = hn::Lanes(d);
  std::array<const std::byte*, A::kArity> at{in[kInput].at...};
  const std::array<bool, A::kArity> is_bf16{in[kInput].is_bf16...};
  const auto f32 = [&](std::size_t input) { return reinterpret_cast<const float*>(at[input]); };
  const auto bf16 = [&](std::size_t input) { return reinterpret_cast<const std::uint16_t*>(at[input]); };
  const auto load = [&](std::size_t input, std::size_t c) HWY_ATTR {
    return kBF16 && is_bf16[input] ? load_bf16(d, bf16(input) + c) : hn::LoadU(d, f32(input) + c);
  };
  const auto load_rest = [&](std::size_t input, std::size_t c, std::size_t count) HWY_ATTR {
    return kBF16 && is_bf16[input] ? load_bf16_n(d, bf16(input) + c, count) : load_n(d, f32(input) + c, count);
  };
  for (; rows > 0; --rows) {
    std::size_t c = 0;
    for (; c + 2 * lanes <= columns; c += 2 * lanes) {
      out.put(apply(op, d, load(kInput, c)...), apply(op, d, load(kInput, c + lanes)...), c);
    }
    for (; c + lanes <= columns; c += lanes) out.put(apply(op, d, load(kInput, c)...), c);
    if (c < columns) out.put_n(apply(op, d, load_rest(kInput, c, columns - c)...), c, columns - c);
    out.end_row();
    ((at[kInput] += in[kInput].step), ...);
  }
}

template <class A>
void apply_rows(const A& op, const RowInput* in, const EncodedRows& out, std::int64_t rows, std::size_t columns) {
  constexpr auto kInputs = std::make_index_sequence<A::kArity>();
  std::array<RowInput, A::kArity> inputs;
  std::copy_n(in, A::kArity, inputs.begin());
  const bool some_bf16 = std::ranges::any_of(inputs, &RowInput::is_bf16);
  with_row_writer(out, columns, [&](auto writer) HWY_ATTR {
    if (some_bf16) return run_rows<A, true>(op, inputs, writer, rows, columns, kInputs);
    run_rows<A, false>(op, inputs, writer, rows, columns, kInputs);
  });
}

void elementwise_rows(const Elementwise& op, bool rough, const RowInput* in, const EncodedRows& out, std::int64_t rows,
                      std::size_t columns) {
  if (rough && std::holds_alternative<Sigmoid>(op)) return apply_rows(RoughSigmoid(), in, out, rows, columns);
  std::visit([&](const auto& attributes) HWY_ATTR { apply_rows(attributes, in, out, rows, columns); }, op);
}

template <class A>
void run_tile(const A& op, const Broadcast& shape, const std::vector<bool>& complete, const float* const* in,
              float* out, std::int64_t begin, std::int64_t end) {
  std::array<bool, A::kArity> repeats;
  for (std::size_t i = 0; i < A::kArity; ++i) repeats[i] = shape.strides[i].back() == 0;
  std::int64_t row = begin / shape.inner();
  std::int64_t column = begin - row * shape.inner();
  for (std::int64_t element = begin; element < end; ++row, column = 0) {
    const std::int64_t count = std::min(end - element, shape.inner() - column);
    std::array<const float*, A::kArity> from;
    for (std::size_t i = 0; i < A::kArity; ++i) {
      from[i] = in[i] + (complete[i] ? element - begin : shape.row_offset(i, row) + (repeats[i] ? 0 : column));
    }
    run_row(op, from, repeats, out + (element - begin), count, std::make_index_sequence<A::kArity>());
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

HWY_EXPORT(elementwise_rows);
HWY_EXPORT(elementwise_tile);

class ElementwiseKernel final : public RowKernel {
 public:
  ElementwiseKernel(const Elementwise& op, const KernelRequest& request)
      : op_(op),
        name_("hwy:" + std::visit([](const auto& attributes) { return std::string(attributes.kName); }, op)),
        shape_(request.in, request.out[0].shape),
        rows_(row_count(request.out[0].shape)),
        columns_(rows_ > 0 ? request.out[0].shape.elements() / rows_ : 0),
        is_rough_(request.precision != DType::kF32),
        output_(columns_) {
    for (const TensorType& type : request.in) {
      const bool complete = type.shape.elements() == request.out[0].shape.elements();
      complete_.push_back(complete);
      bf16_.push_back(false);
      const bool one_row = type.shape.rank() > 0 && type.shape[-1] == columns_ && type.shape.elements() == columns_;
      row_wise_ = row_wise_ && (complete || one_row);
    }
  }

  std::string_view name() const override { return name_; }
  // An input with all the elements of the result has them in the same order, whatever its 1s.
  bool may_overwrite(int i) const override {
    return is_complete(i) && output_.encoding() == (is_bf16(i) ? DType::kBF16 : DType::kF32);
  }
  bool reads_bf16(int i) const override { return row_wise_ && is_complete(i); }
  void give_bf16(int i) override { bf16_[static_cast<std::size_t>(i)] = true; }
  bool encode_output(DType encoding) override { return row_wise_ && output_.encode(encoding); }

  std::int64_t rows() const override { return rows_; }
  bool reads_by_rows(int i) const override { return is_complete(i); }
  std::size_t row_scratch_bytes() const override { return output_.scratch_bytes(); }

  void run_rows(const RowArgs& args) const noexcept override {
    if (row_wise_) return run_whole_rows(args);
    std::array<const float*, 3> in{};
    for (std::size_t i = 0; i < args.in.size(); ++i) in[i] = args.input(static_cast<int>(i));
    HWY_DYNAMIC_DISPATCH(elementwise_tile)
    (op_, shape_, complete_, in.data(), args.output(), args.begin * columns_, args.end * columns_);
  }

 private:
  bool is_complete(int i) const { return complete_[static_cast<std::size_t>(i)]; }
  bool is_bf16(int i) const { return bf16_[static_cast<std::size_t>(i)]; }

  void run_whole_rows(const RowArgs& args) const noexcept {
    // Where no row begins anew, all of them are one.
    const bool flat = output_.encoding() != DType::kI8 && std::ranges::find(complete_, false) == complete_.end();
    const std::int64_t rows = flat ? 1 : args.count();
    const auto columns = static_cast<std::size_t>(flat ? args.count() * columns_ : columns_);
    std::array<RowInput, 3> in{};
    for (std::size_t i = 0; i < args.in.size(); ++i) {
      in[i] = {args.in[i], complete_[i] ? columns * (bf16_[i] ? sizeof(std::uint16_t) : sizeof(float)) : 0, bf16_[i]};
    }
    HWY_DYNAMIC_DISPATCH(elementwise_rows)(op_, is_rough_, in.data(), output_.at(args), rows, columns);
  }

  Elementwise op_;
  std::string name_;
  Broadcast shape_;
  std::int64_t rows_, columns_;
  std::vector<bool> complete_, bf16_;
  bool is_rough_;
  bool row_wise_ = true;  // every input has all elements, or one row for all rows
  RowOutput output_;
};

}  // namespace

std::unique_ptr<Kernel> make_elementwise_kernel(const Elementwise& attributes, const KernelRequest& request) {
  return std::make_unique<ElementwiseKernel>(attributes, request);
}

}  // namespace weft
#endif
