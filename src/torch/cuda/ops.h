// The CUDA kernels on libtorch's tensors. Without CUDA (without/ops.cc) there are none for anything.
#pragma once

#include <torch/torch.h>

#include <array>
#include <span>
#include <vector>

#include "ops/bi_wkv/bi_wkv.h"
#include "ops/q_shift/q_shift.h"

namespace weft::torch_engine {

/// Whether there are kernels for Bi-WKV of this k [B,T,C]: on a CUDA device, of f32, f64, bf16 or f16, not empty.
bool has_cuda_wkv(const at::Tensor& k);
/// k, v, w, u → y, of k's type. What is not of it is converted first; w and u are read as f32, f64 for an f64 k.
at::Tensor cuda_wkv(const std::array<at::Tensor, 4>& inputs, Wkv wkv);
/// The gradients of k, v, w and u, each of its own type. Linear in time and memory, the same bits every time.
std::vector<at::Tensor> cuda_wkv_backward(const std::array<at::Tensor, 4>& inputs, const at::Tensor& gradient, Wkv wkv);

/// The same for the shift of x [B,T,C]; `pixels` below 0 shift the other way.
bool has_cuda_shift(const at::Tensor& x, const QShift& shift);
at::Tensor cuda_shift(const at::Tensor& x, const QShift& shift);
/// For each of 1 to 3 mixes [C] x·mix + shifted·(1 − mix), in one go; differentiable by autograd, once.
std::vector<at::Tensor> cuda_shift_and_mix(const at::Tensor& x, std::span<const at::Tensor> mixes, const QShift& shift);

}  // namespace weft::torch_engine
