// Finds libweft_torch, by the run path of the program that this is linked to.
#include <dlfcn.h>

#include "core/format.h"
#include "torch/engine.h"
#include "torch/trainer.h"

namespace weft {
namespace {

// Whether names that libtorch brings itself (its own oneDNN, its own BLAS) are looked up there first. Not always, as
// that breaks programs with a memory allocator of their own.
#if defined(WEFT_TORCH_IS_SELF_CONTAINED) && !defined(__SANITIZE_ADDRESS__)
constexpr int kScope = RTLD_LOCAL | RTLD_DEEPBIND;
#else
constexpr int kScope = RTLD_LOCAL;
#endif

void* open_component() {
  // Never closed: libtorch has threads and thread-local data that outlive any engine.
  void* const library = dlopen("libweft_torch.so", RTLD_NOW | kScope);
  const char* const error = library ? "" : dlerror();
  require<UnsupportedError>(library != nullptr, "torch",
                            "cannot load weft's libtorch component: {}; install libtorch-dev and libopenblas-dev, or "
                            "build weft again",
                            printable(error ? error : "unknown error"));
  return library;
}

// A function that the component exports.
template <class F>
F* find(const char* name) {
  static void* const library = open_component();
  void* const function = dlsym(library, name);
  require<UnsupportedError>(function != nullptr, "torch", "weft's libtorch component has no {}; build weft again",
                            name);
  return reinterpret_cast<F*>(function);
}

}  // namespace

std::shared_ptr<TorchEngine> load_torch_engine(const TorchOptions& options) {
  static auto* const make = find<decltype(weft_make_torch_engine)>("weft_make_torch_engine");
  return std::shared_ptr<TorchEngine>(make(WEFT_VERSION, options));
}

std::shared_ptr<Trainer> load_torch_trainer(const TrainerOptions& options, const TrainingStart& start) {
  static auto* const make = find<decltype(weft_make_torch_trainer)>("weft_make_torch_trainer");
  return std::shared_ptr<Trainer>(make(WEFT_VERSION, options, start));
}

}  // namespace weft
