// The causal WKV at the width of RWKV-4 169M: a step of generation, prompts, and its gradient.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <limits>

#include "ops/causal_wkv/causal_wkv_grad.h"
#include "ops/testing/random.h"

namespace weft {
namespace {

using testing::random_tensor;

// The machine may be shared: what something takes is the least that it takes in a number of attempts.
template <class Body>
void measure(benchmark::State& state, std::int64_t elements, Body body) {
  double least = std::numeric_limits<double>::infinity();
  body();
  for (auto _ : state) {
    const auto start = std::chrono::steady_clock::now();
    body();
    benchmark::ClobberMemory();
    const double time = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    least = std::min(least, time);
    state.SetIterationTime(time);
  }
  state.counters["least_us"] = least * 1e6;
  state.counters["ns_per_element"] = least * 1e9 / static_cast<double>(elements);
}

std::array<Tensor, 5> make_inputs(const Shape& shape) {
  std::array<Tensor, 5> in = {random_tensor(shape, 1), random_tensor(shape, 2), random_tensor({shape[2]}, 3, 0.5F, 1),
                              random_tensor({shape[2]}, 4), random_tensor({shape[0], 3, shape[2]}, 5)};
  for (float& x : in[4].mutable_data<float>()) x = 1 + std::abs(x);
  return in;
}

void scan(benchmark::State& state) {
  const Shape shape{1, state.range(0), state.range(1)};
  const auto threads = static_cast<int>(state.range(2));
  const auto inputs = make_inputs(shape);
  std::vector<TensorType> in;
  std::vector<const std::byte*> from;
  for (const Tensor& input : inputs) {
    in.push_back(input.type());
    from.push_back(input.raw());
  }
  const std::vector<TensorType> out = infer(CausalWkv{}, in);
  std::array<Tensor, 2> results = {Tensor(out[0]), Tensor(out[1])};
  const std::vector<std::byte*> to = {results[0].mutable_raw(), results[1].mutable_raw()};
  const std::vector<const Tensor*> constants(in.size());
  const auto kernel = make_kernel(CausalWkv{}, {.in = in, .out = out, .constants = constants, .threads = threads});
  Tensor scratch(DType::kU8, {static_cast<std::int64_t>(kernel->scratch_bytes())});
  const Workers workers(threads);
  workers.enter([&] {
    measure(state, shape.elements(),
            [&] { kernel->run({.in = from, .out = to, .scratch = scratch.mutable_raw(), .workers = workers}); });
  });
}

void gradient(benchmark::State& state) {
  const Shape shape{1, state.range(0), state.range(1)};
  const auto in = make_inputs(shape);
  const Tensor gy = random_tensor(shape, 6);
  std::array<Tensor, 5> out = in;
  for (Tensor& x : out) x = x.clone();
  const Workers workers(static_cast<int>(state.range(2)));
  workers.enter([&] {
    measure(state, shape.elements(), [&] {
      causal_wkv_backward(shape,
                          {in[0].data<float>(), in[1].data<float>(), in[2].data<float>(), in[3].data<float>(),
                           in[4].data<float>(), gy.data<float>()},
                          {out[0].mutable_data<float>(), out[1].mutable_data<float>(), out[2].mutable_data<float>(),
                           out[3].mutable_data<float>(), out[4].mutable_data<float>()},
                          workers);
    });
  });
}

void shapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"T", "C", "threads"})->UseManualTime()->Unit(benchmark::kMicrosecond);
  for (const std::int64_t threads : {1, 2}) {
    for (const std::int64_t tokens : {1, 16, 256, 1024, 16384}) bench->Args({tokens, 768, threads});
  }
}

void few_channels(benchmark::internal::Benchmark* bench) {
  for (const std::int64_t threads : {1, 2}) bench->Args({65536, 16, threads});
}

BENCHMARK(scan)->Name("causal_wkv/scan")->Apply(shapes)->Apply(few_channels);
BENCHMARK(gradient)->Name("causal_wkv/gradient")->Apply(shapes);

}  // namespace
}  // namespace weft
