// What the fused parts of a graph (torch/region.h) compute and differentiate, against the plain lowerings in f64.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "core/process_memory.h"
#include "models/vision_rwkv/vision_rwkv.h"
#include "ops/ops.h"
#include "ops/testing/op_test.h"
#include "ops/testing/random_graph.h"
#include "torch/engine.h"

namespace weft {
namespace {

using testing::random_graph;
using testing::random_tensor;
using testing::RandomGraph;
using testing::relative_error;
using Weights = std::map<std::string, Tensor, std::less<>>;

struct Case {
  const Graph& graph;
  const Weights& weights;
  std::span<const Tensor> inputs;
};

TorchGradients gradients_of(const Case& c, const TorchOptions& options) {
  std::vector<Tensor> cotangents;
  for (const Graph::Output& output : c.graph.outputs()) {
    const Shape& shape = c.graph.value(output.value).type.shape;
    cotangents.push_back(random_tensor(shape, 100 + cotangents.size()));
  }
  return load_torch_engine(options)->differentiate(c.graph, c.weights, c.inputs, cotangents);
}

// All that differentiate() gives, by name.
std::map<std::string, Tensor> all_of(const TorchGradients& gradients) {
  std::map<std::string, Tensor> all;
  for (std::size_t i = 0; i < gradients.outputs.size(); ++i) all.emplace(fmt::format("y{}", i), gradients.outputs[i]);
  for (std::size_t i = 0; i < gradients.inputs.size(); ++i) all.emplace(fmt::format("gx{}", i), gradients.inputs[i]);
  for (const auto& [name, gradient] : gradients.parameters) all.emplace("g " + name, gradient);
  return all;
}

double largest_element(const Tensor& tensor) {
  const Tensor wide = tensor.to(DType::kF64);
  double largest = 0;
  for (const double value : wide.data<double>()) largest = std::max(largest, std::abs(value));
  return largest;
}

// The fused way in f32 may be off by some times what libtorch's operators in f32 are, which sum up in another order;
// and, as these may be lucky, by some roundings of the largest element. As in the reference cases, what is much smaller
// than the largest of all results is held against a hundredth of that: it is what is left of large terms.
void expect_same_in_f32(const Case& c, TorchOptions options) {
  constexpr double kMargin = 4;
  constexpr double kRoundings = 32 * 0x1p-24;
  options.fused = true;
  const auto want = all_of(gradients_of(c, {.dtype = DType::kF64, .threads = 1}));
  const auto plain = all_of(gradients_of(c, {.threads = 1}));
  const auto got = all_of(gradients_of(c, options));
  ASSERT_EQ(got.size(), want.size());
  double largest = 0;
  for (const auto& [name, tensor] : want) largest = std::max(largest, largest_element(tensor));
  for (const auto& [name, tensor] : want) {
    const double own = largest_element(tensor);
    const double share = own / (own + 1e-2 * largest + 1e-6);
    const double tolerance = kMargin * share * relative_error(plain.at(name), tensor) + kRoundings;
    EXPECT_LE(share * relative_error(got.at(name), tensor), tolerance) << name;
  }
}

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.type() == b.type() && std::equal(a.raw(), a.raw() + a.bytes(), b.raw());
}

void expect_same_bits(const TorchGradients& a, const TorchGradients& b) {
  const auto left = all_of(a);
  const auto right = all_of(b);
  ASSERT_EQ(left.size(), right.size());
  for (const auto& [name, tensor] : left) {
    EXPECT_TRUE(same_bits(tensor, right.at(name))) << name;
  }
}

TEST(TorchFused, RandomGraphsHaveTheSameGradients) {
  for (std::uint64_t seed = 0; seed < 400; ++seed) {
    const RandomGraph g = random_graph(seed);
    SCOPED_TRACE(fmt::format("graph of seed {}:\n{}", seed, g.graph->str()));
    expect_same_in_f32({*g.graph, g.weights, g.inputs}, {.threads = 1});
  }
}

// A small Vision-RWKV with all that it can have, and weights that are not those of a fresh one.
struct Net {
  Graph graph{"net"};
  Weights weights;
  std::vector<Tensor> in;

