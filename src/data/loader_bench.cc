#include <benchmark/benchmark.h>

#include "data/loader.h"

namespace weft {
namespace {

/// Noise of CIFAR-10's size.
class Small : public Dataset {
 public:
  Small() : picture_{32, 32, 3, std::vector<std::uint8_t>(3 * 32 * 32)} {
    Random random({});
    for (std::uint8_t& pixel : picture_.pixels) pixel = static_cast<std::uint8_t>(random.below(256));
  }
  std::int64_t size() const override { return 50000; }
  Image image(std::int64_t) const override { return picture_; }
  int label(std::int64_t i) const override { return static_cast<int>(i % 10); }
  std::string picture_name(std::int64_t) const override { return name_; }
  const std::string& name() const override { return name_; }
  bool numbered() const override { return false; }
  const std::vector<std::string>& class_names() const override { return classes_; }

 private:
  Image picture_;
  std::string name_ = "noise";
  std::vector<std::string> classes_ = std::vector<std::string>(10, "class");
};

void load(benchmark::State& state, const Augment& augment) {
  Loader loader(std::make_shared<Small>(),
                {.preprocess = {.resize = 0, .crop = 32}, .augment = augment, .batch = 128, .workers = 0});
  for (auto _ : state) benchmark::DoNotOptimize(loader.next());
  state.SetItemsProcessed(state.iterations() * 128);
}

void pad_crop_flip(benchmark::State& state) { load(state, {.crop = Crop::kPad, .hflip = 0.5, .smoothing = 0.1}); }
BENCHMARK(pad_crop_flip)->Unit(benchmark::kMicrosecond);

void mixed(benchmark::State& state) { load(state, {.crop = Crop::kPad, .hflip = 0.5, .mixup = 0.8, .cutmix = 1}); }
BENCHMARK(mixed)->Unit(benchmark::kMicrosecond);

void resized_crop(benchmark::State& state) { load(state, {.crop = Crop::kRandomResized, .hflip = 0.5}); }
BENCHMARK(resized_crop)->Unit(benchmark::kMicrosecond);

void everything(benchmark::State& state) { load(state, imagenet_recipe()); }
BENCHMARK(everything)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace weft
