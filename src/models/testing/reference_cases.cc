#include "models/testing/reference_cases.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "kernel/testing/product_types.h"
#include "verify/verify.h"

namespace weft::testing {

std::filesystem::path golden(const std::string& path) {
  return std::filesystem::path(WEFT_SOURCE_DIR) / "tests/golden" / path;
}

std::string case_name(const ::testing::TestParamInfo<const char*>& test) {
  std::string name = test.param;
  std::ranges::replace(name, '-', '_');
  return name;
}

void expect_equals_official(const std::string& name, std::size_t least) {
  for (const Engine engine : {Engine::kCpu, Engine::kReference}) {
    const VerifyResult result = verify_case(golden(name), {.engine = engine, .threads = 2});
    EXPECT_GE(result.checks.size(), least);
    for (const VerifyCheck& check : result.checks) {
      EXPECT_TRUE(check.passed()) << check.name << ": " << check.error << " > " << check.tolerance;
    }
  }
}

void expect_rounds_as_expected(const std::string& name) {
  const VerifyResult exact = verify_case(golden(name), {.threads = 2});
  for (const DType dtype : fewer_bits()) {
    SCOPED_TRACE(name_of(dtype));
    const VerifyResult result = verify_case(golden(name), {.threads = 2, .dtype = dtype});
    ASSERT_EQ(result.checks.size(), exact.checks.size());
    bool used = false;
    for (std::size_t i = 0; i < result.checks.size(); ++i) {
      const VerifyCheck& check = result.checks[i];
      EXPECT_TRUE(check.passed()) << check.name << ": " << check.error << " > " << check.tolerance;
      if (check.name == "params") continue;
      EXPECT_LT(check.tolerance, 0.3) << "not worth the name";
      used = used || check.error > exact.checks[i].tolerance;
    }
    EXPECT_TRUE(used) << "the type was not used";
  }
}

void expect_finite_parameters(const Graph& graph) {
  std::mt19937_64 random(1);
  for (const int id : graph.parameters()) {
    const Graph::ValueInfo& parameter = graph.value(id);
    std::vector<float> values(static_cast<std::size_t>(parameter.type.shape.elements()));
    parameter.initializer(values, random);
    for (const float x : values) EXPECT_TRUE(std::isfinite(x)) << parameter.name;
  }
}

}  // namespace weft::testing
