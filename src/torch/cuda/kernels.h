// The CUDA kernels, as plain functions: no header of CUDA's, none of libtorch's. C++17.
//
// All pointers are to the device's memory, tensors lie in it without gaps. What is asked for is put on a stream; errors
// of what runs there come to light later, as always with CUDA. Each function returns nullptr, or what went wrong, in
// words that live on.
#pragma once

#include <cstddef>
#include <cstdint>

struct CUstream_st;

namespace weft::cuda {

/// A stream of a device.
struct Queue {
  int device;
  CUstream_st* stream;
};
using Error = const char*;

enum class Element : std::uint8_t { kF32, kF64, kBF16, kF16 };

// ---- Bi-WKV (ops/bi_wkv/bi_wkv.h, bi_wkv_grad.h) ----
//
// Chunk-parallel scans: parallel over batch, channels and tokens, in linear time. Sums are f32, f64 for kF64, each
// scaled by its largest term: right for any finite keys. The same bits whenever it is run on a device of one kind.

struct WkvShape {
  std::int64_t batch = 0, tokens = 0, channels = 0;
  bool released_kernel = false;  // Wkv::kReleasedKernel, else Wkv::kPaper

  /// Whether there are kernels for this: 2^24 tokens and a product of batch and channels below 2^31.
  bool fits() const {
    return batch >= 0 && tokens >= 0 && channels >= 0 && tokens <= (1 << 24) && batch <= 0x7FFFFFFF &&
           channels <= 0x7FFFFFFF && batch * channels <= 0x7FFFFFFF;
  }
};

/// `w` and `u` [C] and their gradients are f32, f64 for kF64; the others [B,T,C] are of one type.
struct WkvForward {
  const void *k, *v;
  const void *w, *u;
  void* y;
};
struct WkvBackward {
  const void *k, *v;
  const void *w, *u;
  const void* gy;
  void *gk, *gv;
  void *gw, *gu;
};

/// Bytes of scratch, to be aligned by 256.
std::size_t wkv_forward_scratch(Element type, const WkvShape& shape);
std::size_t wkv_backward_scratch(Element type, const WkvShape& shape);
Error wkv_forward(Element type, const WkvShape& shape, const WkvForward& tensors, void* scratch, const Queue& queue);
Error wkv_backward(Element type, const WkvShape& shape, const WkvBackward& tensors, void* scratch, const Queue& queue);

// ---- the shift of tokens (ops/q_shift/q_shift.h), with what is mixed of it ----

struct ShiftShape {
  std::int64_t batch = 0, height = 0, width = 0, channels = 0;
  std::int64_t pixels = 1;                 // below 0: the other way
  std::int64_t cuts[5] = {0, 0, 0, 0, 0};  // QShift::cuts

  bool fits() const {
    return batch >= 0 && height >= 0 && width >= 0 && channels >= 0 && height <= 0x7FFFFFFF && width <= 0x7FFFFFFF &&
           height * width <= 0x7FFFFFFF && channels <= 0x7FFFFFFF && pixels >= -0x7FFFFFFF && pixels <= 0x7FFFFFFF;
  }
};

constexpr int kLargestMixes = 3;

/// With `mixes` from 1 to 3: y[m] = x·mix[m] + shifted·(1 − mix[m]), the mixes [C]. With 0: y[0] = shifted.
struct ShiftForward {
  const void* x;
  int mixes;
  const void* mix[kLargestMixes];
  void* y[kLargestMixes];
};
/// Mixes and their gradients are f32, f64 for kF64.
struct ShiftBackward {
  const void* x;
  int mixes;  // 1 to 3; that of the shift alone is the shift the other way
  const void* mix[kLargestMixes];
  const void* gy[kLargestMixes];
  void* gx;
  void* gmix[kLargestMixes];
};

std::size_t shift_backward_scratch(Element type, const ShiftShape& shape, int mixes);
Error shift_forward(Element type, const ShiftShape& shape, const ShiftForward& tensors, const Queue& queue);
Error shift_backward(Element type, const ShiftShape& shape, const ShiftBackward& tensors, void* scratch,
                     const Queue& queue);

}  // namespace weft::cuda
