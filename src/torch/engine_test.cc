#include "torch/engine.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>

#include "core/process_memory.h"
#include "graph/evaluate.h"
#include "io/testing/files.h"
#include "ops/ops.h"
#include "ops/testing/op_test.h"
#include "verify/verify.h"

namespace weft {
namespace {

namespace fs = std::filesystem;
using testing::random_tensor;
using testing::refuses;
using Weights = std::map<std::string, Tensor, std::less<>>;

// Whatever the CPU engine passes, at the same tolerances, and the gradients, too. In f64 bi_wkv is another program.
void verify_all(const fs::path& folder, const TorchOptions& options, int expected) {
  const auto torch = load_torch_engine(options);
  int known = 0;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    if (!entry.is_directory()) continue;
    const std::string name = entry.path().filename().string();
    SCOPED_TRACE(name);
    try {
      if (!verify_case(entry.path(), {.threads = 2}).passed()) continue;
    } catch (const Error&) {
      continue;  // of a family that weft does not have
    }
    const VerifyResult result =
        verify_case(entry.path(), {.engine = Engine::kTorch, .torch = torch, .gradients = true});
    int gradients = 0;
    for (const VerifyCheck& check : result.checks) {
      EXPECT_TRUE(check.passed()) << check.name << ": " << check.error << " > " << check.tolerance;
      gradients += check.name.find("gradient of ") != std::string::npos;
    }
    const bool has_none = result.system == "pillow-resize" || name == "rwkv4-tiny-rwkvcpp";
    EXPECT_TRUE(gradients >= 3 || has_none);
    ++known;
  }
  EXPECT_GE(known, expected);
}

struct Way {
  const char* name;
  TorchOptions options;
};

class TorchGolden : public ::testing::TestWithParam<Way> {};
INSTANTIATE_TEST_SUITE_P(Way, TorchGolden,
                         // Fused on one thread, which is what one entry is enough for.
                         ::testing::Values(Way{"f32", {}}, Way{"f64", {.dtype = DType::kF64}},
                                           Way{"fused", {.threads = 1, .fused = true}},
                                           Way{"recomputed", {.threads = 1, .fused = true, .recompute = true}}),
                         [](const auto& test) { return std::string(test.param.name); });

TEST_P(TorchGolden, PassesTheReferenceCases) { verify_all(WEFT_SOURCE_DIR "/tests/golden", GetParam().options, 13); }

TEST_P(TorchGolden, PassesFurtherReferenceCases) {
  const fs::path folder = fs::path(WEFT_TEST_DATA) / "golden";
  if (!fs::exists(folder)) GTEST_SKIP() << folder << " is not there";
  verify_all(folder, GetParam().options, 13);
}

// y = x·wᵀ, and z, which depends on nothing that could have a gradient but x itself.
struct Small {
  Graph graph{"small"};
  Weights weights;
  Tensor x = random_tensor({2, 3}, 1);