  Net(std::int64_t batch, int side, int channels, bool all_options) {
    const vision_rwkv::Config config{.img_size = {side, side},
                                     .patch_size = 3,
                                     .embed_dims = channels,
                                     .depth = 3,
                                     .post_norm = all_options,
                                     .key_norm = all_options,
                                     .init_values = all_options ? std::optional(0.5) : std::nullopt,
                                     .head = vision_rwkv::Head::kLinear,
                                     .num_classes = 5};
    const Value image = graph.input("image", {DType::kF32, {batch, 3, side, side}});
    const auto values = vision_rwkv::build(graph, image, config, {});
    graph.output("logits", *values.logits);
    in.push_back(random_tensor({batch, 3, side, side}, 1));
    std::mt19937_64 random(7);
    for (const int id : graph.parameters()) {
      const Graph::ValueInfo& info = graph.value(id);
      Tensor tensor(DType::kF32, info.type.shape);
      info.initializer(tensor.mutable_data<float>(), random);
      const Tensor noise = random_tensor(info.type.shape, static_cast<std::uint64_t>(id), 0.3F);
      for (std::size_t i = 0; i < noise.data<float>().size(); ++i)
        tensor.mutable_data<float>()[i] += noise.data<float>()[i];
      weights.emplace(info.name, std::move(tensor));
    }
  }
  Case as_case() const { return {graph, weights, in}; }
};

TEST(TorchFused, VisionRwkvHasTheSameGradients) {
  for (const auto& [batch, side, channels] :
       {std::tuple{1, 12, 16}, std::tuple{2, 7, 18}, std::tuple{7, 30, 20}, std::tuple{33, 12, 17}}) {
    for (const bool all_options : {false, true}) {
      for (const int threads : {1, 2}) {
        SCOPED_TRACE(fmt::format("{} × {}, {} channels, {}, {} threads", batch, side, channels, all_options, threads));
        const Net net(batch, side, channels, all_options);
        expect_same_in_f32(net.as_case(), {.threads = threads});
      }
    }
  }
  load_torch_engine({.threads = 1});
}

// Some entries at a time, the last time fewer.
TEST(TorchFused, AttentionHasTheSameGradientsOnAnyNumberOfThreads) {
  Graph graph("attention");
  const std::vector<Tensor> in = {random_tensor({19, 70, 6}, 1), random_tensor({19, 90, 6}, 2),
                                  random_tensor({19, 90, 6}, 3)};
  std::vector<Value> values;
  for (const Tensor& tensor : in) values.push_back(graph.input("", tensor.type()));
  graph.output("y", attention(values[0], values[1], values[2], {.heads = 3}));
  const Weights none;
  const Case c{graph, none, in};
  expect_same_in_f32(c, {.threads = 2});
  for (const bool bf16 : {false, true}) {
    expect_same_bits(gradients_of(c, {.threads = 3, .fused = true, .bf16 = bf16}),
                     gradients_of(c, {.threads = 1, .fused = true, .bf16 = bf16}));
  }
}

TEST(TorchFused, RecomputingGivesTheSameBits) {
  const Net net(7, 30, 20, true);
  for (const bool bf16 : {false, true}) {
    const TorchGradients want = gradients_of(net.as_case(), {.threads = 2, .fused = true, .bf16 = bf16});
    expect_same_bits(gradients_of(net.as_case(), {.threads = 2, .fused = true, .bf16 = bf16}), want);
    const TorchOptions recomputing{.threads = 2, .fused = true, .bf16 = bf16, .recompute = true};
    expect_same_bits(gradients_of(net.as_case(), recomputing), want);
  }
  const TorchGradients plain = gradients_of(net.as_case(), {.threads = 1});
  expect_same_bits(gradients_of(net.as_case(), {.threads = 1, .recompute = true}), plain);
}

// Weights that are constants of the graph want no gradient; nor does what is before the first that does.
TEST(TorchFused, SkipsWhatIsFrozen) {
  for (int frozen = 0; frozen < 16; ++frozen) {
    SCOPED_TRACE(frozen);
    Graph graph("frozen");
    Weights weights;
    const auto weight = [&](const char* name, int bit, const Shape& shape) {
      const Tensor values = random_tensor(shape, static_cast<std::uint64_t>(bit) + 5);
      if ((frozen & (1 << bit)) != 0) return graph.constant(values);
      weights.emplace(name, values);
      return graph.parameter(name, {DType::kF32, shape}, init::constant(0));
    };
    const Tensor x = random_tensor({5, 9, 6}, 1);
    const Value in = (frozen & 8) != 0 ? graph.constant(x) : graph.input("x", x.type());
    const Value idle = graph.input("idle", x.type());
    const Value norm =
        layer_norm(add(in, scale(idle, 0)), weight("gamma", 0, {6}), graph.constant(random_tensor({6}, 2)));
    const Value shifted = q_shift(norm, QShift{.height = 3, .width = 3});
    const Value mixed = lerp(norm, shifted, weight("mix", 1, {1, 1, 6}));
    graph.output("y", squared_relu(linear(mixed, weight("w", 2, {7, 6}))));
    const std::vector<Tensor> inputs((frozen & 8) != 0 ? 1 : 2, x);
    expect_same_in_f32({graph, weights, inputs}, {});
  }
}

// Branches of which some are dropped: x + f·branch(x), f [B,1,1] or the same numbers as [B,T,C].
struct Branches {
  Graph graph{"branches"};
  Weights weights = {{"a", random_tensor({19, 18}, 3)}, {"b", random_tensor({18, 19}, 4)}};
  std::vector<Tensor> in = {random_tensor({7, 5, 18}, 1), random_tensor({7, 1, 1}, 2), random_tensor({7, 5, 19}, 0)};

