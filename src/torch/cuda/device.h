// What code needs that nvcc compiles for GPUs, and a C++ compiler for the tests, which run the same code on the CPU.
// C++17, for the sake of nvcc 11.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#define WEFT_ON_DEVICE __host__ __device__ __forceinline__
#define WEFT_UNROLL_TEXT(text) _Pragma(#text)
#define WEFT_UNROLL(times) WEFT_UNROLL_TEXT(unroll times)
#else
#include <stdexcept>

#include "core/half.h"
#define WEFT_ON_DEVICE inline
#define WEFT_UNROLL(times)
#endif

namespace weft::cuda {

/// Threads of a block that lie side by side in memory: a warp.
constexpr int kLanes = 32;

template <class T>
constexpr T ceil_div(T a, T b) {
  return (a + b - 1) / b;
}

// ---- memory ----

/// An array; outside of GPUs its bounds are checked.
template <class T>
struct Buffer {
  T* data;
  std::int64_t size;

  WEFT_ON_DEVICE T& operator[](std::int64_t i) const {
#ifndef __CUDACC__
    if (i < 0 || i >= size) throw std::out_of_range("an access out of bounds");
#endif
    return data[i];
  }
};

// ---- numbers ----

/// What elements of this type are computed in.
template <class Element>
struct RealOf {
  using type = float;
};
template <>
struct RealOf<double> {
  using type = double;
};

WEFT_ON_DEVICE float widen(float x) { return x; }
WEFT_ON_DEVICE double widen(double x) { return x; }
template <class Element>
struct Narrow {
  static WEFT_ON_DEVICE Element from(Element x) { return x; }
};

#ifdef __CUDACC__
using Half = __half;
using BFloat16 = __nv_bfloat16;
WEFT_ON_DEVICE float widen(Half x) { return __half2float(x); }
WEFT_ON_DEVICE float widen(BFloat16 x) { return __bfloat162float(x); }
template <>
struct Narrow<Half> {
  static WEFT_ON_DEVICE Half from(float x) { return __float2half_rn(x); }
};
template <>
struct Narrow<BFloat16> {
  static WEFT_ON_DEVICE BFloat16 from(float x) { return __float2bfloat16_rn(x); }
};
#else
WEFT_ON_DEVICE float widen(Half x) { return to_float(x); }
WEFT_ON_DEVICE float widen(BFloat16 x) { return to_float(x); }
template <>
struct Narrow<Half> {
  static Half from(float x) { return to_half(x); }
};
template <>
struct Narrow<BFloat16> {
  static BFloat16 from(float x) { return to_bfloat16(x); }
};
#endif

template <class Real>
constexpr Real kLowest = std::numeric_limits<Real>::lowest();

/// e^x for x ≤ 0 or little above. On GPUs the error is up to 2^-22 + |x|·2^-23 of the result, for f32: next to e^0 = 1,
/// which every sum has, never more than 2^-22.
WEFT_ON_DEVICE float exp_of(float x) {
#ifdef __CUDA_ARCH__
  return __expf(x);
#else
  return std::exp2(x * 1.44269504F);  // as GPUs do it
#endif
}
WEFT_ON_DEVICE double exp_of(double x) { return std::exp(x); }

template <class Real>
WEFT_ON_DEVICE Real multiply_add(Real a, Real b, Real c) {
  return std::fma(a, b, c);
}

// ---- blocks of threads ----

struct Thread {
  int lane, row;
};

/// A block of kLanes × kRows threads. `each` runs f(Thread) on all of them, then waits for all. What threads share lies
/// in memory given by the kernel; what a thread keeps for itself from one `each` to the next is Own<T>.
#ifdef __CUDACC__
template <int kRows>
struct Block {
  template <class F>
  __device__ __forceinline__ void each(F&& f) const {
    f(Thread{static_cast<int>(threadIdx.x), static_cast<int>(threadIdx.y)});
    __syncthreads();
  }
};
template <class T, int kRows>
struct Own {
  T value;
  __device__ __forceinline__ T& operator[](Thread) { return value; }
};
#else
template <int kRows>
struct Block {
  bool backwards = false;  // the order must not matter

  template <class F>
  void each(F&& f) const {
    for (int i = 0; i < kLanes * kRows; ++i) {
      const int thread = backwards ? kLanes * kRows - 1 - i : i;
      f(Thread{thread % kLanes, thread / kLanes});
    }
  }
};
template <class T, int kRows>
struct Own {
  std::vector<T> values = std::vector<T>(kLanes * kRows);
  T& operator[](Thread thread) { return values[static_cast<std::size_t>(thread.row * kLanes + thread.lane)]; }
};
#endif

/// One T for each thread of a block, for all of them to see.
template <class T, int kRows>
struct PerThread {
  T rows[kRows][kLanes];
  WEFT_ON_DEVICE T& operator[](Thread thread) { return rows[thread.row][thread.lane]; }
};

}  // namespace weft::cuda
