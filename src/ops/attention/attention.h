// Softmax attention with several heads (Vaswani et al. 2017, arXiv:1706.03762, eq. 1):
//
//   y = softmax(q·kᵀ · scale) · v      for each picture of the batch and each head, the softmax over the keys
//
//   q  [B,Tq,C]
//   k  [B,Tk,C]     Tk ≥ 1
//   v  [B,Tk,C]
//   y  [B,Tq,C]     head h has the channels [h·D, (h+1)·D) of all four, D = C/heads
//
// The kernel never stores the Tq × Tk scores: it goes over blocks of keys with a running maximum and sum (Milakov and
// Gimelshein 2018, arXiv:1805.02867; Dao et al. 2022, arXiv:2205.14135). Precisions bf16 and i8 multiply q, k, v and
// the probabilities in bf16; scores, maxima, sums and accumulators are f32.
#pragma once

#include <memory>
#include <span>
#include <string_view>
#include <tuple>
#include <vector>

#include "graph/graph.h"
#include "kernel/kernel.h"

namespace weft {

struct Attention {
  int heads = 1;
  float scale = 0;  // of the scores; 0 stands for 1/√D

  static constexpr std::string_view kName = "attention";
  static constexpr std::tuple kFields{Field{"heads", &Attention::heads}, Field{"scale", &Attention::scale}};
  bool operator==(const Attention&) const = default;

  /// The factor that `scale` stands for with `head_channels` channels to a head.
  double factor(std::int64_t head_channels) const;
};

std::vector<TensorType> infer(const Attention& attributes, std::span<const TensorType> in);
void reference(const Attention& attributes, std::span<const Tensor> in, std::span<Tensor> out);
/// The two products: 2·B·Tq·Tk·C.
std::int64_t macs(const Attention& attributes, std::span<const TensorType> in);
std::unique_ptr<Kernel> make_kernel(const Attention& attributes, const KernelRequest& request);

/// Throws ShapeError when the extents do not fit, ConfigError when there is no head or the scale is not finite.
Value attention(Value q, Value k, Value v, const Attention& attributes);

}  // namespace weft