  Small() {
    const Value in = graph.input("x", {DType::kF32, {2, 3}});
    const Value w = graph.parameter("w", {DType::kF32, {4, 3}}, init::constant(0));
    const Value idle = graph.parameter("idle", {DType::kF32, {5}}, init::constant(0));
    graph.output("y", linear(in, w));
    graph.output("same", in);
    graph.output("constant", scale(graph.constant(random_tensor({2}, 3)), 2));
    (void)tanh(idle);  // needed by nobody
    weights = {{"w", random_tensor({4, 3}, 2)}, {"idle", random_tensor({5}, 4)}};
  }
};

TEST(TorchEngine, GivesGradientsOfAllInputsAndParameters) {
  const Small s;
  const std::vector<Tensor> cotangents = {random_tensor({2, 4}, 5), random_tensor({2, 3}, 6), random_tensor({2}, 7)};
  const auto engine = load_torch_engine({.dtype = DType::kF64});
  const TorchGradients got = engine->differentiate(s.graph, s.weights, {&s.x, 1}, cotangents);
  const std::vector<Tensor> want = evaluate_reference(s.graph, s.weights, {&s.x, 1});
  ASSERT_EQ(got.outputs.size(), 3U);
  // Sums of three products in f64.
  constexpr double kTolerance = 8 * 0x1p-53;
  for (std::size_t i = 0; i < 3; ++i) EXPECT_LE(testing::relative_error(got.outputs[i], want[i]), kTolerance);
  ASSERT_EQ(got.inputs.size(), 1U);
  ASSERT_EQ(got.parameters.size(), 2U);
  const auto at = [](const Tensor& tensor, std::int64_t row, std::int64_t column) {
    return double{tensor.data<float>()[static_cast<std::size_t>(row * tensor.shape()[1] + column)]};
  };
  for (std::int64_t k = 0; k < 3; ++k) {
    for (std::int64_t row = 0; row < 2; ++row) {
      double gradient = at(cotangents[1], row, k);
      for (std::int64_t n = 0; n < 4; ++n) gradient += at(cotangents[0], row, n) * at(s.weights.at("w"), n, k);
      EXPECT_NEAR(got.inputs[0].data<double>()[static_cast<std::size_t>(row * 3 + k)], gradient, 16 * 0x1p-52);
    }
    for (std::int64_t n = 0; n < 4; ++n) {
      double gradient = 0;
      for (std::int64_t row = 0; row < 2; ++row) gradient += at(cotangents[0], row, n) * at(s.x, row, k);
      EXPECT_NEAR(got.parameters.at("w").data<double>()[static_cast<std::size_t>(n * 3 + k)], gradient, 16 * 0x1p-52);
    }
  }
  for (const double gradient : got.parameters.at("idle").data<double>()) EXPECT_EQ(gradient, 0);
}

// A gradient that comes in another order of axes, to an operand that does: see lower(Gelu).
TEST(TorchEngine, GeluTakesGradientsHoweverTheyLie) {
  const Tensor x = random_tensor({2, 3, 5, 7}, 1);
  const Tensor cotangent = random_tensor({2, 5, 3, 7}, 2);
  for (const bool behind : {false, true}) {
    Graph graph("gelu");
    const Value in = graph.input("x", x.type());
    const std::vector<int> swap = {0, 2, 1, 3};
    graph.output("y", behind ? permute(gelu(in), swap) : gelu(permute(in, swap)));
    const auto gradient = [&](DType dtype) {
      return load_torch_engine({.dtype = dtype, .threads = 1})->differentiate(graph, {}, {&x, 1}, {&cotangent, 1});
    };
    const TorchGradients want = gradient(DType::kF64);
    // gx = g·(Φ(x) + x·φ(x)), some roundings of numbers of the size of 1.
    EXPECT_LE(testing::relative_error(gradient(DType::kF32).inputs[0], want.inputs[0]), 32 * 0x1p-24) << behind;
  }
}

TEST(TorchEngine, WidensWhatItIsGiven) {
  Small s;
  s.weights["w"] = s.weights["w"].to(DType::kBF16);
  s.x = s.x.to(DType::kF64);
  const std::vector<Tensor> want = evaluate_reference(s.graph, s.weights, {&s.x, 1});
  const std::vector<Tensor> got = load_torch_engine()->run(s.graph, s.weights, {&s.x, 1});
  EXPECT_EQ(got[0].dtype(), DType::kF32);
  // x rounded to f32, three products and their sum.
  EXPECT_LE(testing::relative_error(got[0], want[0]), 8 * 0x1p-24);
}

TEST(TorchEngine, RefusesWhatMakesNoSense) {
  const Small s;
  const auto engine = load_torch_engine();
  EXPECT_TRUE(refuses([&] { engine->run(s.graph, {}, {&s.x, 1}); }, "parameter w has no weights"));
  const Weights bent = {{"w", random_tensor({3, 4}, 1)}, {"idle", random_tensor({5}, 1)}};
  EXPECT_TRUE(refuses([&] { engine->run(s.graph, bent, {&s.x, 1}); }, "w must be [4,3], got [3,4]"));
  const Tensor wide = random_tensor({2, 4}, 1);
  EXPECT_TRUE(refuses([&] { engine->run(s.graph, s.weights, {&wide, 1}); }, "x must be [2,3], got [2,4]"));
  EXPECT_TRUE(refuses([&] { engine->run(s.graph, s.weights, {}); }, "takes 1"));
  EXPECT_TRUE(refuses([&] { engine->differentiate(s.graph, s.weights, {&s.x, 1}, {&s.x, 1}); }, "3 outputs"));
  const std::vector<Tensor> bad = {wide, wide, random_tensor({2}, 1)};
  EXPECT_TRUE(refuses([&] { engine->differentiate(s.graph, s.weights, {&s.x, 1}, bad); }, "cotangent of same"));
  EXPECT_TRUE(refuses([] { load_torch_engine({.dtype = DType::kF16}); }, "f32 or f64, got f16"));
}

TEST(TorchEngine, SaysWhatItRunsOn) {
  const std::string text = load_torch_engine()->description();
  EXPECT_TRUE(text.starts_with("libtorch ") && text.ends_with(" on cpu")) << text;
  try {
    const auto engine = load_torch_engine({.cuda = true});
    EXPECT_TRUE(engine->description().ends_with(" on cuda"));
    const Small s;
    EXPECT_LE(testing::relative_error(engine->run(s.graph, s.weights, {&s.x, 1})[0],
                                      evaluate_reference(s.graph, s.weights, {&s.x, 1})[0]),
              8 * 0x1p-24);
  } catch (const UnsupportedError& error) {
    const std::string why = error.what();
    EXPECT_TRUE(why.find("without CUDA") != why.npos || why.find("no CUDA device") != why.npos) << why;
    EXPECT_EQ(why.find('\n'), why.npos);
  }
}

TEST(TorchEngine, TurnsLibtorchsErrorsIntoOneLine) {
  // 2^50 bytes for the result.
  Graph graph("large");
  const Value x = graph.input("x", {DType::kF32, {1 << 24, 1}});
  const Value y = graph.input("y", {DType::kF32, {1, 1 << 24}});
  const auto place = Scope(graph, "top")["middle"].enter();
  graph.output("z", add(x, y));
  const std::vector<Tensor> in = {Tensor::zeros({DType::kF32, {1 << 24, 1}}),
                                  Tensor::zeros({DType::kF32, {1, 1 << 24}})};
  try {
    load_torch_engine()->run(graph, {}, in);
    FAIL() << "there is no such memory";
  } catch (const MemoryError& error) {
    const std::string_view what = error.what();
    EXPECT_EQ(what.find('\n'), what.npos) << what;
    EXPECT_NE(what.find("allocate 1125899906842624 bytes"), what.npos) << what;
    EXPECT_TRUE(what.ends_with("(at top.middle add)")) << what;
  }
}

// The most memory that this process had during a call, over what it had before; 0 where the system cannot tell.
template <class F>
std::int64_t peak_growth(F&& f) {
  const std::int64_t before = resident_bytes();
  std::ofstream reset("/proc/self/clear_refs");
  reset << "5" << std::flush;
  if (!reset || before == 0) return 0;
  f();
  return peak_resident_bytes() - before;
}

TEST(TorchEngine, LetsGoOfValuesAfterTheirLastUse) {
  constexpr std::int64_t kElements = 1 << 22;
  constexpr std::int64_t kSteps = 24;
  Graph graph("chain");
  Value y = graph.input("x", {DType::kF32, {kElements}});
  for (int i = 0; i < kSteps; ++i) y = i % 2 == 0 ? sigmoid(y) : scale(y, 0.5F);
  graph.output("y", y);
  const Tensor x = random_tensor({kElements}, 1);
  const auto engine = load_torch_engine();
  engine->run(graph, {}, {&x, 1});  // starts threads
  // One value that is read, one that is written, one that is copied out of libtorch; and one for what malloc keeps.
  EXPECT_LE(peak_growth([&] { engine->run(graph, {}, {&x, 1}); }), 4 * kElements * 4);
}

// k, v [B,T,C], w and u [C], as inputs.
struct Mixer {
  Graph graph{"bi_wkv"};
  std::vector<Tensor> in;

