#include "torch/cuda/wkv_launch.h"

namespace weft::cuda {

std::size_t wkv_forward_scratch(Element type, const WkvShape& shape) { return wkv_scratch<2>(type, shape); }

Error wkv_forward(Element type, const WkvShape& shape, const WkvForward& tensors, void* memory, const Queue& queue) {
  if (is_empty(shape)) return nullptr;
  return with_wkv<2>(type, shape, [&](auto p) {
    Scratch scratch(memory);
    p = make_wkv<decltype(p)>(shape, scratch, /*backward=*/false);
    set_tensors(p, tensors);
    Launcher launcher(queue);
    forward(p, launcher);
    return launcher.error();
  });
}

}  // namespace weft::cuda
