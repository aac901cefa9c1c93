// The causal WKV in libtorch's operators.
#pragma once

#include <torch/torch.h>

#include <memory>

#include "core/threads.h"
#include "ops/causal_wkv/causal_wkv.h"

namespace weft::torch_engine {

struct CausalWkvTensors {
  at::Tensor y, next;
};

/// The formula of ops/causal_wkv/causal_wkv.h: y by a tree of sums, the next state by one sum, in O(B·T·C) time and
/// memory and O(log T) steps, on any device. Computes in f64 whatever goes in. Right for keys from −1e30 on.
/// Differentiable by autograd.
///
///   k, v [B,T,C]   w, u [C]   state [B,3,C]   → [B,T,C], [B,3,C], all of one floating type
CausalWkvTensors causal_wkv_tree(const at::Tensor& k, const at::Tensor& v, const at::Tensor& w, const at::Tensor& u,
                                 const at::Tensor& state);

/// The same by the fastest way for the device and type: weft's own scan and its gradient
/// (ops/causal_wkv/causal_wkv_grad.h) for f32 on the CPU, else the tree, which the backward pass computes again. What
/// comes back through the next state goes through the tree's sum in either case. Nothing is kept between the passes but
/// the inputs. Can be differentiated once. `workers` are for weft's own kernels.
CausalWkvTensors causal_wkv(const at::Tensor& k, const at::Tensor& v, const at::Tensor& w, const at::Tensor& u,
                            const at::Tensor& state, const std::shared_ptr<const Workers>& workers);

}  // namespace weft::torch_engine
