#include "ops/embedding/embedding.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "cpu/plan.h"
#include "ops/testing/op_test.h"

namespace weft::testing {
namespace {

Tensor tokens_of(std::vector<std::int64_t> values, Shape shape) {
  Tensor tokens(DType::kI64, std::move(shape));
  std::ranges::copy(values, tokens.mutable_data<std::int64_t>().begin());
  return tokens;
}

// A row is copied: nothing is rounded.
TEST(Embedding, GivesRowsOfTheTable) {
  for (const std::int64_t channels : {1, 5, 64}) {
    const Tensor table = random_tensor({7, channels}, 1);
    check_kernel({"rows", Embedding{}, {tokens_of({3, 0, 6, 6, 1, 2}, {2, 3}), table}, 1e-9, {false, true}});
    check_kernel({"no tokens", Embedding{}, {tokens_of({}, {2, 0}), table}, 1e-9, {false, true}});
  }
}

// What a checkpoint holds is widened exactly.
TEST(Embedding, TakesTablesAsTheyAreStored) {
  const Tensor table = random_tensor({7, 33}, 1).to(DType::kBF16).to(DType::kF16);  // in all of the three types
  const Tensor tokens = tokens_of({3, 0, 6, 6, 1, 2}, {2, 3});
  for (const int threads : {1, 2}) {
    const auto rows = [&](DType stored) {
      Graph graph("rows");
      const Value in = graph.input("tokens", tokens.type());
      graph.output("y", embedding(in, Scope(graph).param("table", {7, 33}, init::constant(0))));
      const Workers workers(threads);
      const Plan plan(graph, {{"table", table.to(stored)}}, workers, std::make_shared<PackCache>());
      Plan::Context context(plan);
      Tensor y(DType::kF32, {2, 3, 33});
      const std::byte* const from = tokens.raw();
      std::byte* const to = y.mutable_raw();
      plan.run({&from, 1}, {&to, 1}, context, workers);
      return y;
    };
    const Tensor want = rows(DType::kF32);
    EXPECT_EQ(want.data<float>()[0], table.to(DType::kF32).data<float>()[3 * 33]);
    for (const DType stored : {DType::kBF16, DType::kF16}) {
      EXPECT_TRUE(std::ranges::equal(rows(stored).data<float>(), want.data<float>())) << name_of(stored);
    }
  }
}

TEST(Embedding, GivesNaNWhereThereIsNoRow) {
  const Tensor table = random_tensor({3, 4}, 1);
  for (const std::int64_t token : {std::int64_t{-1}, std::int64_t{3}, std::int64_t{1} << 62}) {
    const OpCase c{"NaN", Embedding{}, {tokens_of({0, token}, {1, 2}), table}, 0};
    const Tensor y = run_kernel(c)[0];
    EXPECT_EQ(y.data<float>()[3], table.data<float>()[3]);
    for (int i = 4; i < 8; ++i) EXPECT_TRUE(std::isnan(y.data<float>()[static_cast<std::size_t>(i)])) << token;
  }
}

TEST(Embedding, RefusesWhatIsNoTable) {
  const auto error = [](TensorType tokens, Shape table) -> std::string {
    const std::vector<TensorType> in{std::move(tokens), {DType::kF32, std::move(table)}};
    try {
      infer(Embedding{}, in);
    } catch (const ShapeError& e) {
      return e.what();
    }
    return "no error";
  };
  EXPECT_EQ(error({DType::kF32, {1, 2}}, {3, 4}), "[embedding] tokens must be whole numbers i64[B,T], got f32[1,2]");
  EXPECT_EQ(error({DType::kI64, {2}}, {3, 4}), "[embedding] tokens must be whole numbers i64[B,T], got i64[2]");
  EXPECT_EQ(error({DType::kI64, {1, 2}}, {3}), "[embedding] the table must be [V,C], got [3]");
}

}  // namespace
}  // namespace weft::testing
