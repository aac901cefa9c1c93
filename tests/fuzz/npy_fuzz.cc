#include <cstddef>
#include <cstdint>
#include <span>

#include "io/npy.h"
#include "weft/error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    (void)weft::read_npy({.bytes = std::as_bytes(std::span(data, size)), .name = "x"}).to(weft::DType::kF32);
  } catch (const weft::Error&) {
  }
  return 0;
}
