// The Bi-WKV scan at the shapes of Vision-RWKV, next to what bounds it: the copying of its tensors and two exps for
// each element (one for a sequence of a single tile).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/bi_wkv/bi_wkv_bench.cc"
#include "hwy/foreach_target.h"
// Highway wants foreach_target first.
#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace weft {
namespace HWY_NAMESPACE {
void exp_all(const float* x, float* y, std::size_t n) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::ScalableTag<float> d;
  for (std::size_t i = 0; i + hn::Lanes(d) <= n; i += hn::Lanes(d)) {
    hn::StoreU(hn::Exp(d, hn::LoadU(d, x + i)), d, y + i);
  }
}
}  // namespace HWY_NAMESPACE
}  // namespace weft
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <benchmark/benchmark.h>

#include <array>
#include <cstring>
#include <random>

#include "ops/bi_wkv/bi_wkv.h"
#include "ops/kernels.h"

namespace weft {
namespace {

HWY_EXPORT(exp_all);

Tensor normal(Shape shape, float scale) {
  Tensor out(DType::kF32, std::move(shape));
  std::mt19937 random(1);
  std::normal_distribution<float> values;
  for (float& x : out.mutable_data<float>()) x = values(random) * scale;
  return out;
}

void count(benchmark::State& state, std::int64_t elements, std::int64_t tensors) {
  state.SetItemsProcessed(state.iterations() * elements);
  state.SetBytesProcessed(state.iterations() * elements * tensors * std::int64_t{sizeof(float)});
}

// Bytes are those that any implementation must move: k and v in, y out.
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
  workers.enter([&] {
    for (auto _ : state) {
      kernel->run({.in = in_data, .out = out_data, .scratch = scratch.mutable_raw(), .workers = workers});
    }
  });
  count(state, shape.elements(), 3);
}

void scan(benchmark::State& state) { run_scan(state, Wkv::kPaper, 1); }
void scan_released_kernel(benchmark::State& state) { run_scan(state, Wkv::kReleasedKernel, 1); }
// Keys so far apart that every channel leaves the range of f32.
void scan_log_space(benchmark::State& state) { run_scan(state, Wkv::kPaper, 50); }

// Reads two tensors and writes one.
void bound_memory(benchmark::State& state) {
  const std::int64_t elements = state.range(0) * state.range(1);
  const Tensor k = normal({elements}, 1);
  const Tensor v = normal({elements}, 1);
  Tensor y(DType::kF32, {elements});
  for (auto _ : state) {
    const float* a = k.data<float>().data();
    const float* b = v.data<float>().data();
    float* to = y.mutable_data<float>().data();
    for (std::int64_t i = 0; i < elements; ++i) to[i] = a[i] + b[i];
    benchmark::ClobberMemory();
  }
  count(state, elements, 3);
}

// One exp for each element, in the first-level cache.
void bound_exp(benchmark::State& state) {
  const Tensor x = normal({2048}, 1);
  Tensor y(DType::kF32, {2048});
  for (auto _ : state) {
    HWY_DYNAMIC_DISPATCH(exp_all)(x.data<float>().data(), y.mutable_data<float>().data(), 2048);
    benchmark::ClobberMemory();
  }
  count(state, 2048, 2);
}

void shapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"T", "C", "threads"})->UseRealTime()->Unit(benchmark::kMicrosecond);
  for (const std::int64_t threads : {1, 2}) {
    for (const std::int64_t channels : {192, 384, 768}) {
      for (const std::int64_t tokens : {196, 1024, 4096, 16384}) bench->Args({tokens, channels, threads});
    }
  }
}

void few_shapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"T", "C", "threads"})->UseRealTime()->Unit(benchmark::kMicrosecond);
  for (const std::int64_t tokens : {196, 1024, 4096, 16384}) bench->Args({tokens, 192, 1});
}

BENCHMARK(scan)->Name("bi_wkv/scan")->Apply(shapes);
BENCHMARK(scan_released_kernel)->Name("bi_wkv/scan_released_kernel")->Apply(few_shapes);
BENCHMARK(scan_log_space)->Name("bi_wkv/scan_log_space")->Apply(few_shapes);
BENCHMARK(bound_memory)
    ->Name("bi_wkv/bound_memory")
    ->ArgNames({"T", "C"})
    ->ArgsProduct({{196, 1024, 4096, 16384}, {192, 384, 768}});
BENCHMARK(bound_exp)->Name("bi_wkv/bound_exp");

}  // namespace
}  // namespace weft
#endif  // HWY_ONCE
