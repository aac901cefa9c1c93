// The depth-wise convolution by 7 x 7 at the shapes of DWNet-tiny's stages, with kernels that are known beforehand and
// with kernels that come with the picture; and beside it oneDNN's own, on one thread: of grids as weft has them,
// channels last, and of grids in the layout of its choice.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstring>
#include <dnnl.hpp>
#include <unordered_map>

#include "ops/depthwise_conv/depthwise_conv.h"
#include "ops/kernels.h"
#include "ops/testing/random.h"

namespace weft {
namespace {

constexpr int kKernel = 7;

void count(benchmark::State& state, std::int64_t side, std::int64_t channels) {
  state.counters["GFLOP/s"] = benchmark::Counter(2e-9 * static_cast<double>(side * side * channels * kKernel * kKernel),
                                                 benchmark::Counter::kIsIterationInvariantRate);
}

void BM_DepthwiseConv(benchmark::State& state) {
  const std::int64_t side = state.range(0);
  const std::int64_t channels = state.range(1);
  const bool dynamic = state.range(2) != 0;
  const bool is_bf16 = state.range(3) != 0;
  const Workers workers(static_cast<int>(state.range(4)));
  const Shape kernels = dynamic ? Shape{1, channels, kKernel, kKernel} : Shape{channels, 1, kKernel, kKernel};
  const std::vector<TensorType> in = {{DType::kF32, {1, side, side, channels}}, {DType::kF32, kernels}};
  const Tensor x = testing::random_tensor(in[0].shape, 1).to(is_bf16 ? DType::kBF16 : DType::kF32);
  const Tensor weight = testing::random_tensor(in[1].shape, 2);
  Tensor y(in[0]);
  const std::vector<const Tensor*> constants = {nullptr, dynamic ? nullptr : &weight};
  PackCache packs;
  const KernelRequest request{
      .in = in, .out = std::span(in).first(1), .constants = constants, .threads = workers.count(), .packs = &packs};
  const auto kernel = make_lone_kernel(DepthwiseConv{.padding = kKernel / 2}, request);
  if (is_bf16) kernel->give_bf16(0);
  Tensor scratch(DType::kU8, Shape{static_cast<std::int64_t>(kernel->scratch_bytes())});
  const std::vector<const std::byte*> inputs = {x.raw(), weight.raw()};
  const std::vector<std::byte*> outputs = {y.mutable_raw()};
  for (auto _ : state) {
    workers.enter(
        [&] { kernel->run({.in = inputs, .out = outputs, .scratch = scratch.mutable_raw(), .workers = workers}); });
  }
  count(state, side, channels);
}

void BM_OneDnnDepthwiseConv(benchmark::State& state) {
  using dnnl::memory;
  const std::int64_t side = state.range(0);
  const std::int64_t channels = state.range(1);
  const auto grids = state.range(2) != 0 ? memory::format_tag::any : memory::format_tag::nhwc;
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  const memory::desc grid({1, channels, side, side}, memory::data_type::f32, grids);
  const memory::desc kernels({channels, 1, 1, kKernel, kKernel}, memory::data_type::f32, memory::format_tag::any);
  const dnnl::convolution_forward::primitive_desc chosen({dnnl::prop_kind::forward_inference,
                                                          dnnl::algorithm::convolution_direct,
                                                          grid,
                                                          kernels,
                                                          grid,
                                                          {1, 1},
                                                          {kKernel / 2, kKernel / 2},
                                                          {kKernel / 2, kKernel / 2}},
                                                         engine);
  const dnnl::convolution_forward convolution(chosen);
  const Tensor filling = testing::random_tensor({side * side * channels * 2}, 1);
  const auto filled = [&](const memory::desc& desc) {
    memory result(desc, engine);
    std::memcpy(result.get_data_handle(), filling.raw(), std::min(desc.get_size(), filling.bytes()));
    return result;
  };
  const std::unordered_map<int, memory> arguments = {{DNNL_ARG_SRC, filled(chosen.src_desc())},
                                                     {DNNL_ARG_WEIGHTS, filled(chosen.weights_desc())},
                                                     {DNNL_ARG_DST, filled(chosen.dst_desc())}};
  state.SetLabel(chosen.impl_info_str());
  for (auto _ : state) {
    convolution.execute(stream, arguments);
    stream.wait();
  }
  count(state, side, channels);
}

void stages(benchmark::internal::Benchmark* b, const std::vector<std::vector<std::int64_t>>& others) {
  for (std::int64_t stage = 0; stage < 4; ++stage) {
    std::vector<std::vector<std::int64_t>> product = {{56 >> stage}, {96 << stage}};
    product.insert(product.end(), others.begin(), others.end());
    b->ArgsProduct(product);
  }
  b->UseRealTime();
}

BENCHMARK(BM_DepthwiseConv)->ArgNames({"side", "C", "dynamic", "bf16", "threads"})->Apply([](auto* b) {
  stages(b, {{0, 1}, {0, 1}, {1, 2}});
});
BENCHMARK(BM_OneDnnDepthwiseConv)->ArgNames({"side", "C", "own layout"})->Apply([](auto* b) { stages(b, {{0, 1}}); });

}  // namespace
}  // namespace weft
