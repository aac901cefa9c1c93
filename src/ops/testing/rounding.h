// What arithmetic of a given precision may cost a graph, measured on the references.
//
// Rounding to a relative error of ε in every operation is imitated: what goes into an operation is changed by up to n·ε
// of its largest element, where n is how many roundings one element of the result may see there (products in a sum, and
// a few more), and the result by up to ε of its own largest. What the outputs then move by, at most of three times, is
// what such arithmetic may cost; 4 of these are allowed, because three samples are few and engines may round in other
// places.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/testing/random_graph.h"

namespace weft::testing {

/// Half the distance of 1 to the next number.
constexpr double kF32Rounding = 0x1p-24;
constexpr double kF64Rounding = 0x1p-53;
/// How much more than the largest movement seen is allowed.
constexpr double kRoundingMargin = 4;

/// The references' outputs, f64, with errors of relative size `epsilon` strewn in.
std::vector<Tensor> evaluate_rounding(const RandomGraph& g, double epsilon, std::uint64_t seed);

/// For each output the relative error (relative_error of op_test.h) that an engine may make whose roundings are
/// `epsilon`. `want` are the references' outputs.
std::vector<double> tolerances(const RandomGraph& g, const std::vector<Tensor>& want, double epsilon = kF32Rounding);

}  // namespace weft::testing
