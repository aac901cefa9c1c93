#include "onnx/export.h"

#include <gtest/gtest.h>
#include <onnx/checker.h>
#include <onnx/onnx_pb.h>
#include <onnx/shape_inference/implementation.h>
#include <sys/mman.h>

#include <cstdlib>
#include <functional>

#include "api/model_data.h"
#include "graph/evaluate.h"
#include "io/mapped_file.h"
#include "io/safetensors.h"
#include "io/testing/files.h"
#include "ops/ops.h"
#include "ops/testing/op_test.h"

namespace weft {
namespace {

using testing::random_tensor;
using testing::refuses;

// A small graph: `build` computes from x, of this shape, and from parameters declared in its scope.
struct Case {
  std::string name;
  Shape x;
  std::function<Value(Value x, const Scope& s)> build;
  double tolerance = 0x1p-20;  // a few roundings, each half an ulp (2^-24)
  Graph graph{"case"};
  Weights weights = {};

  Case(std::string name_, Shape x_, std::function<Value(Value, const Scope&)> build_)
      : name(std::move(name_)), x(std::move(x_)), build(std::move(build_)) {
    const Scope s(graph, "layer");
    const auto guard = s.enter();
    graph.output("y", build(graph.input("x", {DType::kF32, x}), s));
    for (const int id : graph.parameters()) {
      const Graph::ValueInfo& info = graph.value(id);
      weights.emplace(info.name, random_tensor(info.type.shape, static_cast<std::uint64_t>(id)));
    }
  }
};

Value parameter(const Scope& s, std::string_view name, Shape shape) {
  return s.param(name, std::move(shape), init::constant(0));
}

Value tokens(const Scope& s, std::initializer_list<std::int64_t> values) {
  Tensor tensor(DType::kI64, {1, static_cast<std::int64_t>(values.size())});
  std::ranges::copy(values, tensor.mutable_data<std::int64_t>().begin());
  return s.graph().constant(tensor);
}

Value shifted(Value x, int height, int width, int pixels, double gamma = 0.25) {
  return q_shift(x, {.height = height, .width = width, .pixels = pixels, .gamma = gamma});
}

// A step, the state's denominator being positive.
CausalWkvResult wkv_step(Value k, const Scope& s) {
  const auto row = [&](std::string_view name) { return parameter(s, name, {2, 1, 7}); };
  const Value state = concat(std::vector{row("aa"), weft::exp(row("bb")), row("pp")}, 1);
  return causal_wkv(k, row("v"), parameter(s, "w", {7}), parameter(s, "u", {7}), state);
}

// Every operator that has a lowering, with the shapes and attributes that make a difference to it.
std::vector<std::unique_ptr<Case>> all_cases() {
  std::vector<std::unique_ptr<Case>> cases;
  const auto add = [&](std::string name, Shape x, std::function<Value(Value, const Scope&)> build) {
    cases.push_back(std::make_unique<Case>(std::move(name), std::move(x), std::move(build)));
  };
  const auto weight = [](const Scope& s, Shape shape) { return parameter(s, "w", std::move(shape)); };
  const auto bias = [](const Scope& s, Shape shape) { return parameter(s, "b", std::move(shape)); };
  add("linear of tokens", {2, 5, 7}, [=](Value x, auto& s) { return linear(x, weight(s, {3, 7}), bias(s, {3})); });
  add("linear without bias", {2, 5, 7}, [=](Value x, auto& s) { return linear(x, weight(s, {3, 7})); });
  add("linear of rows", {5, 7}, [=](Value x, auto& s) { return linear(x, weight(s, {3, 7}), bias(s, {3})); });
  add("linear of rows without bias", {5, 7}, [=](Value x, auto& s) { return linear(x, weight(s, {3, 7})); });
  add("linear with a weight that is computed", {2, 4, 4}, [](Value x, auto&) { return linear(x, mean(x, 0)); });
  add("layer_norm", {2, 3, 11}, [=](Value x, auto& s) { return layer_norm(x, weight(s, {11}), bias(s, {11}), 1e-3F); });
  add("add", {2, 3, 4}, [=](Value x, auto& s) { return weft::add(x, bias(s, {3, 1})); });
  add("mul", {2, 3, 4}, [=](Value x, auto& s) { return mul(weight(s, {5, 1, 3, 4}), x); });
  add("scale", {2, 3}, [](Value x, auto&) { return scale(x, 0.3F); });
  add("lerp", {2, 3, 4}, [=](Value x, auto& s) { return lerp(x, scale(x, -2), weight(s, {1, 1, 4})); });
  add("sigmoid", {2, 3}, [](Value x, auto&) { return sigmoid(x); });
  add("tanh", {2, 3}, [](Value x, auto&) { return weft::tanh(x); });
  add("squared_relu", {2, 9}, [](Value x, auto&) { return squared_relu(x); });
  add("relu", {2, 9}, [](Value x, auto&) { return relu(x); });
  add("silu", {2, 9}, [](Value x, auto&) { return silu(x); });
  add("gelu", {2, 9}, [](Value x, auto&) { return gelu(x); });
  add("attention", {2, 5, 12},
      [](Value x, auto&) { return attention(x, weft::tanh(x), sigmoid(x), {.heads = 3, .scale = 0}); });
  add("attention to fewer keys", {2, 5, 12},
      [](Value x, auto&) { return attention(x, slice(x, 1, 0, 2), slice(x, 1, 3, 5), {.heads = 2, .scale = 0.7F}); });
  add("exp", {2, 9}, [](Value x, auto&) { return weft::exp(x); });
  add("clamp", {2, 9}, [](Value x, auto&) { return clamp(x, -0.5F, 1); });
  add("clamp above", {2, 9}, [](Value x, auto&) { return clamp(x, -INFINITY, 0.2F); });
  add("l2_norm", {2, 5, 12}, [](Value x, auto&) { return l2_norm(x); });
  add("l2_norm of heads", {2, 5, 12}, [](Value x, auto&) { return l2_norm(x, 3); });
  add("window_attention", {2, 24, 12}, [](Value x, auto&) {
    return window_attention(x, weft::tanh(x), sigmoid(x), std::nullopt,
                            {.heads = 2, .height = 4, .width = 6, .window_h = 2, .window_w = 3});
  });
  add("window_attention with shift and bias", {2, 48, 12}, [=](Value x, auto& s) {
    return window_attention(
        x, weft::tanh(x), sigmoid(x), bias(s, {2, 9}),
        {.heads = 2, .height = 6, .width = 8, .window_h = 2, .window_w = 2, .shift_h = 1, .shift_w = 1});
  });
  add("window_attention of the whole grid", {1, 12, 6}, [=](Value x, auto& s) {
    return window_attention(
        x, weft::tanh(x), sigmoid(x), bias(s, {3, 35}),
        {.heads = 3, .scale = 0.7F, .height = 3, .width = 4, .window_h = 3, .window_w = 4, .shift_h = 0, .shift_w = 2});
  });
  for (const SlidingBorder border : {SlidingBorder::kExcluded, SlidingBorder::kZeroPadding}) {
    add("sliding_attention", {2, 20, 6}, [=](Value x, auto& s) {
      return sliding_attention(x, weft::tanh(x), sigmoid(x), bias(s, {2, 9}),
                               {.heads = 2, .kernel_size = 3, .height = 4, .width = 5, .border = border});
    });
  }
  for (const bool causal : {false, true}) {
    add("aft without a bias", {2, 7, 6}, [=](Value x, auto&) { return aft(slice(x, 2, 0, 3), x, {}, {causal}); });
    for (const int window : {0, 3}) {
      add("aft with a table", {2, 7, 6}, [=](Value x, auto& s) {
        return aft(weft::tanh(x), x, bias(s, {7 + window, 7 + window}), {.causal = causal, .window = window});
      });
    }
    add("aft with filters", {2, 7, 6}, [=](Value x, auto& s) {
      return aft(slice(x, 2, 0, 3), x, bias(s, {3, 1, 4}), {causal});
    });
  }
  add("aft on a grid", {2, 12, 6}, [=](Value x, auto& s) {
    return aft(slice(x, 2, 0, 2), x, bias(s, {1, 3, 3}), {.height = 3, .width = 4});
  });
  add("pad", {2, 7, 4}, [](Value x, auto&) { return pad(x, -2, 3); });
  add("pad of channels", {2, 7, 4}, [](Value x, auto&) { return pad(x, 2, 1); });
  add("slice", {2, 7, 4}, [](Value x, auto&) { return slice(x, -2, 2, 5); });
  add("concat of a class token", {3, 4, 5}, [=](Value x, auto& s) {
    return concat(std::array{weight(s, {1, 1, 5}), x}, 1);
  });
  add("concat of channels", {3, 4, 5}, [](Value x, auto&) { return concat(std::array{x, slice(x, 2, 1, 3)}, -1); });
  add("reshape", {2, 6}, [](Value x, auto&) { return reshape(x, {3, 1, 4}); });
  add("permute", {2, 3, 4, 5}, [](Value x, auto&) { return permute(x, {0, 3, 1, 2}); });
  add("mean", {2, 3, 4}, [](Value x, auto&) { return mean(x, 1); });
  add("mean from the end", {2, 3, 4}, [](Value x, auto&) { return mean(x, -1); });
  add("embedding", {5, 3}, [](Value x, const Scope& s) { return embedding(tokens(s, {4, 0, 4, 2}), x); });
  add("patch_embed", {2, 3, 8, 12}, [=](Value x, auto& s) {
    return patch_embed(x, weight(s, {5, 3, 4, 4}), bias(s, {5}), {.patch_h = 4, .patch_w = 4});
  });
  add("patch_embed that pads", {2, 3, 7, 10}, [=](Value x, auto& s) {
    return patch_embed(x, weight(s, {5, 3, 4, 3}), std::nullopt, {.patch_h = 4, .patch_w = 3});
  });
  add("batch_norm", {2, 3, 4}, [=](Value x, auto& s) {
    const Value variance = sigmoid(parameter(s, "v", {4}));
    return batch_norm(x, weight(s, {4}), bias(s, {4}), parameter(s, "m", {4}), variance, 1e-3F);
  });
  add("conv2d", {2, 7, 6, 3}, [=](Value x, auto& s) {
    return conv2d(x, weight(s, {5, 3, 3, 3}), bias(s, {5}), {.stride = 2, .padding = 1});
  });
  add("conv2d without bias", {2, 7, 6, 3}, [=](Value x, auto& s) {
    return conv2d(x, weight(s, {5, 3, 4, 2}), std::nullopt, {.stride = 1, .padding = 0});
  });
  add("depthwise_conv", {2, 7, 6, 4}, [=](Value x, auto& s) {
    return depthwise_conv(x, weight(s, {4, 1, 5, 3}), bias(s, {4}), {.padding = 2});
  });
  add("depthwise_conv without bias", {2, 7, 6, 4}, [=](Value x, auto& s) {
    return depthwise_conv(x, weight(s, {4, 1, 3, 3}), std::nullopt, {.padding = 0});
  });
  add("depthwise_conv by kernels of each picture", {2, 7, 6, 4}, [=](Value x, auto& s) {
    const Value kernels = reshape(permute(slice(slice(x, 1, 0, 3), 2, 0, 5), {0, 3, 1, 2}), {2, 4, 3, 5});
    return depthwise_conv(x, kernels, bias(s, {4}), {.padding = 2});
  });
  add("depthwise_conv by constant kernels of each picture", {2, 7, 6, 4}, [=](Value x, auto& s) {
    return depthwise_conv(x, weight(s, {2, 4, 3, 3}), std::nullopt, {.padding = 1});
  });
  for (const int k : {1, 3}) {
    add(fmt::format("involution by {} x {}", k, k), {2, 5, 4, 6}, [=](Value x, auto& s) {
      return involution(x, linear(x, weight(s, {std::int64_t{3} * k * k, 6})), {.kernel_size = k});
    });
  }
  for (const auto& [mode, mode_name] : enum_names(InterpolateMode{})) {
    add(fmt::format("interpolate {}", mode_name), {2, 5, 7, 3},
        [mode = mode](Value x, auto&) { return interpolate(x, {.mode = mode, .out_h = 9, .out_w = 4}); });
    add(fmt::format("interpolate of weights {}", mode_name), {1, 9, 4, 3}, [=, mode = mode](Value x, auto& s) {
      return weft::add(x, interpolate(weight(s, {1, 5, 7, 3}), {.mode = mode, .out_h = 9, .out_w = 4}));
    });
  }
  add("q_shift", {2, 12, 11}, [](Value x, auto&) { return shifted(x, 3, 4, 1); });
  add("q_shift by two", {1, 12, 11}, [](Value x, auto&) { return shifted(x, 3, 4, 2, 0.2); });
  add("q_shift past the grid", {1, 12, 16}, [](Value x, auto&) { return shifted(x, 3, 4, 3); });
  add("q_shift of one token", {1, 1, 16}, [](Value x, auto&) { return shifted(x, 1, 1, 1); });
  add("q_shift by nothing", {1, 12, 16}, [](Value x, auto&) { return shifted(x, 3, 4, 0); });
  add("rotary", {2, 12, 18}, [=](Value x, auto& s) { return rotary(x, weight(s, {6})); });
  add("token_shift", {2, 5, 7}, [=](Value x, auto& s) { return token_shift(x, weight(s, {2, 7})); });
  add("token_shift of one token", {2, 1, 7}, [=](Value x, auto& s) { return token_shift(x, weight(s, {2, 7})); });
  add("causal_wkv", {2, 1, 7}, [](Value k, auto& s) { return wkv_step(k, s).y; });
  add("causal_wkv's next state", {2, 1, 7}, [](Value k, auto& s) { return wkv_step(k, s).next; });
  add("q_shift of no channel", {1, 12, 3}, [](Value x, auto&) { return shifted(x, 3, 4, 1, 0); });
  return cases;
}

onnx::ModelProto parsed(const std::string& bytes) {
  onnx::ModelProto model;
  EXPECT_TRUE(model.ParseFromString(bytes));
  return model;
}

onnx::ModelProto exported(const Case& c, const OnnxOptions& options = {}) {
  return parsed(export_onnx(c.graph, c.weights, options));
}

std::vector<std::string> node_types(const onnx::ModelProto& model) {
  std::vector<std::string> types;
  for (const auto& node : model.graph().node()) types.push_back(node.op_type());
  return types;
}

TEST(OnnxExport, EveryOperatorPassesTheCheckerAndShapeInference) {
  for (const auto& c : all_cases()) {
    SCOPED_TRACE(c->name);
    onnx::ModelProto model = exported(*c);
    onnx::checker::check_model(model);
    // libonnx finds the output's shape by itself, from the nodes.
    const Shape& want = c->graph.value(c->graph.outputs()[0].value).type.shape;
    model.mutable_graph()->mutable_output(0)->mutable_type()->mutable_tensor_type()->clear_shape();
    onnx::shape_inference::InferShapes(model, onnx::OpSchemaRegistry::Instance(),
                                       {/*check_type=*/true, /*strict_mode=*/1, /*data_propagation=*/true});
    std::vector<std::int64_t> got;
    for (const auto& dim : model.graph().output(0).type().tensor_type().shape().dim()) got.push_back(dim.dim_value());
    EXPECT_EQ(Shape(got), want);
  }
}

TEST(OnnxExport, TellsWhatItIs) {
  const Case c("", {2, 3}, [](Value x, auto&) { return sigmoid(x); });
  const onnx::ModelProto model = exported(c, {.outputs = {}, .metadata = {{"weft.family", "vision_rwkv"}}});
  EXPECT_EQ(model.producer_name(), "weft");
  EXPECT_FALSE(model.producer_version().empty());
  EXPECT_EQ(model.ir_version(), 8);
  ASSERT_EQ(model.opset_import_size(), 1);
  EXPECT_EQ(model.opset_import(0).version(), 17);
  EXPECT_EQ(model.graph().name(), "case");
  ASSERT_EQ(model.metadata_props_size(), 1);
  EXPECT_EQ(model.metadata_props(0).value(), "vision_rwkv");
  ASSERT_EQ(model.graph().input_size(), 1);
  EXPECT_EQ(model.graph().input(0).name(), "x");
  EXPECT_EQ(model.graph().output(0).name(), "y");
}

TEST(OnnxExport, LinearIsAProductWithATurnedWeight) {
  const Case c("", {2, 5, 3}, [](Value x, const Scope& s) {
    return linear(x, parameter(s, "w", {2, 3}), parameter(s, "b", {2}));
  });
  const onnx::ModelProto model = exported(c);
  EXPECT_EQ(node_types(model), (std::vector<std::string>{"MatMul", "Add"}));
  ASSERT_EQ(model.graph().initializer_size(), 2);
  const onnx::TensorProto& weight = model.graph().initializer(0);
  EXPECT_EQ(weight.name(), "layer.w.transposed");
  EXPECT_EQ(weight.dims(0), 3);
  EXPECT_EQ(weight.dims(1), 2);
  const auto from = c.weights.at("layer.w").data<float>();
  std::vector<float> to(6);
  std::memcpy(to.data(), weight.raw_data().data(), weight.raw_data().size());
  EXPECT_EQ(to, (std::vector<float>{from[0], from[3], from[1], from[4], from[2], from[5]}));
  EXPECT_EQ(model.graph().initializer(1).name(), "layer.b");
}

TEST(OnnxExport, WhatDependsOnWeightsOnlyIsComputed) {
  const Case c("", {1, 3, 4}, [](Value x, const Scope& s) {
    return weft::add(x, scale(sigmoid(parameter(s, "w", {1, 3, 4})), 2));
  });
  const onnx::ModelProto model = exported(c);
  EXPECT_EQ(node_types(model), std::vector<std::string>{"Add"});
  ASSERT_EQ(model.graph().initializer_size(), 1);
  float first = 0;
  std::memcpy(&first, model.graph().initializer(0).raw_data().data(), sizeof first);
  EXPECT_FLOAT_EQ(first, 2 / (1 + std::exp(-c.weights.at("layer.w").data<float>()[0])));
}

TEST(OnnxExport, OutputsAreChosenAndMayRepeatAValue) {
  Graph graph("outputs");
  const Value x = graph.input("x", {DType::kF32, {2, 3}});
  const Value w = graph.parameter("w", {DType::kF32, {3}}, init::constant(0));
  const Value y = add(x, w);
  graph.output("y", y);
  graph.output("again", y);
  graph.output("same", x);
  graph.output("weight", w);
  graph.output("other", sigmoid(x));
  const Weights weights{{"w", random_tensor({3}, 1)}};
  const onnx::ModelProto all = parsed(export_onnx(graph, weights));
  ASSERT_EQ(all.graph().output_size(), 5);
  EXPECT_EQ(node_types(all), (std::vector<std::string>{"Add", "Sigmoid", "Identity", "Identity", "Identity"}));
  const onnx::ModelProto one = parsed(export_onnx(graph, {}, {.outputs = {"other"}, .metadata = {}}));
  ASSERT_EQ(one.graph().output_size(), 1);
  EXPECT_EQ(one.graph().output(0).name(), "other");
  EXPECT_EQ(node_types(one), std::vector<std::string>{"Sigmoid"});
  EXPECT_EQ(one.graph().initializer_size(), 0);
  EXPECT_TRUE(refuses([&] { export_onnx(graph, weights, {.outputs = {"z"}, .metadata = {}}); }, "no output z"));
}

TEST(OnnxExport, RefusesWhatItCannotTell) {
  Case c("", {1, 4, 3}, [](Value x, const Scope& s) { return linear(x, parameter(s, "w", {2, 3})); });
  EXPECT_TRUE(refuses([&] { export_onnx(c.graph, {}); }, "layer.w has no weights"));
  EXPECT_TRUE(refuses([&] { export_onnx(c.graph, {{"layer.w", random_tensor({3, 2}, 1)}}); }, "must be [2,3]"));
  const Case wkv("", {1, 4, 3}, [](Value x, const Scope& s) {
    return bi_wkv(x, x, parameter(s, "decay", {3}), parameter(s, "first", {3}));
  });
  EXPECT_TRUE(refuses([&] { export_onnx(wkv.graph, wkv.weights); }, "bi_wkv cannot be told in ONNX"));
  const Case causal("", {2, 4, 7}, [](Value x, const Scope& s) {
    return causal_wkv(x, x, parameter(s, "w", {7}), parameter(s, "u", {7}), parameter(s, "state", {2, 3, 7})).y;
  });
  EXPECT_TRUE(refuses([&] { export_onnx(causal.graph, causal.weights); },
                      "causal_wkv of one token at a time can be told in ONNX operators, got 4 (at "));
}

TEST(OnnxExport, RefusesMoreThanTwoGigabytes) {
  // Pages that are never touched take no memory.
  const Shape shape{1 << 15, (1 << 14) + 8};
  const std::size_t bytes = 4 * static_cast<std::size_t>(shape.elements());
  void* const pages = mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  ASSERT_NE(pages, MAP_FAILED);
  const std::shared_ptr<const void> owner(pages, [bytes](void* p) { munmap(p, bytes); });
  const Tensor large = Tensor::borrow({DType::kF32, shape}, static_cast<const std::byte*>(pages), owner);
  const Case c("", {1}, [&](Value x, const Scope&) { return weft::add(x, x.graph().constant(large)); });
  EXPECT_TRUE(refuses([&] { export_onnx(c.graph, {}); }, "less than 2 GiB"));
}

// Not the N² entries of the bias, nor a list of them: the table and, for either axis, a list of the side's square.
TEST(OnnxExport, LargeWindowsDoNotMakeTheFileLarge) {
  constexpr int kSide = 64;
  constexpr std::int64_t kEntries = (2 * kSide - 1) * (2 * kSide - 1);
  const Case c("", {1, kSide * kSide, 2}, [](Value x, const Scope& s) {
    return window_attention(x, x, x, parameter(s, "bias", {1, kEntries}),
                            {.height = kSide, .width = kSide, .window_h = kSide, .window_w = kSide});
  });
  constexpr std::size_t kHeld = kEntries * sizeof(float) + 2 * sizeof(std::int64_t) * kSide * kSide;
  EXPECT_LT(export_onnx(c.graph, c.weights).size(), 2 * kHeld) << "nodes and their names take less than as much again";
}

constexpr std::string_view kNoRuntime = "tools/peers has no onnxruntime-node: scripts/peers installs it";

// Runs all cases in one process. False, with a line, where Node.js or its package is missing.
bool run_in_onnx_runtime(const std::filesystem::path& folder, std::size_t cases) {
  const std::string script = WEFT_SOURCE_DIR "/src/onnx/testing/run.mjs";
  const std::string there = "node -e 'require(\"onnxruntime-node\")' 2>&1";
  if (std::system(fmt::format("cd {}/tools/peers && {} >/dev/null", WEFT_SOURCE_DIR, there).c_str()) != 0) return false;
  std::string command = fmt::format("node {}", script);
  for (std::size_t i = 0; i < cases; ++i) {
    command += fmt::format(" {0}/{1}.onnx {0}/{1}.in {0}/{1}.out", folder.string(), i);
  }
  EXPECT_EQ(std::system(command.c_str()), 0);
  return true;
}

TEST(OnnxExport, OnnxRuntimeComputesTheSame) {
  const testing::TemporaryDirectory folder;
  const auto cases = all_cases();
  std::vector<Tensor> inputs;
  for (std::size_t i = 0; i < cases.size(); ++i) {
    const std::string name = std::to_string(i);
    testing::write_text(folder / (name + ".onnx"), export_onnx(cases[i]->graph, cases[i]->weights));
    inputs.push_back(random_tensor(cases[i]->x, 100 + i));
    write_safetensors(folder / (name + ".in"), {{"x", inputs.back()}});
  }
  if (!run_in_onnx_runtime(folder.path(), cases.size())) {
    GTEST_SKIP() << kNoRuntime;
  }
  for (std::size_t i = 0; i < cases.size(); ++i) {
    SCOPED_TRACE(cases[i]->name);
    const Case& c = *cases[i];
    const Tensor want = evaluate_reference(c.graph, c.weights, std::span(&inputs[i], 1))[0];
    const SafetensorsFile file = read_safetensors(map_file(folder / (std::to_string(i) + ".out")));
    ASSERT_EQ(file.tensors.size(), 1U);
    EXPECT_EQ(file.tensors[0].first, "y");
    ASSERT_EQ(file.tensors[0].second.shape(), want.shape());
    EXPECT_LE(testing::relative_error(file.tensors[0].second, want), c.tolerance);
  }
}

TEST(OnnxExport, AVisionTransformerComputesTheSame) {
  // The positional embedding is resized, so a constant is folded.
  const Model model = Model::create(
      "deit_tiny_distilled_patch16_224", 3,
      {.section = "", .config = {{"embed_dim", "24"}, {"depth", "2"}, {"num_classes", "7"}, {"img_size", "[64,64]"}}});
  const Tensor input = random_tensor({2, 3, 48, 80}, 4);
  const auto graph = build_graph(*model.data().architecture, input.shape(), std::array{0, 1});
  const testing::TemporaryDirectory folder;
  testing::write_text(folder / "0.onnx", export_onnx(*graph, model.data().weights));
  write_safetensors(folder / "0.in", {{"image", input}});
  if (!run_in_onnx_runtime(folder.path(), 1)) GTEST_SKIP() << kNoRuntime;
  const std::vector<Tensor> want = evaluate_reference(*graph, model.data().weights, std::span(&input, 1));
  const SafetensorsFile file = read_safetensors(map_file(folder / "0.out"));
  ASSERT_EQ(file.tensors.size(), want.size());
  for (std::size_t i = 0; i < want.size(); ++i) {
    SCOPED_TRACE(graph->outputs()[i].name);
    EXPECT_EQ(file.tensors[i].first, graph->outputs()[i].name);
    ASSERT_EQ(file.tensors[i].second.shape(), want[i].shape());
    // Two layers of sums over 24 … 96 products, and the patches' over 768, each rounded to 2^-24.
    EXPECT_LE(testing::relative_error(file.tensors[i].second, want[i]), 0x1p-16);
  }
}

}  // namespace
}  // namespace weft
