// Batch normalisation (Ioffe, Szegedy 2015, arXiv:1502.03167) over the last axis:
//
//   y = (x − mean)/√(var + eps) · weight + bias
//
//   x                     [...,C]
//   weight, bias          [C]
//   running_mean, _var    [C]      of the training set, as at inference; without them mean and (biased) variance are
//                                  those of x over all axes but the last, as in training
//   y                     [...,C]
//
// On the CPU engine all but x are constants, and the running statistics are wanted. batch_moments gives what these are
// averaged from in training: the mean and the unbiased variance of x, [2,C].
#pragma once

#include <memory>
#include <span>
#include <string_view>
#include <tuple>
#include <vector>

#include "graph/graph.h"
#include "kernel/kernel.h"

namespace weft {

struct BatchNorm {
  float eps = 1e-5F;

  static constexpr std::string_view kName = "batch_norm";
  static constexpr std::tuple kFields{Field{"eps", &BatchNorm::eps}};
  bool operator==(const BatchNorm&) const = default;
};

struct BatchMoments {
  static constexpr std::string_view kName = "batch_moments";
  static constexpr std::tuple kFields{};
  bool operator==(const BatchMoments&) const = default;
};

std::vector<TensorType> infer(const BatchNorm& attributes, std::span<const TensorType> in);
void reference(const BatchNorm& attributes, std::span<const Tensor> in, std::span<Tensor> out);
std::int64_t macs(const BatchNorm& attributes, std::span<const TensorType> in);
std::unique_ptr<Kernel> make_kernel(const BatchNorm& attributes, const KernelRequest& request);

std::vector<TensorType> infer(const BatchMoments& attributes, std::span<const TensorType> in);
void reference(const BatchMoments& attributes, std::span<const Tensor> in, std::span<Tensor> out);
std::int64_t macs(const BatchMoments& attributes, std::span<const TensorType> in);
std::unique_ptr<Kernel> make_kernel(const BatchMoments& attributes, const KernelRequest& request);

/// By the parameters "weight" and "bias" and the buffers "running_mean" and "running_var" of the scope. In a graph for
/// training by the statistics of the batch, which each step adds to the buffers with a share of 0.1, PyTorch's
/// momentum.
Value batch_norm(Value x, const Scope& scope, float eps = 1e-5F);
/// Throws ShapeError when the extents do not fit, ConfigError when eps is negative or not finite.
Value batch_norm(Value x, Value weight, Value bias, Value running_mean, Value running_var, float eps = 1e-5F);

}  // namespace weft
