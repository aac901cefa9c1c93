#include "core/format.h"
#include "kernel/onednn.h"
#include "ops/linear/linear.h"

namespace weft {
namespace {

class LinearKernel final : public Kernel {
 public:
  LinearKernel(const KernelRequest& request, std::int64_t rows)
      : rows_(rows),
        k_(request.in[1].shape[1]),
        n_(request.in[1].shape[0]),
        slots_(static_cast<std::size_t>(request.threads)),
        product_(*request.constants[1], request.in.size() == 3 ? request.constants[2] : nullptr, rows, request.threads,
                 *request.packs) {}

  std::string_view name() const override { return "onednn:linear"; }
  std::size_t scratch_bytes() const override { return product_.scratch_bytes() * slots_; }

  void run(const KernelArgs& args) const noexcept override {
    args.workers.parallel_for(rows_, product_.tile_rows(), [&](std::int64_t begin, std::int64_t end) {
      std::byte* scratch = args.scratch + product_.scratch_bytes() * static_cast<std::size_t>(args.workers.index());
      product_.run(args.input(0) + begin * k_, args.output() + begin * n_, end - begin, scratch);
    });
  }

 private:
  std::int64_t rows_, k_, n_;
  std::size_t slots_;
  onednn::TiledLinear product_;
};

// Nothing to multiply: no rows, or no columns to sum over.
class EmptyLinearKernel final : public Kernel {
 public:
  explicit EmptyLinearKernel(const KernelRequest& request)
      : columns_(request.in[1].shape[0]),
        elements_(request.out[0].shape.elements()),
        with_bias_(request.in.size() == 3) {}
  std::string_view name() const override { return "empty:linear"; }
  void run(const KernelArgs& args) const noexcept override {
    for (std::int64_t i = 0; i < elements_; ++i) args.output()[i] = with_bias_ ? args.input(2)[i % columns_] : 0.0F;
  }

 private:
  std::int64_t columns_, elements_;
  bool with_bias_;
};

}  // namespace

std::unique_ptr<Kernel> make_kernel(const Linear&, const KernelRequest& request) {
  const bool constant = request.constants[1] && (request.in.size() == 2 || request.constants[2]);
  require<UnsupportedError>(constant, "linear", "the CPU engine wants weight and bias to be constants");
  if (request.in[0].shape.elements() == 0 || request.out[0].shape.elements() == 0) {
    return std::make_unique<EmptyLinearKernel>(request);
  }
  return std::make_unique<LinearKernel>(request, request.in[0].shape.elements() / request.in[1].shape[1]);
}

}  // namespace weft
