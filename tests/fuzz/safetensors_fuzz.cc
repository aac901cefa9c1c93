#include <cstddef>
#include <cstdint>
#include <span>

#include "io/checkpoint.h"
#include "io/safetensors.h"
#include "weft/error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const auto file = weft::read_safetensors({.bytes = std::as_bytes(std::span(data, size)), .name = "x"});
    for (const auto& [name, tensor] : file.tensors) (void)weft::all_finite(tensor);
  } catch (const weft::Error&) {
  }
  return 0;
}
