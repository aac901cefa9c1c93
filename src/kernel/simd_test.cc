// What simd.h computes, for every instruction set that this machine has.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernel/simd_test.cc"
#include "hwy/foreach_target.h"
// Highway wants foreach_target first.
#include "hwy/highway.h"
#include "kernel/simd.h"

HWY_BEFORE_NAMESPACE();
namespace weft {
namespace HWY_NAMESPACE {
void exp_in_range_all(const float* x, float* y, std::size_t n) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::CappedTag<float, 16> d;
  for (std::size_t i = 0; i < n; i += hn::Lanes(d)) hn::StoreU(exp_in_range(d, hn::LoadU(d, x + i)), d, y + i);
}
}  // namespace HWY_NAMESPACE
}  // namespace weft
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernel/testing/targets.h"

namespace weft {
namespace {

HWY_EXPORT(exp_in_range_all);

TEST(Simd, ExpIsWithinOneAndAHalfUnitsOfTheLastPlace) {
  std::vector<float> x;
  for (int i = -87 * 4096; i <= 88 * 4096; ++i) x.push_back(static_cast<float>(i) / 4096);
  for (float tiny = 1; tiny > 1e-30F; tiny /= 3) x.insert(x.end(), {tiny, -tiny});
  do x.push_back(0);
  while (x.size() % 16 != 0);
  std::vector<float> y(x.size());
  testing::for_each_target([&] {
    HWY_DYNAMIC_DISPATCH(exp_in_range_all)(x.data(), y.data(), x.size());
    double worst = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double want = std::exp(static_cast<double>(x[i]));
      const float below = static_cast<float>(want);
      const double unit = std::nextafter(below, INFINITY) - below;
      worst = std::max(worst, std::abs(y[i] - want) / unit);
    }
    EXPECT_LE(worst, 1.5);
    EXPECT_EQ(y.back(), 1);  // e^0
  });
}

}  // namespace
}  // namespace weft
#endif  // HWY_ONCE
