// Finds libweft_torch, by the run path of the program that this is linked to.
#include <dlfcn.h>

#include "core/format.h"
#include "torch/engine.h"

namespace weft {
namespace {

// Whether names that libtorch brings itself (its own oneDNN, its own BLAS) are looked up there first. Not always, as
// that breaks programs with a memory allocator of their own.
#if defined(WEFT_TORCH_IS_SELF_CONTAINED) && !defined(__SANITIZE_ADDRESS__)
constexpr int kScope = RTLD_LOCAL | RTLD_DEEPBIND;
#else
constexpr int kScope = RTLD_LOCAL;
#endif

using Make = decltype(&weft_make_torch_engine);

Make load_maker() {
  const auto last_error = [] {
    const char* const error = dlerror();
    return printable(error ? error : "unknown error");
  };
  // Never closed: libtorch has threads and thread-local data that outlive any engine.
  void* const library = dlopen("libweft_torch.so", RTLD_NOW | kScope);
  require<UnsupportedError>(library != nullptr, "torch",
                            "cannot load weft's libtorch component: {}; install libtorch-dev and libopenblas-dev, or "
                            "build weft again",
                            library ? "" : last_error());
  void* const maker = dlsym(library, "weft_make_torch_engine");
  require<UnsupportedError>(maker != nullptr, "torch", "cannot use weft's libtorch component: {}; build weft again",
                            maker ? "" : last_error());
  return reinterpret_cast<Make>(maker);
}

}  // namespace

std::shared_ptr<TorchEngine> load_torch_engine(const TorchOptions& options) {
  static const Make make = load_maker();
  return std::shared_ptr<TorchEngine>(make(WEFT_VERSION, options));
}

}  // namespace weft
