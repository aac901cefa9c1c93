// How pictures are varied in training, so that a model sees none twice.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <tuple>
#include <utility>

#include "core/field.h"
#include "core/random.h"
#include "data/rand_augment.h"
#include "image/normalise.h"
#include "weft/image.h"

namespace weft {

/// Where the part of a picture that the model sees comes from.
enum class Crop {
  /// As in evaluation: Preprocess's resize and centre crop.
  kCenter,
  /// As in evaluation, then framed by `padding` black pixels and cut to its size again at a random place: the usual
  /// recipe for CIFAR.
  kPad,
  /// A random part of the picture, of random area and aspect ratio, resized (torchvision's RandomResizedCrop): the
  /// usual
  /// recipe for ImageNet.
  kRandomResized,
};
constexpr std::array<std::pair<Crop, std::string_view>, 3> enum_names(Crop) {
  return {{{Crop::kCenter, "center"}, {Crop::kPad, "pad"}, {Crop::kRandomResized, "random_resized"}}};
}

/// What an erased part of the (normalised) picture shows: 0, which is the mean colour; one colour drawn from a normal
/// distribution; such a colour for each pixel.
enum class EraseMode { kConst, kRand, kPixel };
constexpr std::array<std::pair<EraseMode, std::string_view>, 3> enum_names(EraseMode) {
  return {{{EraseMode::kConst, "const"}, {EraseMode::kRand, "rand"}, {EraseMode::kPixel, "pixel"}}};
}

/// Names and meanings follow timm where it has them. The defaults vary nothing.
struct Augment {
  Crop crop = Crop::kCenter;
  /// Of Crop::kPad, in pixels on each side.
  int padding = 4;
  /// Of Crop::kRandomResized: bounds of the part's share of the area, and of its width / height.
  std::array<double, 2> scale = {0.08, 1.0};
  std::array<double, 2> ratio = {3.0 / 4, 4.0 / 3};
  Interpolation interpolation = Interpolation::kBicubic;
  /// Probability of a horizontal flip.
  double hflip = 0;

  /// RandAugment (rand_augment.h): operations per picture, 0 for none; timm's m, mstd, p and inc. What a picture does
  /// not cover shows Preprocess's mean colour.
  int ra_ops = 0;
  double ra_magnitude = 9;
  double ra_std = 0.5;
  double ra_prob = 0.5;
  bool ra_increasing = true;

  /// Random erasing (Zhong 2020, arXiv 1708.04896): its probability, the bounds of the part's share of the area and of
  /// its height / width.
  double reprob = 0;
  EraseMode remode = EraseMode::kPixel;
  std::array<double, 2> re_area = {0.02, 1.0 / 3};
  std::array<double, 2> re_ratio = {0.3, 1 / 0.3};

  /// Mixup (Zhang 2018, arXiv 1710.09412) and CutMix (Yun 2019, arXiv 1905.04899): λ ~ Beta(α, α), none where α = 0. λ,
  /// the kind and the box are the same for a whole batch. Picture 2j is mixed with picture 2j + 1, so that the even
  /// slices of several processes are mixed within themselves.
  double mixup = 0;
  double cutmix = 0;
  /// Probability that a batch is mixed at all, and that it is by CutMix where both α are positive.
  double mixup_prob = 1;
  double mixup_switch_prob = 0.5;
  /// This share of each target is spread evenly over all classes.
  double smoothing = 0;

  bool operator==(const Augment&) const = default;

  static constexpr std::tuple kFields{Field{"crop", &Augment::crop},
                                      Field{"padding", &Augment::padding},
                                      Field{"scale", &Augment::scale},
                                      Field{"ratio", &Augment::ratio},
                                      Field{"interpolation", &Augment::interpolation},
                                      Field{"hflip", &Augment::hflip},
                                      Field{"ra_ops", &Augment::ra_ops},
                                      Field{"ra_magnitude", &Augment::ra_magnitude},
                                      Field{"ra_std", &Augment::ra_std},
                                      Field{"ra_prob", &Augment::ra_prob},
                                      Field{"ra_increasing", &Augment::ra_increasing},
                                      Field{"reprob", &Augment::reprob},
                                      Field{"remode", &Augment::remode},
                                      Field{"re_area", &Augment::re_area},
                                      Field{"re_ratio", &Augment::re_ratio},
                                      Field{"mixup", &Augment::mixup},
                                      Field{"cutmix", &Augment::cutmix},
                                      Field{"mixup_prob", &Augment::mixup_prob},
                                      Field{"mixup_switch_prob", &Augment::mixup_switch_prob},
                                      Field{"smoothing", &Augment::smoothing}};
};

/// What DeiT, Swin and Vision-RWKV-S and larger train with on ImageNet. Vision-RWKV-T goes without mixup and cutmix.
Augment imagenet_recipe();
/// What residual networks are trained with on CIFAR (He 2016): pad, crop, flip.
Augment cifar_recipe();

/// Throws ConfigError naming every field that is out of range.
void validate(const Augment& how);

/// One picture from the data set to the model's input. Safe from several threads.
class Augmenter {
 public:
  /// The input's side, filter and normalisation are those of `preprocess`, which must crop. Throws ConfigError.
  Augmenter(const Augment& how, const Preprocess& preprocess);

  /// Side of the results.
  std::int64_t side() const { return preprocess_.crop; }
  /// 8-bit pixels [side, side, 3]. Throws ShapeError for a picture of other than 3 channels.
  Image pixels(const Image& image, Random& random) const;
  /// Normalised planes [3, side, side].
  void input(const Image& image, Random& random, std::span<float> out) const;

 private:
  Augment how_;
  Preprocess preprocess_;
  Normalisation normalise_;
  std::array<std::uint8_t, 3> fill_;  // the mean colour
};

}  // namespace weft
