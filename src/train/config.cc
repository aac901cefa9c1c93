#include "train/config.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/format.h"
#include "core/options.h"

namespace weft {
namespace {

constexpr std::string_view kPlace = "train";

// CIFAR-10's, of its training pictures.
constexpr std::array<float, 3> kSmallMean = {125.307F, 122.95F, 113.865F};
constexpr std::array<float, 3> kSmallStd = {62.993F, 62.089F, 66.705F};

// Pictures of 32 × 32 from scratch: patches of 4, so 64 tokens.
TrainConfig small() {
  TrainConfig c;
  c.model = "vrwkv_tiny";
  c.options = {{"patch_size", 4}, {"embed_dims", 128}, {"depth", 8}};
  c.image_size = 32;
  c.mean = kSmallMean;
  c.std = kSmallStd;
  c.augment = cifar_recipe();
  c.augment.smoothing = 0.1;
  c.augment.cutmix = 1;
  c.augment.mixup_prob = 0.35;
  c.epochs = 40;
  c.lr = 2e-3;
  c.warmup_epochs = 1;
  c.clip = 1;
  c.ema = 0.999;
  return c;
}

// Duan et al., section 4.1, and the official configuration of the tiny model: 1024 pictures a step.
TrainConfig imagenet() {
  TrainConfig c;
  c.model = "vrwkv_tiny";
  c.image_size = 224;
  c.augment = imagenet_recipe();
  c.augment.mixup = 0;  // the larger models have both, and drop_path
  c.augment.cutmix = 0;
  c.epochs = 300;
  c.batch = 128;
  c.accumulate = 8;
  c.lr = 1e-3;
  c.min_lr = 1e-5;
  c.warmup_epochs = 20;
  c.clip = 5;
  return c;
}

TrainConfig finetune() {
  TrainConfig c;
  c.model = "";
  c.augment = cifar_recipe();
  c.augment.smoothing = 0.1;
  c.epochs = 5;
  c.lr = 5e-4;
  c.min_lr = 1e-6;
  c.warmup_epochs = 0.25;
  c.layer_decay = 0.8;
  c.clip = 1;
  return c;
}

// The official trainer's rates and moments for RWKV-4, on a model that a laptop trains within the hour.
TrainConfig text() {
  TrainConfig c;
  c.model = "rwkv4_169m";
  c.options = {{"n_layer", 6}, {"n_embd", 256}, {"dim_att", 256}, {"dim_ffn", 1024}};
  c.ctx_len = 256;
  c.epochs = 1;
  c.batch = 8;
  c.lr = 6e-4;
  c.min_lr = 1e-5;
  c.warmup_epochs = 0.05;
  c.weight_decay = 0;
  c.betas = {0.9, 0.99};
  c.clip = 1;
  return c;
}

}  // namespace

void validate(const TrainConfig& c) {
  RangeCheck check;
  check.expect(!c.data.empty(), "data", "the path of the pictures or the text to train with");
  check.expect(c.model.empty() != c.from.empty(), "model",
               fmt::format("a preset, or empty and \"from\" a file (got model {} and from {})", printable(c.model, 60),
                           printable(c.from, 60)));
  check.within(c.ctx_len, 0, 1 << 20, "ctx_len");
  check.within(c.image_size, 0, 8192, "image_size");
  check.within(c.eval_resize, 0, 8192, "eval_resize");
  check.expect(c.eval_resize == 0 || c.eval_resize >= c.image_size, "eval_resize", "0 or at least image_size");
  const auto positive = [](float x) { return std::isfinite(x) && x > 0; };
  const auto finite = [](float x) { return std::isfinite(x); };
  check.expect(!c.mean || std::ranges::all_of(*c.mean, finite), "mean", "finite");
  check.expect(!c.std || std::ranges::all_of(*c.std, positive), "std", "positive");
  check.within(c.epochs, 1, 1'000'000, "epochs");
  check.within(c.batch, 1, 65536, "batch");
  check.within(c.accumulate, 1, 65536, "accumulate");
  const auto number = [&](double value, double low, double high, std::string_view option) {
    check.expect(value >= low && value <= high, option, fmt::format("{} … {}, got {}", low, high, value));
  };
  number(c.lr, 0, 1e3, "lr");
  number(c.min_lr, 0, c.lr, "min_lr");
  number(c.warmup_epochs, 0, c.epochs, "warmup_epochs");
  number(c.layer_decay, 1e-3, 1, "layer_decay");
  number(c.weight_decay, 0, 1e3, "weight_decay");
  for (const double beta : c.betas)
    check.expect(beta >= 0 && beta < 1, "betas", fmt::format("in [0, 1), got {}", beta));
  number(c.eps, 1e-12, 1, "eps");
  number(c.clip, 0, 1e9, "clip");
  check.expect(c.drop_path >= 0 && c.drop_path < 1, "drop_path", fmt::format("in [0, 1), got {}", c.drop_path));
  check.expect(c.ema >= 0 && c.ema < 1, "ema", fmt::format("in [0, 1), got {}", c.ema));
  check.within(c.freeze, -1, 10'000, "freeze");
  check.within(c.log_every, 1, 1'000'000, "log_every");
  check.within(c.eval_every, 1, 1'000'000, "eval_every");
  check.within(c.save_every, 0, 1'000'000, "save_every");
  check.within(c.state_every, 0, 1'000'000'000, "state_every");
  check.done(kPlace);
  validate(c.augment);
}

std::span<const Recipe> recipes() {
  static const std::vector<Recipe> all = {
      {"small", "32 × 32 from scratch (CIFAR-10), patches of 4, 128 channels, 8 layers, 40 epochs", small()},
      {"imagenet", "224 × 224 from scratch, the official recipe of Vision-RWKV-T, 300 epochs", imagenet()},
      {"finetune", "from a trained model (--from FILE), a new head where the classes differ, 5 epochs", finetune()},
      {"text",
       "language models, from scratch or (--from FILE) from a trained one: 6 layers of 256 channels, 256 tokens "
       "in a row, 1 epoch; give a tokenizer",
       text()},
  };
  return all;
}

const Recipe& find_recipe(std::string_view name) {
  std::vector<std::string_view> names;
  for (const Recipe& recipe : recipes()) {
    if (recipe.name == name) return recipe;
    names.push_back(recipe.name);
  }
  fail<ConfigError>(kPlace, "unknown recipe {}, did you mean {}? There are: {}", printable(name, 60),
                    nearest_name(name, names), fmt::join(names, " "));
}

}  // namespace weft
