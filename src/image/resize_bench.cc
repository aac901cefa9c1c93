#include <benchmark/benchmark.h>

#include "weft/image.h"

namespace weft {
namespace {

Image gradient(std::int64_t height, std::int64_t width) {
  Image image{height, width, 3, std::vector<std::uint8_t>(static_cast<std::size_t>(height * width * 3))};
  for (std::size_t i = 0; i < image.pixels.size(); ++i) image.pixels[i] = static_cast<std::uint8_t>(i * 7 / 3);
  return image;
}

/// A 12-megapixel photograph to a classifier's shorter side.
void photograph_to_256(benchmark::State& state) {
  const Image image = gradient(3000, 4000);
  const auto filter = static_cast<Filter>(state.range(0));
  for (auto _ : state) benchmark::DoNotOptimize(resize(image, 256, 341, filter));
  state.SetLabel(std::string(name_of(filter)));
}
BENCHMARK(photograph_to_256)->DenseRange(0, 4)->Unit(benchmark::kMillisecond);

void photograph_to_input(benchmark::State& state) {
  const Image image = gradient(3000, 4000);
  for (auto _ : state) benchmark::DoNotOptimize(to_input(std::span(&image, 1), {}));
}
BENCHMARK(photograph_to_input)->Unit(benchmark::kMillisecond);

/// A picture of ImageNet's usual size.
void small_to_input(benchmark::State& state) {
  const Image image = gradient(375, 500);
  for (auto _ : state) benchmark::DoNotOptimize(to_input(std::span(&image, 1), {}));
}
BENCHMARK(small_to_input)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace weft
