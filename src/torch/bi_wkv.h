// Bi-WKV in libtorch's operators.
#pragma once

#include <torch/torch.h>

#include <memory>

#include "core/threads.h"
#include "ops/bi_wkv/bi_wkv.h"

namespace weft::torch_engine {

/// The formula of ops/bi_wkv/bi_wkv.h as a tree of sums, in O(B·T·C) time and memory and O(log T) steps, on any device.
/// Computes in f64 whatever goes in: exponents grow with the number of tokens. Safe for any finite keys. Differentiable
/// by autograd, which keeps some hundred f64 numbers for each of k's meanwhile.
///
///   k, v [B,T,C]   w, u [C]   → [B,T,C], all of one floating type
at::Tensor bi_wkv_tree(const at::Tensor& k, const at::Tensor& v, const at::Tensor& w, const at::Tensor& u, Wkv wkv);

/// The same by the fastest way for the device and type: weft's own scan and its gradient (ops/bi_wkv/bi_wkv_grad.h) for
/// f32 on the CPU, else the tree, which the backward pass computes again. Nothing is kept between the passes but the
/// inputs. Can be differentiated once. Without elements the result is no part of autograd's record. `workers` are for
/// weft's own kernels.
at::Tensor bi_wkv(const at::Tensor& k, const at::Tensor& v, const at::Tensor& w, const at::Tensor& u, Wkv wkv,
                  const std::shared_ptr<const Workers>& workers);

}  // namespace weft::torch_engine
