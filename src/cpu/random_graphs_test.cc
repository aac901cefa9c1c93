// The CPU engine and the references on random graphs.
#include <gtest/gtest.h>

#include <map>

#include "cpu/testing/run.h"
#include "graph/evaluate.h"
#include "kernel/testing/product_types.h"
#include "ops/ops.h"
#include "ops/testing/op_test.h"
#include "ops/testing/rounding.h"

namespace weft {
namespace {

using testing::random_graph;
using testing::RandomGraph;

constexpr std::uint64_t kGraphs = 400;

TEST(RandomGraphs, HoldEveryOperatorManyTimes) {
  std::map<std::string, int, std::less<>> count;
  for (std::uint64_t seed = 0; seed < kGraphs; ++seed) {
    const RandomGraph g = random_graph(seed);
    for (const Graph::Node& node : g.graph->nodes()) ++count[std::string(node.operation.name())];
  }
  const auto is_tested = [](const auto& attributes) {  // not what is for graphs for training only
    return !std::is_same_v<std::decay_t<decltype(attributes)>, BatchMoments>;
  };
#define WEFT_OP(Attributes, room)                                              \
  if (is_tested(Attributes{})) {                                               \
    EXPECT_GE(count[std::string(Attributes::kName)], 40) << Attributes::kName; \
  }
#include "ops/ops.def"
#undef WEFT_OP
}

TEST(RandomGraphs, ThePlanComputesWhatTheReferencesDo) {
  std::vector<double> all_tolerances;
  for (std::uint64_t seed = 0; seed < kGraphs; ++seed) {
    const RandomGraph g = random_graph(seed);
    SCOPED_TRACE(fmt::format("graph of seed {}:\n{}", seed, g.graph->str()));
    const std::vector<Tensor> want = evaluate_reference(*g.graph, g.weights, g.inputs);
    const std::vector<double> tolerance = testing::tolerances(g, want);
    const std::vector<Tensor> got = testing::run_plan(*g.graph, g.weights, g.inputs, 1 + static_cast<int>(seed % 3));
    ASSERT_EQ(got.size(), want.size());
    for (std::size_t i = 0; i < want.size(); ++i) {
      ASSERT_EQ(got[i].shape(), want[i].shape());
      EXPECT_LE(testing::relative_error(got[i], want[i]), tolerance[i]) << g.graph->outputs()[i].name;
      all_tolerances.push_back(tolerance[i]);
    }
  }
  // The comparison is worth what its tolerances are: most are some ten to a thousand roundings.
  std::ranges::sort(all_tolerances);
  const auto quantile = [&](double q) {
    return all_tolerances[static_cast<std::size_t>(q * static_cast<double>(all_tolerances.size() - 1))];
  };
  EXPECT_LE(quantile(0.5), 1e-5);
  EXPECT_LE(quantile(0.95), 1e-4);
}

// In bf16 and int8 the same with their roundings: 2^-9 of an element, and half a step of 255 over a range of at most
// twice the largest element.
TEST(RandomGraphs, ThePlanComputesInFewerBitsWhatTheReferencesDo) {
  if (testing::fewer_bits().empty()) GTEST_SKIP() << testing::kNoFewerBits;
  for (std::uint64_t seed = 0; seed < kGraphs; ++seed) {
    const RandomGraph g = random_graph(seed);
    SCOPED_TRACE(fmt::format("graph of seed {}:\n{}", seed, g.graph->str()));
    const std::vector<Tensor> want = evaluate_reference(*g.graph, g.weights, g.inputs);
    for (const DType dtype : testing::fewer_bits()) {
      const double rounding = dtype == DType::kBF16 ? 0x1p-9 : 1.0 / 255;
      const std::vector<double> tolerance = testing::tolerances(g, want, rounding);
      const int threads = 1 + static_cast<int>(seed % 3);
      const std::vector<Tensor> got = testing::run_plan(*g.graph, g.weights, g.inputs, threads, dtype);
      for (std::size_t i = 0; i < want.size(); ++i) {
        ASSERT_EQ(got[i].shape(), want[i].shape());
        EXPECT_LE(testing::relative_error(got[i], want[i]), tolerance[i])
            << name_of(dtype) << " " << g.graph->outputs()[i].name;
      }
    }
  }
}

}  // namespace
}  // namespace weft
