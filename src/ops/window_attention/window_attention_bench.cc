// Window attention at the shapes of Swin-T's four stages at 224 pixels (windows of 7 × 7, shifted), of SwinV2 (16 ×
// 16), and of RMT: rows and columns of a grid, and grids as one window; in f32 and bf16, counting the two products.
#include <benchmark/benchmark.h>

#include "ops/kernels.h"
#include "ops/testing/random.h"
#include "ops/window_attention/window_attention.h"

namespace weft {
namespace {

void BM_WindowAttention(benchmark::State& state) {
  const auto argument = [&](int i) { return static_cast<int>(state.range(i)); };
  const WindowAttention a{.heads = argument(4),
                          .height = argument(0),
                          .width = argument(1),
                          .window_h = argument(2),
                          .window_w = argument(3),
                          .shift_h = argument(2) < argument(0) ? argument(2) / 2 : 0,
                          .shift_w = argument(3) < argument(1) ? argument(3) / 2 : 0};
  const std::int64_t channels = state.range(5);
  const Workers workers(argument(7));
  const TensorType x{DType::kF32, {1, std::int64_t{a.height} * a.width, channels}};
  const TensorType table{DType::kF32, {a.heads, a.bias_entries()}};
  const std::vector<TensorType> in{x, x, x, table};
  std::vector<Tensor> data;
  std::vector<const std::byte*> from;
  for (std::size_t i = 0; i < in.size(); ++i) data.push_back(testing::random_tensor(in[i].shape, i));
  for (const Tensor& tensor : data) from.push_back(tensor.raw());
  const std::vector<const Tensor*> constants{nullptr, nullptr, nullptr, &data[3]};
  PackCache packs;
  const auto kernel = make_kernel(a, {.in = in,
                                      .out = std::span(&x, 1),
                                      .constants = constants,
                                      .threads = workers.count(),
                                      .packs = &packs,
                                      .precision = state.range(6) ? DType::kBF16 : DType::kF32});
  Tensor y(x);
  Tensor scratch(DType::kU8, Shape{static_cast<std::int64_t>(kernel->scratch_bytes())});
  const std::vector<std::byte*> to{y.mutable_raw()};
  for (auto _ : state) {
    workers.enter([&] { kernel->run({.in = from, .out = to, .scratch = scratch.mutable_raw(), .workers = workers}); });
  }
  state.counters["GFLOP/s"] =
      benchmark::Counter(2e-9 * static_cast<double>(macs(a, in)), benchmark::Counter::kIsIterationInvariantRate);
}

void shapes(benchmark::internal::Benchmark* bench) {
  for (const std::int64_t bf16 : {0, 1}) {
    for (const std::int64_t threads : {1, 2}) {
      bench->Args({56, 56, 7, 7, 3, 96, bf16, threads});
      bench->Args({28, 28, 7, 7, 6, 192, bf16, threads});
      bench->Args({14, 14, 7, 7, 12, 384, bf16, threads});
      bench->Args({7, 7, 7, 7, 24, 768, bf16, threads});
      bench->Args({64, 64, 16, 16, 3, 96, bf16, threads});
      bench->Args({14, 14, 14, 14, 8, 256, bf16, threads});
      bench->Args({56, 56, 1, 56, 4, 64, bf16, threads});
      bench->Args({56, 56, 56, 1, 4, 64, bf16, threads});
      bench->Args({256, 256, 256, 1, 4, 64, bf16, threads});
      bench->Args({24, 24, 24, 24, 8, 256, bf16, threads});
      bench->Args({64, 64, 64, 64, 8, 256, bf16, threads});
    }
  }
}

BENCHMARK(BM_WindowAttention)
    ->Apply(shapes)
    ->ArgNames({"H", "W", "h", "w", "heads", "C", "bf16", "threads"})
    ->UseRealTime();

}  // namespace
}  // namespace weft
