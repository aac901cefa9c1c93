// PyTorch checkpoints, whole archives and bare pickles: the first byte says which, since few mutations of an archive
// reach the pickle inside it.
#include <cstddef>
#include <cstdint>
#include <span>

#include "io/checkpoint.h"
#include "io/pickle.h"
#include "weft/error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const auto bytes = std::as_bytes(std::span(data, size)).subspan(1);
  try {
    if (data[0] % 2 == 0) {
      const weft::Checkpoint file = weft::read_checkpoint({.bytes = bytes, .name = "x"});
      for (const auto& [name, tensor] : file.tensors) (void)weft::all_finite(tensor);
      (void)file.metadata.dump();
    } else {
      (void)weft::pickle::read(bytes, "x");
    }
  } catch (const weft::Error&) {
  }
  return 0;
}
