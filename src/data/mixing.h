// What happens to a batch: pictures mixed in pairs, and targets.
#pragma once

#include <cstdint>
#include <span>

#include "data/augment.h"
#include "image/resize.h"

namespace weft {

/// How the pairs of one batch are mixed.
struct Mix {
  /// The share of a picture's own class in its target; 1: nothing is mixed.
  double lambda = 1;
  /// CutMix: the pixels that come from the partner. Empty: all pixels are sums of both.
  Window box = {};
};

/// Draws one for pictures of side × side (Augment's mixup, cutmix, mixup_prob, mixup_switch_prob).
Mix draw_mix(const Augment& how, std::int64_t side, Random& random);

/// Mixes two pictures [3, side, side] with each other.
void mix_pair(const Mix& mix, std::int64_t side, std::span<float> a, std::span<float> b);

/// One row of targets: λ · own + (1 − λ) · partner, both smoothed. Its elements sum to 1.
void fill_target(std::span<float> target, int own, int partner, double lambda, double smoothing);

}  // namespace weft
