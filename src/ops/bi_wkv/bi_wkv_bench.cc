// The Bi-WKV scan at the shapes of Vision-RWKV, next to what bounds it, measured in the same run on as many threads: an
// exponential for each element, and reading k and v and writing y.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/bi_wkv/bi_wkv_bench.cc"
#include "hwy/foreach_target.h"
// Highway wants foreach_target first.
#include "hwy/highway.h"
#include "kernel/simd.h"

HWY_BEFORE_NAMESPACE();
namespace weft {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
using D = hn::ScalableTag<float>;

// What every implementation must do at least, for n elements, a multiple of 16.
void take_exponentials(const float* x, float* y, std::int64_t n) {
  const D d;
  for (std::int64_t i = 0; i < n; i += static_cast<std::int64_t>(hn::Lanes(d))) {
    hn::StoreU(exp_in_range(d, hn::LoadU(d, x + i)), d, y + i);
  }
}

void read_two_write_one(const float* k, const float* v, float* y, std::int64_t n) {
  const D d;
  for (std::int64_t i = 0; i < n; i += static_cast<std::int64_t>(hn::Lanes(d))) {
    hn::StoreU(hn::Add(hn::LoadU(d, k + i), hn::LoadU(d, v + i)), d, y + i);
  }
}
}  // namespace HWY_NAMESPACE
}  // namespace weft
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <limits>
#include <random>

#include "ops/bi_wkv/bi_wkv.h"
#include "ops/kernels.h"

namespace weft {
namespace {

HWY_EXPORT(take_exponentials);
HWY_EXPORT(read_two_write_one);

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

// The machine may be shared: what something takes is the least that it takes in a number of attempts.
template <class Body>
double least_seconds(Body body) {
  double least = std::numeric_limits<double>::infinity();
  double spent = 0;
  for (int attempts = 0; attempts < 5 || spent < 0.02; ++attempts) {
    const double attempt = seconds(body);
    least = std::min(least, attempt);
    spent += attempt;
  }
  return least;
}

// One exponential for each element, always in the first-level cache.
double exponentials(const Workers& workers, std::int64_t elements) {
  constexpr std::int64_t kChunk = 2048;
  const Tensor x = normal({kChunk}, 1);
  std::vector<Tensor> y;
  for (int i = 0; i < workers.count(); ++i) y.push_back(normal({kChunk}, 1));
  return least_seconds([&] {
    workers.parallel_for(elements / kChunk + 1, 8, [&](std::int64_t begin, std::int64_t end) {
      float* to = y[static_cast<std::size_t>(workers.index())].mutable_data<float>().data();
      for (; begin < end; ++begin) HWY_DYNAMIC_DISPATCH(take_exponentials)(x.data<float>().data(), to, kChunk);
    });
  });
}

double moving(const Workers& workers, const Tensor& k, const Tensor& v, Tensor& y) {
  float* to = y.mutable_data<float>().data();
  return least_seconds([&] {
    workers.parallel_for(k.elements() / 16, 1024, [&](std::int64_t begin, std::int64_t end) {
      HWY_DYNAMIC_DISPATCH(read_two_write_one)
      (k.data<float>().data() + 16 * begin, v.data<float>().data() + 16 * begin, to + 16 * begin, 16 * (end - begin));
    });
  });
}

// Bytes are those that any implementation must move: k and v in, y out. least_us is the fastest iteration; of_exp and
// of_memory are the shares of it that the bounds take.
void run_scan(benchmark::State& state, Wkv form, float key_scale) {
  const std::int64_t tokens = state.range(0);
  const std::int64_t channels = state.range(1);
  const int threads = static_cast<int>(state.range(2));
  const Shape shape = {1, tokens, channels};
  const std::array inputs = {normal(shape, key_scale), normal(shape, 1),
                             normal({channels}, 3.0F / static_cast<float>(tokens)),
                             normal({channels}, 1.0F / static_cast<float>(tokens))};
  Tensor y(DType::kF32, shape);
  std::vector<TensorType> in, out = {y.type()};
  std::vector<const std::byte*> in_data;
  std::vector<std::byte*> out_data = {y.mutable_raw()};
  for (const Tensor& input : inputs) {
    in.push_back(input.type());
    in_data.push_back(input.raw());
  }
  const std::vector<const Tensor*> constants(inputs.size());
  const auto kernel =
      make_kernel(BiWkv{.wkv = form}, {.in = in, .out = out, .constants = constants, .threads = threads});
  Tensor scratch(DType::kU8, {static_cast<std::int64_t>(kernel->scratch_bytes())});
  const Workers workers(threads);
  double least = std::numeric_limits<double>::infinity(), exp_seconds = 0, memory_seconds = 0;
  workers.enter([&] {
    // First, so that no page is touched for the first time while the clock runs.
    memory_seconds = moving(workers, inputs[0], inputs[1], y);
    exp_seconds = exponentials(workers, shape.elements());
    const auto run = [&] {
      kernel->run({.in = in_data, .out = out_data, .scratch = scratch.mutable_raw(), .workers = workers});
    };
    run();
    for (auto _ : state) {
      const double time = seconds(run);
      least = std::min(least, time);
      state.SetIterationTime(time);
    }
  });
  state.SetItemsProcessed(state.iterations() * shape.elements());
  state.SetBytesProcessed(state.iterations() * shape.elements() * std::int64_t{3 * sizeof(float)});
  state.counters["least_us"] = least * 1e6;
  state.counters["ns_per_element"] = least * 1e9 / static_cast<double>(shape.elements());
  state.counters["of_exp"] = exp_seconds / least;
  state.counters["of_memory"] = memory_seconds / least;
}

void scan(benchmark::State& state) { run_scan(state, Wkv::kPaper, 1); }
void scan_released_kernel(benchmark::State& state) { run_scan(state, Wkv::kReleasedKernel, 1); }
// Keys so far apart that every channel leaves the range of f32.
void scan_log_space(benchmark::State& state) { run_scan(state, Wkv::kPaper, 50); }

void shapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"T", "C", "threads"})->UseManualTime()->Unit(benchmark::kMicrosecond);
  for (const std::int64_t threads : {1, 2}) {
    for (const std::int64_t channels : {192, 384, 768}) {
      for (const std::int64_t tokens : {196, 1024, 4096, 16384}) bench->Args({tokens, channels, threads});
    }
  }
}

void few_shapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"T", "C", "threads"})->UseManualTime()->Unit(benchmark::kMicrosecond);
  for (const std::int64_t threads : {1, 2}) {
    for (const std::int64_t tokens : {196, 1024, 4096, 16384}) bench->Args({tokens, 192, threads});
  }
}

BENCHMARK(scan)->Name("bi_wkv/scan")->Apply(shapes);
BENCHMARK(scan_released_kernel)->Name("bi_wkv/scan_released_kernel")->Apply(few_shapes);
BENCHMARK(scan_log_space)->Name("bi_wkv/scan_log_space")->Apply(few_shapes);

}  // namespace
}  // namespace weft
#endif  // HWY_ONCE
