// What error to expect of a network whose products multiply in fewer bits: the tolerance of reference cases in bf16 and
// int8. It follows from the encodings (kernel/encode.h) and from the network's shape; nothing in it was fitted.
//
// Of one operand, the error's root mean square over the operand's:
//   bf16  rounding to nearest moves a value by 2^-8 of it at most, uniformly: 2^-8/√3, and less for most mantissas.
//   int8  a step is range/255 for a row of activations and largest/127 for one of weights, the error is uniform within
//         half a step: step/√12. Of k normal elements the largest is near √(2 ln k) root mean squares, the range twice
//         that, so that both come to √(2 ln k)/(127·√12) of the root mean square.
// Of one product: every term x·w has both errors, independent of those of other terms. They add up like the terms
// themselves do, so that the relative error of the sum is √(e_x² + e_w²), whatever k is.
// What lies in memory between two stages is bf16 in both types (cpu/plan_stages.cc): results of norms, products and
// mixers (or what these read), and the positional embedding. Each of them counts one more rounding to bf16.
// Of the network: norms, gates and residual sums keep the scale of errors relative to that of values, and the products'
// errors are independent: they add in quadrature, √(Σ over products). Counting all products is the worst case; those in
// branches that are small beside the residual stream contribute less. Softmax attention has two more products, in bf16
// where the CPU has it, whatever the others multiply.
// The largest error over the largest value is near the ratio of root mean squares when both are spread alike. A factor
// of 2 remains for where they are not: a squared ReLU doubles relative errors, and a few outputs are few samples.
#pragma once

#include "graph/graph.h"
#include "weft/tensor.h"

namespace weft {

/// The bound on max |got − want| / max |want| of the graph's outputs; 0 in kF32, where the cases state theirs.
double rounding_tolerance(const Graph& graph, DType products);

}  // namespace weft
