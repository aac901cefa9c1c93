// What the tests of every model family ask: the cases of tests/golden, and parameters that start soundly.
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <filesystem>
#include <string>

#include "graph/graph.h"

namespace weft::testing {

/// A case in tests/golden, or a file of one.
std::filesystem::path golden(const std::string& path);
/// Its name as gtest can take it, for INSTANTIATE_TEST_SUITE_P.
std::string case_name(const ::testing::TestParamInfo<const char*>& test);

/// On the CPU engine and on the reference engine every array of the case is within the tolerance that the case states,
/// and there are `least` of them.
void expect_equals_official(const std::string& name, std::size_t least);

/// In the types of fewer_bits(), too, with the tolerance of verify/rounding.h; and rounding is seen to take place.
void expect_rounds_as_expected(const std::string& name);

/// Every initialiser of the graph's parameters gives finite values.
void expect_finite_parameters(const Graph& graph);

}  // namespace weft::testing
