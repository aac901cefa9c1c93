#include "torch/cuda/launch.h"
#include "torch/cuda/shift_plan.h"

namespace weft::cuda {
namespace {

bool is_empty(const ShiftShape& shape) {
  return shape.batch == 0 || shape.height == 0 || shape.width == 0 || shape.channels == 0;
}

// Calls f(P()) with the P for this type and so many mixes.
template <class F>
auto with_shift(Element type, int mixes, F f) {
  return with_type(type, [&](auto element) {
    using E = decltype(element);
    switch (mixes) {
      case 0:
        return f(Shift<E, 0>{});
      case 1:
        return f(Shift<E, 1>{});
      case 2:
        return f(Shift<E, 2>{});
      default:
        return f(Shift<E, 3>{});
    }
  });
}

template <class Tensors>
Error run(Element type, const ShiftShape& shape, const Tensors& tensors, bool backward, void* memory,
          Launcher& launcher) {
  return with_shift(type, tensors.mixes, [&](auto p) {
    Scratch scratch(memory);
    p = make_shift<decltype(p)>(shape, scratch, backward);
    set_tensors(p, tensors);
    shift_programs(p, launcher, backward);
    return launcher.error();
  });
}

}  // namespace

std::size_t shift_backward_scratch(Element type, const ShiftShape& shape, int mixes) {
  if (is_empty(shape)) return 0;
  return with_shift(type, mixes, [&](auto p) {
    Scratch scratch(nullptr);
    make_shift<decltype(p)>(shape, scratch, /*backward=*/true);
    return scratch.bytes();
  });
}

Error shift_forward(Element type, const ShiftShape& shape, const ShiftForward& tensors, const Queue& queue) {
  Launcher launcher(queue);
  return is_empty(shape) ? nullptr : run(type, shape, tensors, /*backward=*/false, nullptr, launcher);
}

Error shift_backward(Element type, const ShiftShape& shape, const ShiftBackward& tensors, void* scratch,
                     const Queue& queue) {
  Launcher launcher(queue);
  if (!is_empty(shape)) return run(type, shape, tensors, /*backward=*/true, scratch, launcher);
  const std::size_t bytes = static_cast<std::size_t>(shape.channels) * (type == Element::kF64 ? 8 : 4);
  for (int m = 0; m < tensors.mixes; ++m) launcher.clear(tensors.gmix[m], bytes);
  return launcher.error();
}

}  // namespace weft::cuda
