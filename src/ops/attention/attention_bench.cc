// Attention at the shapes of DeiT-tiny (3 heads of 64 channels) at 224, 512 and 1024 pixels, in f32 and bf16, counting
// the two products: 4·T²·C operations. Beside it the plain product rate: x·Wᵀ of [1024,512] by [512,512].
#include <benchmark/benchmark.h>

#include "ops/attention/attention.h"
#include "ops/linear/linear.h"
#include "ops/testing/random.h"

namespace weft {
namespace {

void run(benchmark::State& state, const Kernel& kernel, const std::vector<const std::byte*>& in, Tensor& y,
         const Workers& workers, double operations) {
  Tensor scratch(DType::kU8, Shape{static_cast<std::int64_t>(kernel.scratch_bytes())});
  const std::vector<std::byte*> out = {y.mutable_raw()};
  for (auto _ : state) {
    workers.enter([&] { kernel.run({.in = in, .out = out, .scratch = scratch.mutable_raw(), .workers = workers}); });
  }
  state.counters["GFLOP/s"] = benchmark::Counter(1e-9 * operations, benchmark::Counter::kIsIterationInvariantRate);
}

void BM_Attention(benchmark::State& state) {
  const std::int64_t tokens = state.range(0);
  constexpr std::int64_t kHeads = 3;
  constexpr std::int64_t kChannels = 64 * kHeads;
  const Workers workers(static_cast<int>(state.range(2)));
  const TensorType type{DType::kF32, {1, tokens, kChannels}};
  const std::vector<TensorType> in(3, type);
  const std::vector<const Tensor*> constants(3, nullptr);
  std::vector<Tensor> qkv;
  for (std::uint64_t seed : {1, 2, 3}) qkv.push_back(testing::random_tensor(type.shape, seed));
  PackCache packs;
  const auto kernel =
      make_kernel(Attention{.heads = kHeads}, {.in = in,
                                               .out = std::span(&type, 1),
                                               .constants = constants,
                                               .threads = workers.count(),
                                               .packs = &packs,
                                               .precision = state.range(1) ? DType::kBF16 : DType::kF32});
  Tensor y(type);
  run(state, *kernel, {qkv[0].raw(), qkv[1].raw(), qkv[2].raw()}, y, workers,
      4 * static_cast<double>(tokens * tokens * kChannels));
}

void BM_PlainProduct(benchmark::State& state) {
  const Workers workers(static_cast<int>(state.range(1)));
  const std::vector<TensorType> in = {{DType::kF32, {1024, 512}}, {DType::kF32, {512, 512}}};
  const Tensor x = testing::random_tensor(in[0].shape, 1);
  const Tensor weight = testing::random_tensor(in[1].shape, 2);
  const std::vector<const Tensor*> constants = {nullptr, &weight};
  PackCache packs;
  const auto kernel = make_kernel(Linear{}, {.in = in,
                                             .out = std::span(in).first(1),
                                             .constants = constants,
                                             .threads = workers.count(),
                                             .packs = &packs,
                                             .precision = state.range(0) ? DType::kBF16 : DType::kF32});
  Tensor y(in[0]);
  run(state, *kernel, {x.raw(), weight.raw()}, y, workers, 2.0 * 1024 * 512 * 512);
}

BENCHMARK(BM_Attention)
    ->ArgsProduct({{197, 1025, 4097}, {0, 1}, {1, 2}})
    ->ArgNames({"T", "bf16", "threads"})
    ->UseRealTime();
BENCHMARK(BM_PlainProduct)->ArgsProduct({{0, 1}, {1, 2}})->ArgNames({"bf16", "threads"})->UseRealTime();

}  // namespace
}  // namespace weft
