#include "torch/cuda/wkv_launch.h"

namespace weft::cuda {

std::size_t wkv_backward_scratch(Element type, const WkvShape& shape) { return wkv_scratch<4>(type, shape); }

Error wkv_backward(Element type, const WkvShape& shape, const WkvBackward& tensors, void* memory, const Queue& queue) {
  Launcher launcher(queue);
  if (is_empty(shape)) {
    const std::size_t bytes = static_cast<std::size_t>(shape.channels) * (type == Element::kF64 ? 8 : 4);
    launcher.clear(tensors.gw, bytes);
    launcher.clear(tensors.gu, bytes);
    return launcher.error();
  }
  return with_wkv<4>(type, shape, [&](auto p) {
    Scratch scratch(memory);
    p = make_wkv<decltype(p)>(shape, scratch, /*backward=*/true);
    set_tensors(p, tensors);
    backward(p, launcher);
    return launcher.error();
  });
}

}  // namespace weft::cuda
