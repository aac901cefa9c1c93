// Attention free attention at C = 384: 196 tokens are a picture of 224 x 224 in patches of 16. Counted are the products
// with what has a bias, of numerator and denominator.
#include <benchmark/benchmark.h>

#include "ops/aft/aft.h"
#include "ops/kernels.h"
#include "ops/testing/random.h"

namespace weft {
namespace {

constexpr std::int64_t kChannels = 384;

void run(benchmark::State& state, const Aft& op, std::int64_t keys, const std::optional<Shape>& bias) {
  const std::int64_t tokens = state.range(0);
  const Workers workers(static_cast<int>(state.range(1)));
  std::vector<Tensor> tensors = {testing::random_tensor({1, tokens, keys}, 1),
                                 testing::random_tensor({1, tokens, kChannels}, 2)};
  if (bias) tensors.push_back(testing::random_tensor(*bias, 3));
  std::vector<TensorType> in;
  std::vector<const std::byte*> inputs;
  for (const Tensor& tensor : tensors) {
    in.push_back(tensor.type());
    inputs.push_back(tensor.raw());
  }
  Tensor y(in[1]);
  const std::vector<const Tensor*> constants(in.size());
  const auto kernel = make_lone_kernel(
      op, {.in = in, .out = std::span(in).subspan(1, 1), .constants = constants, .threads = workers.count()});
  Tensor scratch(DType::kU8, Shape{static_cast<std::int64_t>(kernel->scratch_bytes())});
  const std::vector<std::byte*> outputs = {y.mutable_raw()};
  for (auto _ : state) {
    workers.enter(
        [&] { kernel->run({.in = inputs, .out = outputs, .scratch = scratch.mutable_raw(), .workers = workers}); });
  }
  state.counters["GFLOP/s"] =
      benchmark::Counter(2e-9 * static_cast<double>(macs(op, in)), benchmark::Counter::kIsIterationInvariantRate);
}

void BM_AftSimple(benchmark::State& state) { run(state, {}, kChannels, std::nullopt); }
void BM_AftSimpleCausal(benchmark::State& state) { run(state, {.causal = true}, kChannels, std::nullopt); }
void BM_AftFull(benchmark::State& state) { run(state, {}, kChannels, Shape{state.range(0), state.range(0)}); }
void BM_AftFullCausal(benchmark::State& state) {
  run(state, {.causal = true}, kChannels, Shape{state.range(0), state.range(0)});
}
void BM_AftLocal(benchmark::State& state) {
  run(state, {.window = 32}, kChannels, Shape{state.range(0), state.range(0)});
}
// As the paper's AFT-conv-384-11: 11 x 11 taps, here in 32 heads.
void BM_AftConv(benchmark::State& state) {
  const int side = state.range(0) == 196 ? 14 : 32;
  run(state, {.height = side, .width = side}, 32, Shape{32, 11, 11});
}
void BM_AftConvLine(benchmark::State& state) { run(state, {.causal = true}, 32, Shape{32, 1, 11}); }

void sizes(benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgNames({"T", "threads"})->UseRealTime()->Unit(benchmark::kMicrosecond);
  for (const int tokens : {196, 1024}) {
    for (const int threads : {1, 2}) benchmark->Args({tokens, threads});
  }
}
BENCHMARK(BM_AftSimple)->Apply(sizes);
BENCHMARK(BM_AftSimpleCausal)->Apply(sizes);
BENCHMARK(BM_AftFull)->Apply(sizes);
BENCHMARK(BM_AftFullCausal)->Apply(sizes);
BENCHMARK(BM_AftLocal)->Apply(sizes);
BENCHMARK(BM_AftConv)->Apply(sizes);
BENCHMARK(BM_AftConvLine)->Apply(sizes);

}  // namespace
}  // namespace weft
