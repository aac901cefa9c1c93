// What only a program outside of weft can show: the public headers suffice, the library links, its exceptions arrive.
#include <weft/error.h>
#include <weft/tensor.h>

#include <cstdio>
#include <vector>

int main() {
  const std::vector<float> values = {1, 2, 3, 4, 5, 6};
  const weft::Tensor tensor = weft::Tensor::of(values, {2, 3});
  if (tensor.to(weft::DType::kBF16).type().str() != "bf16[2,3]") return 1;
  try {
    static_cast<void>(tensor.reshaped({4}));
  } catch (const weft::ShapeError& error) {
    std::puts(error.what());
    return 0;
  }
  return 1;
}
