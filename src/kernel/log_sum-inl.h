// Sums of terms of any size, kept as parts times e^exponent in f64, eight lanes at most. Compiled once per SIMD target:
// include it inside a foreach_target file, after highway.h.
#if defined(WEFT_KERNEL_LOG_SUM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef WEFT_KERNEL_LOG_SUM_INL_H_
#undef WEFT_KERNEL_LOG_SUM_INL_H_
#else
#define WEFT_KERNEL_LOG_SUM_INL_H_
#endif

#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace weft::HWY_NAMESPACE {

using DLog = hwy::HWY_NAMESPACE::CappedTag<double, 8>;
using VLog = hwy::HWY_NAMESPACE::Vec<DLog>;

HWY_INLINE VLog load_f64(const float* from) {
  namespace hn = hwy::HWY_NAMESPACE;
  return hn::PromoteTo(DLog(), hn::LoadU(hn::Rebind<float, DLog>(), from));
}
HWY_INLINE void store_f32(VLog value, float* to) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::Rebind<float, DLog> half;
  hn::StoreU(hn::DemoteTo(half, value), half, to);
}

/// exp, but NaN for NaN.
HWY_INLINE VLog exp_or_nan(VLog x) {
  namespace hn = hwy::HWY_NAMESPACE;
  return hn::IfThenElse(hn::Eq(x, x), hn::Exp(DLog(), x), x);
}

constexpr double kEmptyExponent = -1e300;  // of an empty sum: finite, so that differences of two are no NaN

/// A numerator n·e^x and its denominator d·e^x.
struct LogSum {
  VLog n, d, x;

  /// times e^by
  HWY_INLINE LogSum scaled(VLog by) const { return {n, d, hwy::HWY_NAMESPACE::Add(x, by)}; }
};

HWY_INLINE LogSum empty_sum() {
  namespace hn = hwy::HWY_NAMESPACE;
  return {hn::Zero(DLog()), hn::Zero(DLog()), hn::Set(DLog(), kEmptyExponent)};
}

HWY_INLINE LogSum operator+(const LogSum& a, const LogSum& b) {
  namespace hn = hwy::HWY_NAMESPACE;
  const auto difference = hn::Sub(a.x, b.x);
  const auto one = hn::Set(DLog(), 1.0);
  const auto e = exp_or_nan(hn::Neg(hn::Abs(difference)));
  const auto a_leads = hn::Gt(difference, hn::Zero(DLog()));
  const auto of_a = hn::IfThenElse(a_leads, one, e);
  const auto of_b = hn::IfThenElse(a_leads, e, one);
  return {hn::MulAdd(a.n, of_a, hn::Mul(b.n, of_b)), hn::MulAdd(a.d, of_a, hn::Mul(b.d, of_b)),
          hn::IfThenElse(a_leads, a.x, b.x)};
}

/// e^by·(the products of the numerators and of the denominators)
HWY_INLINE VLog product(const LogSum& a, const LogSum& b, VLog by) {
  namespace hn = hwy::HWY_NAMESPACE;
  const auto e = exp_or_nan(hn::Add(by, hn::Add(a.x, b.x)));
  return hn::Mul(e, hn::MulAdd(a.n, b.n, hn::Mul(a.d, b.d)));
}

/// Three rows, `stride` elements apart.
HWY_INLINE LogSum load_sum(const double* rows, std::int64_t stride) {
  namespace hn = hwy::HWY_NAMESPACE;
  return {hn::Load(DLog(), rows), hn::Load(DLog(), rows + stride), hn::Load(DLog(), rows + 2 * stride)};
}
HWY_INLINE void store_sum(const LogSum& sum, double* rows, std::int64_t stride) {
  namespace hn = hwy::HWY_NAMESPACE;
  hn::Store(sum.n, DLog(), rows);
  hn::Store(sum.d, DLog(), rows + stride);
  hn::Store(sum.x, DLog(), rows + 2 * stride);
}

}  // namespace weft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
