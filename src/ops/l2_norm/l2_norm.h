// Rows, or each head's part of a row, at length one (PyTorch's normalize; the cosine attention of Liu et al., Swin
// Transformer V2, 2022, arXiv:2111.09883, eq. 2):
//
//   y = x / max(‖x‖, eps)      ‖x‖ = √Σ x² over the D = C/heads channels of a head
//
//   x  [...,C]     head h has the channels [h·D, (h+1)·D)
//   y  [...,C]
//
// Counts no multiply-accumulates, as elementwise operators.
#pragma once

#include <memory>
#include <span>
#include <string_view>
#include <tuple>
#include <vector>

#include "graph/graph.h"
#include "kernel/kernel.h"

namespace weft {

struct L2Norm {
  int heads = 1;
  float eps = 1e-12F;

  static constexpr std::string_view kName = "l2_norm";
  static constexpr std::tuple kFields{Field{"heads", &L2Norm::heads}, Field{"eps", &L2Norm::eps}};
  bool operator==(const L2Norm&) const = default;
};

std::vector<TensorType> infer(const L2Norm& attributes, std::span<const TensorType> in);
void reference(const L2Norm& attributes, std::span<const Tensor> in, std::span<Tensor> out);
std::int64_t macs(const L2Norm& attributes, std::span<const TensorType> in);
std::unique_ptr<Kernel> make_kernel(const L2Norm& attributes, const KernelRequest& request);

/// Throws ShapeError when the heads do not divide C, ConfigError when there is no head or eps is not above 0.
Value l2_norm(Value x, int heads = 1, float eps = 1e-12F);

}  // namespace weft
