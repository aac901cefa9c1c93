// What a training run is, as one struct that JSON files and the command line fill.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>

#include "core/field.h"
#include "core/json.h"
#include "data/augment.h"
#include "weft/tensor.h"

namespace weft {

/// What products multiply while training.
enum class TrainDType { kF32, kBF16 };
constexpr std::array<std::pair<TrainDType, std::string_view>, 2> enum_names(TrainDType) {
  return {{{TrainDType::kF32, "f32"}, {TrainDType::kBF16, "bf16"}}};
}

/// What the weights are stored as in the models that come out.
enum class WeightDType { kF32, kBF16, kF16 };
constexpr std::array<std::pair<WeightDType, std::string_view>, 3> enum_names(WeightDType) {
  return {{{WeightDType::kF32, "f32"}, {WeightDType::kBF16, "bf16"}, {WeightDType::kF16, "f16"}}};
}

/// docs/training.md explains each key. Everything here decides what comes out: two runs of one configuration, on one
/// machine and as many threads, give the same bits.
struct TrainConfig {
  // The model: a preset with fresh weights, or the weights of a file to go on from.
  std::string model = "vrwkv_tiny";
  std::string from;
  Json options = Json::object();  // of the model, over those of the preset or the file
  // Data.
  std::string data;
  std::string val;  // empty: no evaluation
  // Of text.
  std::string tokenizer;  // a vocabulary file, or "bytes"; empty: data and val are tokens
  int ctx_len = 0;        // tokens that the model sees in a row
  // Of pictures.
  int image_size = 0;   // side of the pictures that the model sees; 0: the model's own
  int eval_resize = 0;  // side to which pictures are resized before the centre is cut out; 0: the model's own rule
  std::optional<std::array<float, 3>> mean;  // of pixels 0…255; none: the model's own
  std::optional<std::array<float, 3>> std;
  Augment augment;
  // Length.
  int epochs = 300;
  int batch = 128;     // pictures, or windows of ctx_len tokens, per pass and process
  int accumulate = 1;  // passes per step
  // Learning rate: rising linearly over the warm-up, then half a cosine down to min_lr.
  double lr = 1e-3;
  double min_lr = 1e-5;
  double warmup_epochs = 5;
  double layer_decay = 1;  // each block's rate over that of the block behind it
  // AdamW and what keeps a model from learning by heart.
  double weight_decay = 0.05;
  std::array<double, 2> betas = {0.9, 0.999};
  double eps = 1e-8;
  double clip = 0;       // norm of the gradient; 0: any
  double drop_path = 0;  // probability of leaving out the last block's branches, rising linearly from 0 at the first
  double ema = 0;        // decay of the averaged weights; 0: none
  int freeze =
      0;  // parts that keep their weights: 1 the embedding, 1 + n the first n blocks as well, −1 all but the head
  // How it is computed.
  TrainDType dtype = TrainDType::kF32;
  bool recompute = false;
  std::uint64_t seed = 0;
  // When things are done.
  int log_every = 20;   // steps between lines of the log
  int eval_every = 1;   // epochs
  int save_every = 0;   // epochs between models that are kept; 0: last and best only
  int state_every = 0;  // steps between saved states beside those at the end of each epoch; 0: none
  WeightDType weights = WeightDType::kF32;

  bool operator==(const TrainConfig&) const = default;

  static constexpr std::tuple kFields{
      Field{"model", &TrainConfig::model},
      Field{"from", &TrainConfig::from},
      Field{"options", &TrainConfig::options},
      Field{"data", &TrainConfig::data},
      Field{"val", &TrainConfig::val},
      Field{"tokenizer", &TrainConfig::tokenizer},
      Field{"ctx_len", &TrainConfig::ctx_len},
      Field{"image_size", &TrainConfig::image_size},
      Field{"eval_resize", &TrainConfig::eval_resize},
      Field{"mean", &TrainConfig::mean},
      Field{"std", &TrainConfig::std},
      Field{"augment", &TrainConfig::augment},
      Field{"epochs", &TrainConfig::epochs},
      Field{"batch", &TrainConfig::batch},
      Field{"accumulate", &TrainConfig::accumulate},
      Field{"lr", &TrainConfig::lr},
      Field{"min_lr", &TrainConfig::min_lr},
      Field{"warmup_epochs", &TrainConfig::warmup_epochs},
      Field{"layer_decay", &TrainConfig::layer_decay},
      Field{"weight_decay", &TrainConfig::weight_decay},
      Field{"betas", &TrainConfig::betas},
      Field{"eps", &TrainConfig::eps},
      Field{"clip", &TrainConfig::clip},
      Field{"drop_path", &TrainConfig::drop_path},
      Field{"ema", &TrainConfig::ema},
      Field{"freeze", &TrainConfig::freeze},
      Field{"dtype", &TrainConfig::dtype},
      Field{"recompute", &TrainConfig::recompute},
      Field{"seed", &TrainConfig::seed},
      Field{"log_every", &TrainConfig::log_every},
      Field{"eval_every", &TrainConfig::eval_every},
      Field{"save_every", &TrainConfig::save_every},
      Field{"state_every", &TrainConfig::state_every},
      Field{"weights", &TrainConfig::weights},
  };
};

/// Throws ConfigError naming every value out of range.
void validate(const TrainConfig& config);

/// A starting point for a kind of training, to change as needed.
struct Recipe {
  std::string_view name;
  std::string_view summary;  // one line for people
  TrainConfig config;
};

/// "small": from scratch on pictures of 32 × 32; "imagenet": the official recipe of Vision-RWKV; "finetune"; "text".
std::span<const Recipe> recipes();
/// Throws ConfigError that lists what there is.
const Recipe& find_recipe(std::string_view name);

}  // namespace weft
