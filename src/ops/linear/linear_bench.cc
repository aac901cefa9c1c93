// Products at the shapes of Vision-RWKV: K -> N for T tokens, on one and two threads.
#include <benchmark/benchmark.h>

#include "ops/kernels.h"
#include "ops/linear/linear.h"
#include "ops/testing/random.h"

namespace weft {
namespace {

void BM_Linear(benchmark::State& state) {
  const std::int64_t tokens = state.range(0);
  const std::int64_t k = state.range(1);
  const std::int64_t n = state.range(2);
  const Workers workers(static_cast<int>(state.range(3)));
  const std::vector<TensorType> in = {{DType::kF32, {tokens, k}}, {DType::kF32, {n, k}}};
  const std::vector<TensorType> out = {{DType::kF32, {tokens, n}}};
  const Tensor x = testing::random_tensor(in[0].shape, 1);
  const Tensor weight = testing::random_tensor(in[1].shape, 2);
  Tensor y(out[0]);
  const std::vector<const Tensor*> constants = {nullptr, &weight};
  PackCache packs;
  const auto kernel = make_lone_kernel(
      Linear{}, {.in = in, .out = out, .constants = constants, .threads = workers.count(), .packs = &packs});
  Tensor scratch(DType::kU8, Shape{static_cast<std::int64_t>(kernel->scratch_bytes())});
  const std::vector<const std::byte*> inputs = {x.raw(), weight.raw()};
  const std::vector<std::byte*> outputs = {y.mutable_raw()};
  for (auto _ : state) {
    workers.enter(
        [&] { kernel->run({.in = inputs, .out = outputs, .scratch = scratch.mutable_raw(), .workers = workers}); });
  }
  state.counters["GFLOP/s"] =
      benchmark::Counter(2e-9 * static_cast<double>(tokens * k * n), benchmark::Counter::kIsIterationInvariantRate);
}

BENCHMARK(BM_Linear)
    ->ArgsProduct({{196, 1024, 16384}, {192}, {192, 768}, {1, 2}})
    ->ArgsProduct({{196, 1024, 16384}, {768}, {192}, {1, 2}})
    ->ArgNames({"T", "K", "N", "threads"})
    ->UseRealTime();

}  // namespace
}  // namespace weft
