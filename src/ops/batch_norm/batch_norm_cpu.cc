#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/batch_norm/batch_norm_cpu.cc"
#include <hwy/foreach_target.h>
// Highway wants foreach_target.h first.
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>

#include "core/format.h"
#include "kernel/encode-inl.h"
#include "kernel/simd.h"
#include "ops/batch_norm/batch_norm.h"

HWY_BEFORE_NAMESPACE();
namespace weft::HWY_NAMESPACE {
namespace {

// y = (x − mean) · factor + bias. x and f32 rows of y may be the same.
template <bool kBF16, DType kEncoding>
HWY_INLINE void normalise(RowWriter<kEncoding> y, const std::byte* from, const float* mean, const float* factor,
                          const float* bias, std::int64_t rows, std::size_t c) {
  const hn::ScalableTag<float> d;
  const std::size_t lanes = hn::Lanes(d);
  using V = hn::Vec<decltype(d)>;
  const auto apply = [](V x, V center, V scale, V shift)
                         HWY_ATTR { return hn::MulAdd(hn::Sub(x, center), scale, shift); };
  for (; rows > 0; --rows, from += c * (kBF16 ? sizeof(std::uint16_t) : sizeof(float))) {
    const auto* const f32 = reinterpret_cast<const float*>(from);
    const auto* const bf16 = reinterpret_cast<const std::uint16_t*>(from);
    const auto at = [&](std::size_t i) HWY_ATTR {
      const V x = kBF16 ? load_bf16(d, bf16 + i) : hn::LoadU(d, f32 + i);
      return apply(x, hn::LoadU(d, mean + i), hn::LoadU(d, factor + i), hn::LoadU(d, bias + i));
    };
    std::size_t i = 0;
    for (; i + 2 * lanes <= c; i += 2 * lanes) y.put(at(i), at(i + lanes), i);
    for (; i + lanes <= c; i += lanes) y.put(at(i), i);
    if (i < c) {
      const std::size_t rest = c - i;
      const V x = kBF16 ? load_bf16_n(d, bf16 + i, rest) : load_n(d, f32 + i, rest);
      y.put_n(apply(x, load_n(d, mean + i, rest), load_n(d, factor + i, rest), load_n(d, bias + i, rest)), i, rest);
    }
    y.end_row();
  }
}

void batch_norm_rows(const std::byte* x, bool is_bf16, const float* mean, const float* factor, const float* bias,
                     const EncodedRows& y, std::int64_t rows, std::size_t c) {
  with_row_writer(y, c, [&](auto writer) HWY_ATTR {
    if (is_bf16) return normalise<true>(writer, x, mean, factor, bias, rows, c);
    normalise<false>(writer, x, mean, factor, bias, rows, c);
  });
}

}  // namespace
}  // namespace weft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace weft {
namespace {

HWY_EXPORT(batch_norm_rows);

class BatchNormKernel final : public RowKernel {
 public:
  BatchNormKernel(const BatchNorm& attributes, const KernelRequest& request)
      : c_(request.in[0].shape[-1]), rows_(row_count(request.in[0].shape)), output_(c_) {
    const auto weight = request.constants[1]->data<float>();
    const auto variance = request.constants[4]->data<float>();
    for (std::size_t i = 0; i < weight.size(); ++i) {
      const double deviation = std::sqrt(static_cast<double>(variance[i]) + static_cast<double>(attributes.eps));
      factors_.push_back(static_cast<float>(weight[i] / deviation));
    }
  }

  std::string_view name() const override { return "hwy:batch_norm"; }
  bool may_overwrite(int i) const override {
    return i == 0 && output_.encoding() == (is_bf16_ ? DType::kBF16 : DType::kF32);
  }
  bool reads_bf16(int i) const override { return i == 0; }
  void give_bf16(int) override { is_bf16_ = true; }
  bool encode_output(DType encoding) override { return output_.encode(encoding); }
  std::int64_t rows() const override { return rows_; }
  bool reads_by_rows(int i) const override { return i == 0; }
  std::size_t row_scratch_bytes() const override { return output_.scratch_bytes(); }

  void run_rows(const RowArgs& args) const noexcept override {
    HWY_DYNAMIC_DISPATCH(batch_norm_rows)
    (args.in[0], is_bf16_, args.input(3), factors_.data(), args.input(2), output_.at(args), args.count(),
     static_cast<std::size_t>(c_));
  }

 private:
  std::int64_t c_, rows_;
  std::vector<float> factors_;  // weight / √(var + eps)
  bool is_bf16_ = false;
  RowOutput output_;
};

}  // namespace

std::unique_ptr<Kernel> make_kernel(const BatchMoments&, const KernelRequest&) {
  fail<UnsupportedError>("batch_moments", "statistics of the batch are for training, by libtorch");
}

std::unique_ptr<Kernel> make_kernel(const BatchNorm& attributes, const KernelRequest& request) {
  require<UnsupportedError>(request.in.size() == 5, "batch_norm",
                            "statistics of the batch are for training, by libtorch; the CPU engine takes running ones");
  const auto parameters = request.constants.subspan(1);
  require<UnsupportedError>(std::ranges::find(parameters, nullptr) == parameters.end(), "batch_norm",
                            "the CPU engine wants weight, bias and the running statistics to be constants");
  return std::make_unique<BatchNormKernel>(attributes, request);
}

}  // namespace weft
#endif
