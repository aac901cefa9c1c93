#include "data/mixing.h"

#include <algorithm>
#include <cmath>

namespace weft {
namespace {

// Along one axis of `side`: `size` pixels around a random centre, cut off at the borders.
void draw_span(std::int64_t side, std::int64_t size, Random& random, std::int64_t& begin, std::int64_t& count) {
  const std::int64_t center = random.below(side);
  begin = std::max<std::int64_t>(0, center - size / 2);
  count = std::min(side, center + size / 2) - begin;
}

}  // namespace

Mix draw_mix(const Augment& how, std::int64_t side, Random& random) {
  if ((how.mixup == 0 && how.cutmix == 0) || !random.chance(how.mixup_prob)) return {};
  const bool cut = how.cutmix > 0 && (how.mixup == 0 || random.chance(how.mixup_switch_prob));
  const double alpha = cut ? how.cutmix : how.mixup;
  Mix mix{.lambda = random.beta(alpha, alpha)};
  if (!cut) return mix;
  const auto size = static_cast<std::int64_t>(static_cast<double>(side) * std::sqrt(1 - mix.lambda));
  draw_span(side, size, random, mix.box.y, mix.box.height);
  draw_span(side, size, random, mix.box.x, mix.box.width);
  // The borders may have taken some of the box.
  mix.lambda = 1 - static_cast<double>(mix.box.height * mix.box.width) / static_cast<double>(side * side);
  return mix;
}

void mix_pair(const Mix& mix, std::int64_t side, std::span<float> a, std::span<float> b) {
  if (mix.lambda == 1) return;
  if (mix.box.width > 0) {
    for (std::int64_t c = 0; c < 3; ++c) {
      for (std::int64_t y = mix.box.y; y < mix.box.y + mix.box.height; ++y) {
        const std::int64_t at = (c * side + y) * side + mix.box.x;
        std::swap_ranges(a.begin() + at, a.begin() + at + mix.box.width, b.begin() + at);
      }
    }
    return;
  }
  const auto own = static_cast<float>(mix.lambda);
  const float other = 1 - own;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const float x = a[i];
    a[i] = own * x + other * b[i];
    b[i] = own * b[i] + other * x;
  }
}

void fill_target(std::span<float> target, int own, int partner, double lambda, double smoothing) {
  std::ranges::fill(target, static_cast<float>(smoothing / static_cast<double>(target.size())));
  target[static_cast<std::size_t>(own)] += static_cast<float>((1 - smoothing) * lambda);
  if (lambda < 1) target[static_cast<std::size_t>(partner)] += static_cast<float>((1 - smoothing) * (1 - lambda));
}

}  // namespace weft
