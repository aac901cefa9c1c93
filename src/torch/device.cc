#include "torch/device.h"

#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/version.h>

// Of OpenBLAS, when that is what libtorch multiplies with: it does not heed libtorch's number of threads.
extern "C" void openblas_set_num_threads(int threads) __attribute__((weak));

namespace weft::torch_engine {
namespace {

void require_cuda([[maybe_unused]] int device) {
#ifdef WEFT_TORCH_HAS_CUDA
  require<UnsupportedError>(torch::cuda::is_available(), "torch",
                            "libtorch {} finds no CUDA device; does nvidia-smi show one, and a driver as new as this "
                            "libtorch's CUDA?",
                            TORCH_VERSION);
  const auto count = static_cast<int>(torch::cuda::device_count());
  require<UnsupportedError>(device < count, "torch",
                            "CUDA device {} is asked for, and there are {}; start at most one process for each on a "
                            "machine",
                            device, count);
#else
  fail<UnsupportedError>("torch",
                         "libtorch {} was built without CUDA; unpack an official CUDA build of libtorch, add it to "
                         "CMAKE_PREFIX_PATH and build weft again",
                         TORCH_VERSION);
#endif
}

std::string line_of(const c10::Error& error) {
  const std::string_view text = error.what_without_backtrace();
  return printable(text.substr(0, text.find('\n')));
}

}  // namespace

ExecutorOptions open_device(const TorchOptions& options) {
  require<ConfigError>(options.dtype == DType::kF32 || options.dtype == DType::kF64, "torch",
                       "computes in f32 or f64, got {}", name_of(options.dtype));
  if (options.cuda) {
    require_cuda(options.cuda_device);
    c10::impl::VirtualGuardImpl(at::kCUDA).setDevice(
        at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(options.cuda_device)));
  }
  // In a fused step libtorch's own operators are small, and its threads would wait spinning where weft's have work.
  const bool by_own_kernels = options.fused && !options.cuda && options.dtype == DType::kF32;
  if (const int threads = by_own_kernels ? 1 : options.threads; threads > 0) {
    at::set_num_threads(threads);
    if (openblas_set_num_threads != nullptr) openblas_set_num_threads(threads);
  }
  return {.tensor = at::TensorOptions(options.dtype == DType::kF64 ? at::kDouble : at::kFloat)
                        .device(options.cuda ? at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(options.cuda_device))
                                             : at::Device(at::kCPU)),
          .fused = options.fused,
          .bf16 = options.bf16 && options.dtype == DType::kF32,
          .recompute = options.recompute,
          .workers = std::make_shared<const Workers>(options.threads)};
}

std::string describe(const at::TensorOptions& tensors) {
  return fmt::format("libtorch {} on {}", TORCH_VERSION, tensors.device().is_cuda() ? "cuda" : "cpu");
}

void check_version(std::string_view caller) {
  require<UnsupportedError>(caller == WEFT_VERSION, "torch",
                            "libweft_torch is of weft {}, the program of weft {}; install both anew", WEFT_VERSION,
                            caller);
}

void rethrow_translated() {
  try {
    throw;
  } catch (const c10::OutOfMemoryError& error) {
    fail<MemoryError>("torch", "{}", line_of(error));
  } catch (const c10::Error& error) {
    const std::string text = line_of(error);
    const std::size_t memory = text.find("can't allocate memory");  // behind the name of a file of libtorch's
    if (memory != std::string::npos) fail<MemoryError>("torch", "{}", text.substr(memory));
    fail<weft::Error>("torch", "{}", text);
  }
}

}  // namespace weft::torch_engine