  Branches(bool factor_first, bool expanded) {
    in[1].mutable_data<float>()[3] = 0;
    in[2] = in[1];
    if (expanded) {
      for (const std::size_t i : {std::size_t{1}, std::size_t{2}}) {
        const std::int64_t elements = i == 1 ? 5 * 18 : 5 * 19;
        Tensor whole(DType::kF32, {7, 5, elements / 5});
        for (std::size_t at = 0; at < whole.data<float>().size(); ++at) {
          whole.mutable_data<float>()[at] = in[i].data<float>()[at / static_cast<std::size_t>(elements)];
        }
        in[i] = whole;
      }
    }
    const Value x = graph.input("x", in[0].type());
    const Value outer = graph.input("outer", in[1].type());
    const Value inner = graph.input("inner", in[2].type());
    const Value a = graph.parameter("a", {DType::kF32, {19, 18}}, init::constant(0));
    const Value b = graph.parameter("b", {DType::kF32, {18, 19}}, init::constant(0));
    const auto times = [&](Value y, Value f) { return factor_first ? mul(f, y) : mul(y, f); };
    const Value hidden = squared_relu(times(linear(x, a), scale(inner, 0.5)));
    graph.output("y", add(x, times(linear(hidden, b), outer)));
  }
  Case as_case() const { return {graph, weights, in}; }
};

TEST(TorchFused, FactorsOfEntriesHaveTheSameGradients) {
  for (const bool factor_first : {false, true}) {
    SCOPED_TRACE(factor_first);
    const Branches factors(factor_first, false);
    expect_same_in_f32(factors.as_case(), {.threads = 2});
    // The same products, rounded at the same places.
    const Branches expanded(factor_first, true);
    auto got = all_of(gradients_of(factors.as_case(), {.threads = 2, .fused = true, .bf16 = true}));
    auto want = all_of(gradients_of(expanded.as_case(), {.threads = 2, .fused = true, .bf16 = true}));
    for (const char* const name : {"y0", "gx0", "g a", "g b"})
      EXPECT_TRUE(same_bits(got.at(name), want.at(name))) << name;
  }
}

// Of the mixes of one shift some are needed elsewhere, so that they are tensors, and others only within the region.
TEST(TorchFused, MixesThatAreOutputsStandByOthers) {
  for (int outputs = 1; outputs < 8; ++outputs) {
    SCOPED_TRACE(outputs);
    Graph graph("mixes");
    Weights weights;
    const Tensor in = random_tensor({5, 9, 6}, 1);
    const Value x = graph.input("x", in.type());
    const Value shifted = q_shift(x, QShift{.height = 3, .width = 3});
    for (int i = 0; i < 3; ++i) {
      const std::string name = fmt::format("m{}", i);
      weights.emplace(name, random_tensor({6}, static_cast<std::uint64_t>(i) + 2));
      const Value mixed = lerp(x, shifted, graph.parameter(name, {DType::kF32, {6}}, init::constant(0)));
      graph.output(name, (outputs & (1 << i)) != 0 ? mixed : squared_relu(mixed));
    }
    expect_same_in_f32({graph, weights, {&in, 1}}, {.threads = 1});
  }
}

// |Σ round(a)·round(b) − Σ a·b| ≤ Σ |a|·|b|·(2δ + δ²), δ = 2^-9 the largest relative error of rounding to bf16; sums
// are f32, in at most 2^8 additions, with 2^-24 each. The cotangent is rounded, too, but for the bias.
TEST(TorchFused, ProductsInBf16AreAsGoodAsTheirInputs) {
  constexpr double kProduct = 2 * 0x1p-9 + 0x1p-18 + 256 * 0x1p-24;
  for (const auto& [batch, rows, k, n] : {std::tuple{3, 5, 7, 9}, std::tuple{1, 1, 1, 1}, std::tuple{4, 33, 48, 21}}) {
    SCOPED_TRACE(fmt::format("{} × {} rows, {} to {}", batch, rows, k, n));
    Graph graph("linear");
    const std::vector<Tensor> in = {random_tensor({batch, rows, k}, 1)};
    const Weights weights = {{"w", random_tensor({n, k}, 2)}, {"b", random_tensor({n}, 3)}};
    const Value x = graph.input("x", in[0].type());
    const Value w = graph.parameter("w", {DType::kF32, {n, k}}, init::constant(0));
    const Value b = graph.parameter("b", {DType::kF32, {n}}, init::constant(0));
    graph.output("y", linear(x, w, b));
    const auto got = all_of(gradients_of({graph, weights, in}, {.fused = true, .bf16 = true}));
    const auto want = all_of(gradients_of({graph, weights, in}, {.dtype = DType::kF64}));
    EXPECT_GT(relative_error(got.at("y0"), want.at("y0")), 0x1p-20) << "not in bf16";
    // The bounds, by the same graph on absolute values.
    const auto absolute = [](Tensor tensor) {
      tensor = tensor.clone();
      for (float& value : tensor.mutable_data<float>()) value = std::abs(value);
      return tensor;
    };
    const std::vector<Tensor> positive = {absolute(in[0])};
    const Weights positive_weights = {{"w", absolute(weights.at("w"))}, {"b", absolute(weights.at("b"))}};
    const Tensor cotangent = absolute(random_tensor({batch, rows, n}, 100));
    const auto bounds = all_of(
        load_torch_engine({.dtype = DType::kF64})->differentiate(graph, positive_weights, positive, {&cotangent, 1}));
    for (const auto& [name, bound] : bounds) {
      const auto error = got.at(name).to(DType::kF64);
      for (std::size_t i = 0; i < bound.data<double>().size(); ++i) {
        EXPECT_LE(std::abs(error.data<double>()[i] - want.at(name).data<double>()[i]),
                  bound.data<double>()[i] * kProduct)
            << name << " " << i;
      }
    }
  }
}

}  // namespace
}  // namespace weft
