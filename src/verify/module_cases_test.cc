#include "verify/module_cases.h"

#include <gtest/gtest.h>

#include "kernel/testing/product_types.h"
#include "models/testing/reference_cases.h"

namespace weft {
namespace {

class ModuleGolden : public ::testing::TestWithParam<const char*> {};

TEST_P(ModuleGolden, EqualsTheOfficialCode) { testing::expect_equals_official(GetParam(), 1); }

TEST_P(ModuleGolden, InFewerBitsIsWithinTheRoundingErrorToExpect) {
  if (testing::fewer_bits().empty()) GTEST_SKIP() << testing::kNoFewerBits;
  testing::expect_rounds_as_expected(GetParam());
}

INSTANTIATE_TEST_SUITE_P(Cases, ModuleGolden, ::testing::Values("sep-mlp-op-a", "lowrank-mlp-op-a"),
                         testing::case_name);

}  // namespace
}  // namespace weft
