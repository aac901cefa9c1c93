// Functions that Highway's math-inl.h lacks, or that are cheaper for what kernels need. Compiled once per SIMD target:
// include it inside a foreach_target file, after highway.h.
#if defined(WEFT_KERNEL_MATH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef WEFT_KERNEL_MATH_INL_H_
#undef WEFT_KERNEL_MATH_INL_H_
#else
#define WEFT_KERNEL_MATH_INL_H_
#endif

#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace weft::HWY_NAMESPACE {

/// |x|·erf(|x|/√2), within 6 · 2^-24 · |x|; |x| itself from 5.5 on, where erf is 1 − 4e-8. A NaN stays one.
///
/// As a quotient of polynomials in x², erf(u/√2)/u ≈ P(u²)/Q(u²): a minimax fit over 0 ≤ u ≤ 5.5 (Lawson's iteration)
/// with an error of 1.5e-8 in erf. All coefficients are positive: nothing cancels.
template <class D, class V>
HWY_INLINE V abs_x_erf(D d, V x) {
  namespace hn = hwy::HWY_NAMESPACE;
  const auto set = [d](float value) HWY_ATTR { return hn::Set(d, value); };
  const V y = hn::Mul(x, x);
  V p = hn::MulAdd(y, set(4.549286185e-8F), set(1.270309852e-5F));
  V q = hn::MulAdd(y, set(1.197374624e-6F), set(7.364242604e-5F));
  p = hn::MulAdd(y, p, set(3.376377896e-4F));
  q = hn::MulAdd(y, q, set(1.884413857e-3F));
  p = hn::MulAdd(y, p, set(9.354444048e-3F));
  q = hn::MulAdd(y, q, set(2.864572903e-2F));
  p = hn::MulAdd(y, p, set(6.770510013e-2F));
  q = hn::MulAdd(y, q, set(0.251521682F));
  p = hn::MulAdd(y, p, set(0.7978844699F));
  q = hn::MulAdd(y, q, set(1.0F));
  const V u = hn::Abs(x);
  return hn::IfThenElse(hn::Lt(u, set(5.5F)), hn::Div(hn::Mul(y, p), q), u);
}

/// 2^x for x ≤ 0 within 3 · 2^-24 of its value; 0 below −126. A NaN stays one.
///
/// 2^x = 2^n · 2^f with n the integer next to x; 2^f on |f| ≤ 1/2 is a minimax polynomial (Remez) with a relative error
/// of 7.5e-8.
template <class D, class V>
HWY_INLINE V exp2_of_negative(D d, V x) {
  namespace hn = hwy::HWY_NAMESPACE;
  const auto set = [d](float value) HWY_ATTR { return hn::Set(d, value); };
  const hn::RebindToSigned<D> integers;
  // Added to 3/2 · 2^23 + 127, x loses its fraction, and the last bits show the exponent of 2^n.
  const V magic = set(0x1.8p23F + 127);
  const V shifted = hn::Add(x, magic);
  const V f = hn::Sub(x, hn::Sub(shifted, magic));
  const V power = hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(integers, shifted)));
  V p = hn::MulAdd(f, set(1.327647263e-3F), set(9.675541343e-3F));
  p = hn::MulAdd(f, p, set(5.550713272e-2F));
  p = hn::MulAdd(f, p, set(0.2402211972F));
  p = hn::MulAdd(f, p, set(0.6931469671F));
  p = hn::MulAdd(f, p, set(1.000000072F));
  return hn::IfThenZeroElse(hn::Lt(x, set(-126.0F)), hn::Mul(p, power));
}

}  // namespace weft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
