#include "verify/module_cases.h"

#include <gtest/gtest.h>

#include <fstream>

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

// In fewer bits as well: of attention free attention the projections alone are rounded.
class AftGolden : public ::testing::TestWithParam<const char*> {};

TEST_P(AftGolden, EqualsTheFormula) { testing::expect_equals_official(GetParam(), 2); }

INSTANTIATE_TEST_SUITE_P(Cases, AftGolden,
                         ::testing::Values("aft-full", "aft-full-causal", "aft-simple", "aft-simple-causal",
                                           "aft-local", "aft-local-causal", "aft-factorized", "aft-factorized-causal",
                                           "aft-conv", "aft-conv-causal", "aft-conv2d"),
                         testing::case_name);

// What a reader of the file gets for one altered option of a case, "no error" for none.
std::string error_with(const std::string& name, const char* option, const Json& value) {
  Json meta = Json::parse(std::ifstream(testing::golden(name) / "meta.json"));
  meta["config"][option] = value;
  std::map<std::string, TensorType> inputs;
  for (const auto& [input, about] : meta["inputs"].items()) {
    inputs.emplace(input, TensorType{DType::kF32, Shape(about["shape"].get<std::vector<std::int64_t>>())});
  }
  try {
    build_module(meta["system"].get<std::string>(), meta["config"], inputs);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(Modules, RefuseOptionsThatMakeNone) {
  const std::vector<std::pair<std::string, std::vector<const char*>>> cases = {
      {"sep-mlp-op-a", {"N", "C", "N_out", "C_out"}},
      {"lowrank-mlp-op-a", {"N", "C", "N_out", "C_out", "rank"}},
      {"masa-op-full", {"num_heads"}},
      {"masa-op-decomposed", {"num_heads"}},
      {"local-attention-op-window", {"window_size", "shift_size", "num_heads"}},
      {"local-attention-op-sliding", {"kernel_size", "num_heads"}},
      {"ddw-op-k7", {"kernel_size", "reduction"}},
      {"iddw-op-k7", {"kernel_size", "group_channels"}},
      {"aft-local", {"d_model", "seq_len", "local_window_size", "causal", "bias"}},
      {"aft-factorized", {"hidden_dim", "max_seq_len", "position_bias_dim", "local_window_size", "causal"}},
      {"aft-conv2d", {"dim", "heads", "window", "ndim", "causal"}},
      {"aft-simple", {"hidden_dim", "causal"}},
  };
  for (const auto& [name, options] : cases) {
    for (const char* option : options) {
      for (const Json& value : {Json(0), Json(-1), Json(1e300), Json("7")}) {
        const std::string error = error_with(name, option, value);
        const bool allowed = value == 0 && option == std::string("shift_size");
        EXPECT_EQ(error == "no error", allowed) << name << ' ' << option << ' ' << value << ": " << error;
        EXPECT_EQ(error.find('\n'), std::string::npos) << error;
      }
      EXPECT_NO_THROW(error_with(name, option, 65536)) << "too much, or a graph that no weights fit";
    }
  }
  EXPECT_EQ(error_with("masa-op-full", "num_heads", 0), "[rmt] num_heads must be a whole number of 1 … 65536, got 0");
  EXPECT_EQ(error_with("masa-op-full", "num_heads", 5),
            "[rmt] heads of an even number of channels expected, got 24 channels for 5 heads");
  EXPECT_EQ(error_with("iddw-op-k7", "group_channels", 5), "[dwnet] 12 channels do not make groups of 5");
  EXPECT_EQ(error_with("ddw-op-k7", "reduction", 11), "[dwnet] 10 channels can not be reduced 11-fold");
}

}  // namespace
}  // namespace weft
