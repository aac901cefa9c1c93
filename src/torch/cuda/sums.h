// Sums of weighted tokens, as Bi-WKV needs them (ops/bi_wkv/bi_wkv.h), right for any finite keys.
//
// A sum holds its numbers as part·e^{x − age·w}, where x is the key of its heaviest token and age the number of steps
// since: all exponents that are computed are differences of two, at most 0, rounded once. An exponent that aged step by
// step would gather a rounding error with each.
#pragma once

#include "torch/cuda/device.h"

namespace weft::cuda {

/// kParts = 2: a numerator and a denominator. kParts = 4: with their derivatives with respect to w.
template <class Real, int kParts>
struct alignas((kParts == 2 ? 4 : 2) * sizeof(Real)) Sum {
  using Number = Real;
  Real part[kParts];
  Real x, age;  // any whole number up to 2^24 in f32

  static WEFT_ON_DEVICE Sum empty() { return of(0, 0, kLowest<Real>); }

  /// (n, d)·e^x
  static WEFT_ON_DEVICE Sum of(Real n, Real d, Real x) {
    Sum sum;
    for (int i = 0; i < kParts; ++i) sum.part[i] = 0;
    sum.part[0] = n;
    sum.part[1] = d;
    sum.x = x;
    sum.age = 0;
    return sum;
  }

  /// times e^{−steps·w}
  WEFT_ON_DEVICE Sum aged(Real steps) const {
    Sum sum = *this;
    sum.age += steps;
    if constexpr (kParts == 4) {
      sum.part[2] = multiply_add(-steps, part[0], part[2]);
      sum.part[3] = multiply_add(-steps, part[1], part[3]);
    }
    return sum;
  }

  /// The same, or the same without the derivatives.
  template <int kFewer>
  WEFT_ON_DEVICE Sum<Real, kFewer> with_parts() const {
    static_assert(kFewer <= kParts, "there is nothing to make derivatives from");
    Sum<Real, kFewer> sum;
    for (int i = 0; i < kFewer; ++i) sum.part[i] = part[i];
    sum.x = x;
    sum.age = age;
    return sum;
  }
};

template <class Real, int kParts>
WEFT_ON_DEVICE Sum<Real, kParts> total(const Sum<Real, kParts>& a, const Sum<Real, kParts>& b, Real w) {
  const Real difference = multiply_add(b.age - a.age, w, a.x - b.x);
  const bool a_leads = difference > 0;
  const Real e = exp_of(-std::fabs(difference));
  const Real of_a = a_leads ? Real(1) : e;
  const Real of_b = a_leads ? e : Real(1);
  Sum<Real, kParts> sum;
  for (int i = 0; i < kParts; ++i) sum.part[i] = multiply_add(of_a, a.part[i], of_b * b.part[i]);
  sum.x = a_leads ? a.x : b.x;
  sum.age = a_leads ? a.age : b.age;
  return sum;
}

template <class Item, bool kReleased>
struct ScanSums {
  Item run;
};
template <class Item>
struct ScanSums<Item, true> {
  Item run, before, rest;
};

/// The sums that go from token to token, in either direction; what was passed is "before". Wkv::kPaper has `run` alone,
/// and the whole sequence is its one run. d is the distance of an item from the token at hand:
///
///   run     Σ e^{−(d−1)·w}·item over the items of this run
///   before  Σ e^{−d·w}·item over the items of the runs before                      (kReleased)
///   rest    Σ e^{d·w}·item over those items of this run that were taken there       (kReleased)
template <class Real, int kParts, bool kReleased>
struct Scan : ScanSums<Sum<Real, kParts>, kReleased> {
  using Item = Sum<Real, kParts>;

  static WEFT_ON_DEVICE Scan empty() {
    Scan scan;
    scan.run = Item::empty();
    if constexpr (kReleased) scan.before = scan.rest = Item::empty();
    return scan;
  }

  /// From the last token of a run to the first of the next.
  WEFT_ON_DEVICE void enter_run(Real w) {
    if constexpr (kReleased) {
      this->before = total(this->before, this->run.aged(1), w);
      this->run = this->rest = Item::empty();
    }
  }

  WEFT_ON_DEVICE void take_rest(const Item& item, Real w) {
    if constexpr (kReleased) this->rest = total(this->rest.aged(-1), item, w);
  }

  /// On to the next token.
  WEFT_ON_DEVICE void pass(const Item& item, Real w) {
    this->run = total(this->run.aged(1), item, w);
    if constexpr (kReleased) this->before = this->before.aged(1);
  }

  template <int kFewer>
  WEFT_ON_DEVICE Scan<Real, kFewer, kReleased> with_parts() const {
    Scan<Real, kFewer, kReleased> scan;
    scan.run = this->run.template with_parts<kFewer>();
    if constexpr (kReleased) {
      scan.before = this->before.template with_parts<kFewer>();
      scan.rest = this->rest.template with_parts<kFewer>();
    }
    return scan;
  }
};

/// Of some neighbouring tokens how many they are, and whether one of them is the first of a run.
struct Stretch {
  int tokens;
  bool enters_run;
};

/// The scan of some tokens, and of the stretch after them.
template <class Real, int kParts, bool kReleased>
WEFT_ON_DEVICE Scan<Real, kParts, kReleased> joined(const Scan<Real, kParts, kReleased>& first,
                                                    const Scan<Real, kParts, kReleased>& second, const Stretch& stretch,
                                                    Real w) {
  const Real steps = static_cast<Real>(stretch.tokens);
  Scan<Real, kParts, kReleased> scan = second;
  if constexpr (kReleased) {
    scan.before = total(first.before.aged(steps), second.before, w);
    if (stretch.enters_run) {
      scan.before = total(first.run.aged(steps + 1), scan.before, w);
      return scan;
    }
    scan.rest = total(first.rest.aged(-steps), second.rest, w);
  }
  scan.run = total(first.run.aged(steps), second.run, w);
  return scan;
}

}  // namespace weft::cuda
