// Bi-WKV's programs as CUDA kernels, for all types. Only for .cu files.
#pragma once

#include "torch/cuda/launch.h"
#include "torch/cuda/wkv_plan.h"

namespace weft::cuda {

inline bool is_empty(const WkvShape& shape) { return shape.batch == 0 || shape.tokens == 0 || shape.channels == 0; }

/// Calls f(P()) with the P for this type and form.
template <int kParts, class F>
auto with_wkv(Element type, const WkvShape& shape, F f) {
  return with_type(type, [&](auto element) {
    using E = decltype(element);
    return has_runs(shape) ? f(Wkv<E, true, kParts>{}) : f(Wkv<E, false, kParts>{});
  });
}

template <int kParts>
std::size_t wkv_scratch(Element type, const WkvShape& shape) {
  if (is_empty(shape)) return 0;
  return with_wkv<kParts>(type, shape, [&](auto p) {
    Scratch scratch(nullptr);
    make_wkv<decltype(p)>(shape, scratch, kParts == 4);
    return scratch.bytes();
  });
}

}  // namespace weft::cuda
