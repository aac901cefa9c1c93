// The gradient of Bi-WKV next to the scan whose gradient it is, measured in turns in the same run on as many threads.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <limits>
#include <random>

#include "ops/bi_wkv/bi_wkv_grad.h"
#include "ops/kernels.h"

namespace weft {
namespace {

Tensor normal(Shape shape, float scale) {
  Tensor out(DType::kF32, std::move(shape));
  std::mt19937 random(1);
  std::normal_distribution<float> values;
  for (float& x : out.mutable_data<float>()) x = values(random) * scale;
  return out;
}

template <class Body>
double seconds(Body body) {
  const auto start = std::chrono::steady_clock::now();
  body();
  benchmark::ClobberMemory();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// k, v, w and u, and the scan made for them.
struct Forward {
  std::array<Tensor, 4> inputs;
  Tensor y, scratch;
  std::unique_ptr<Kernel> kernel;

  Forward(Wkv form, const Shape& shape, float key_scale, int threads)
      : inputs{normal(shape, key_scale), normal(shape, 1), normal({shape[2]}, 3.0F / static_cast<float>(shape[1])),
               normal({shape[2]}, 1.0F / static_cast<float>(shape[1]))},
        y(DType::kF32, shape) {
    std::vector<TensorType> in;
    for (const Tensor& input : inputs) in.push_back(input.type());
    const std::vector<TensorType> out = {y.type()};
    const std::vector<const Tensor*> constants(inputs.size());
    kernel = make_kernel(BiWkv{.wkv = form}, {.in = in, .out = out, .constants = constants, .threads = threads});
    scratch = Tensor(DType::kU8, {static_cast<std::int64_t>(kernel->scratch_bytes())});
  }

  void run(const Workers& workers) {
    std::array<const std::byte*, 4> in{};
    std::ranges::transform(inputs, in.begin(), [](const Tensor& x) { return x.raw(); });
    const std::array<std::byte*, 1> out = {y.mutable_raw()};
    kernel->run({.in = in, .out = out, .scratch = scratch.mutable_raw(), .workers = workers});
  }
};

// least_us is the fastest iteration, of_forward how many times as long as the fastest forward scan it takes.
void run_backward(benchmark::State& state, Wkv form, float key_scale) {
  const Shape shape = {state.range(0), state.range(1), state.range(2)};
  const int threads = static_cast<int>(state.range(3));
  Forward forward(form, shape, key_scale, threads);
  const Tensor gy = normal(shape, 1);
  Tensor gk = normal(shape, 1), gv = normal(shape, 1), gw = normal({shape[2]}, 1), gu = normal({shape[2]}, 1);
  const auto& [k, v, w, u] = forward.inputs;
  const BiWkvBackwardInput<float> in = {k.data<float>(), v.data<float>(), w.data<float>(), u.data<float>(),
                                        gy.data<float>()};
  const BiWkvGradients<float> out = {gk.mutable_data<float>(), gv.mutable_data<float>(), gw.mutable_data<float>(),
                                     gu.mutable_data<float>()};
  const Workers workers(threads);
  double least = std::numeric_limits<double>::infinity(), least_forward = least;
  workers.enter([&] {
    forward.run(workers);
    for (auto _ : state) {
      least_forward = std::min(least_forward, seconds([&] { forward.run(workers); }));
      const double time = seconds([&] { bi_wkv_backward(form, shape, in, out, workers); });
      least = std::min(least, time);
      state.SetIterationTime(time);
    }
  });
  state.SetItemsProcessed(state.iterations() * shape.elements());
  state.counters["least_us"] = least * 1e6;
  state.counters["ns_per_element"] = least * 1e9 / static_cast<double>(shape.elements());
  state.counters["of_forward"] = least / least_forward;
}

void backward(benchmark::State& state) { run_backward(state, Wkv::kPaper, 1); }
void backward_released_kernel(benchmark::State& state) { run_backward(state, Wkv::kReleasedKernel, 1); }
// Keys so far apart that every channel leaves the range of f32.
void backward_log_space(benchmark::State& state) { run_backward(state, Wkv::kPaper, 50); }

// A training batch of small pictures, and single pictures from small to large.
void shapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"B", "T", "C", "threads"})->UseManualTime()->Unit(benchmark::kMicrosecond)->MinTime(0.1);
  for (const std::int64_t threads : {1, 2}) {
    bench->Args({128, 64, 96, threads});
    for (const std::int64_t tokens : {64, 196, 1024, 4096}) bench->Args({1, tokens, 192, threads});
  }
}

BENCHMARK(backward)->Name("bi_wkv/backward")->Apply(shapes);
BENCHMARK(backward_released_kernel)->Name("bi_wkv/backward_released_kernel")->Apply(shapes);
BENCHMARK(backward_log_space)->Name("bi_wkv/backward_log_space")->Apply(shapes);

}  // namespace
}  // namespace weft