  Mixer(Shape shape, Wkv form) {
    const Shape channels{shape[2]};
    const auto tokens = static_cast<float>(shape[1]);
    in = {random_tensor(shape, 1, 2), random_tensor(shape, 2), random_tensor(channels, 3, 4 / tokens),
          random_tensor(channels, 4)};
    std::vector<Value> values;
    for (const Tensor& tensor : in) values.push_back(graph.input(fmt::format("x{}", values.size()), tensor.type()));
    graph.output("y", bi_wkv(values[0], values[1], values[2], values[3], form));
  }
};

TEST(TorchBiWkv, TheTreeComputesWhatTheReferenceDoes) {
  const auto engine = load_torch_engine({.dtype = DType::kF64});
  for (const Wkv form : {Wkv::kPaper, Wkv::kReleasedKernel}) {
    for (const std::int64_t tokens : {1, 2, 3, 31, 32, 33, 64, 65, 100, 1030}) {
      SCOPED_TRACE(fmt::format("{} {}", name_of(form), tokens));
      const Mixer m({2, tokens, 5}, form);
      // Sums of up to 1030 positive weights in f64 as a tree, beside ones in a row.
      EXPECT_LE(testing::relative_error(engine->run(m.graph, {}, m.in)[0], evaluate_reference(m.graph, {}, m.in)[0]),
                static_cast<double>(tokens + 16) * 0x1p-52);
    }
  }
}

TEST(TorchBiWkv, KeysOfAnySizeHaveFiniteGradients) {
  constexpr float kNothing = -std::numeric_limits<float>::infinity();
  for (const DType dtype : {DType::kF32, DType::kF64}) {
    for (const Wkv form : {Wkv::kPaper, Wkv::kReleasedKernel}) {
      SCOPED_TRACE(fmt::format("{} {}", name_of(dtype), name_of(form)));
      Mixer m({1, 40, 3}, form);
      const auto keys = m.in[0].mutable_data<float>();
      keys[0] = 300;
      keys[1] = -300;
      keys[30] = keys[31] = kNothing;
      const Tensor cotangent = random_tensor({1, 40, 3}, 5);
      const auto engine = load_torch_engine({.dtype = dtype});
      const TorchGradients got = engine->differentiate(m.graph, {}, m.in, {&cotangent, 1});
      // Golden cases with keys of such range state 4e-5 for f32.
      EXPECT_LE(testing::relative_error(got.outputs[0], evaluate_reference(m.graph, {}, m.in)[0]), 4e-5);
      for (const Tensor& gradient : got.inputs) {
        const Tensor wide = gradient.to(DType::kF64);
        for (const double value : wide.data<double>()) EXPECT_TRUE(std::isfinite(value));
      }
      const Tensor of_keys = got.inputs[0].to(DType::kF64);
      EXPECT_EQ(of_keys.data<double>()[30], 0);
      EXPECT_EQ(of_keys.data<double>()[31], 0);
    }
  }
}

TEST(TorchBiWkv, TheTreesMemoryIsLinearInTheTokens) {
  constexpr std::int64_t kTokens = 1 << 15;
  constexpr std::int64_t kChannels = 16;
  for (const Wkv form : {Wkv::kPaper, Wkv::kReleasedKernel}) {
    const Mixer m({1, kTokens, kChannels}, form);
    const Tensor cotangent = random_tensor({1, kTokens, kChannels}, 5);
    const auto engine = load_torch_engine({.dtype = DType::kF64});
    // A quadratic form would take kTokens numbers for each key.
    const std::int64_t bytes = peak_growth([&] { engine->differentiate(m.graph, {}, m.in, {&cotangent, 1}); });
    EXPECT_LE(bytes, 200 * kTokens * kChannels * 8);
  }
}

}  // namespace
}  // namespace weft
