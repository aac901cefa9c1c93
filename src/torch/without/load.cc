// In place of the loader where libtorch is missing.
#include "core/format.h"
#include "torch/engine.h"
#include "torch/trainer.h"

namespace weft {
namespace {

[[noreturn]] void fail_missing() {
  fail<UnsupportedError>("torch",
                         "this build of weft has no libtorch; install libtorch-dev and libopenblas-dev, or unpack an "
                         "official libtorch and add it to CMAKE_PREFIX_PATH, and build it again");
}

}  // namespace

std::shared_ptr<TorchEngine> load_torch_engine(const TorchOptions&) { fail_missing(); }
std::shared_ptr<Trainer> load_torch_trainer(const TrainerOptions&, const TrainingStart&) { fail_missing(); }

}  // namespace weft
