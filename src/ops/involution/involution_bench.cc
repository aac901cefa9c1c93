// The involution by 7 x 7 at the shapes of I-D-DWNet-tiny's stages, in 32 groups, counting its products alone.
#include <benchmark/benchmark.h>

#include "ops/involution/involution.h"
#include "ops/kernels.h"
#include "ops/testing/random.h"

namespace weft {
namespace {

void BM_Involution(benchmark::State& state) {
  const std::int64_t side = state.range(0);
  const std::int64_t channels = state.range(1);
  const Workers workers(static_cast<int>(state.range(2)));
  const Involution op{.kernel_size = 7};
  const std::vector<TensorType> in = {{DType::kF32, {1, side, side, channels}},
                                      {DType::kF32, {1, side, side, 32 * op.taps()}}};
  const Tensor x = testing::random_tensor(in[0].shape, 1);
  const Tensor weight = testing::random_tensor(in[1].shape, 2);
  Tensor y(in[0]);
  const std::vector<const Tensor*> constants(2, nullptr);
  const auto kernel = make_lone_kernel(
      op, {.in = in, .out = std::span(in).first(1), .constants = constants, .threads = workers.count()});
  Tensor scratch(DType::kU8, Shape{static_cast<std::int64_t>(kernel->scratch_bytes())});
  const std::vector<const std::byte*> inputs = {x.raw(), weight.raw()};
  const std::vector<std::byte*> outputs = {y.mutable_raw()};
  for (auto _ : state) {
    workers.enter(
        [&] { kernel->run({.in = inputs, .out = outputs, .scratch = scratch.mutable_raw(), .workers = workers}); });
  }
  state.counters["GFLOP/s"] = benchmark::Counter(2e-9 * static_cast<double>(y.elements() * op.taps()),
                                                 benchmark::Counter::kIsIterationInvariantRate);
}

BENCHMARK(BM_Involution)
    ->ArgNames({"side", "C", "threads"})
    ->Args({56, 96, 1})
    ->Args({56, 96, 2})
    ->Args({28, 192, 1})
    ->Args({14, 384, 1})
    ->Args({7, 768, 1})
    ->UseRealTime();

}  // namespace
}  // namespace weft
