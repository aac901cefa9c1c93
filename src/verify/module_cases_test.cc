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

INSTANTIATE_TEST_SUITE_P(Cases, ModuleGolden,
                         ::testing::Values("sep-mlp-op-a", "lowrank-mlp-op-a", "ddw-op-k7", "iddw-op-k7"),
                         testing::case_name);

// In fewer bits as well: small windows are multiplied in f32.
class LocalAttentionGolden : public ::testing::TestWithParam<const char*> {};

TEST_P(LocalAttentionGolden, EqualsTheOfficialCode) { testing::expect_equals_official(GetParam(), 2); }

INSTANTIATE_TEST_SUITE_P(Cases, LocalAttentionGolden,
                         ::testing::Values("local-attention-op-window", "local-attention-op-sliding"),
                         testing::case_name);

}  // namespace
}  // namespace weft
