#include <algorithm>
#include <cstring>
#include <limits>

#include "core/format.h"
#include "core/half.h"
#include "ops/embedding/embedding.h"

namespace weft {
namespace {

template <class T>
void widen(const T* from, std::size_t count, float* to) {
  std::transform(from, from + count, to, [](T x) { return to_float(x); });
}

class EmbeddingKernel final : public RowKernel {
 public:
  EmbeddingKernel(std::int64_t rows, const Shape& table, DType stored)
      : rows_(rows), entries_(table[0]), channels_(table[1]), stored_(stored) {}

  std::string_view name() const override { return "plain:embedding"; }
  std::int64_t rows() const override { return channels_ > 0 ? rows_ : 0; }
  bool reads_by_rows(int i) const override { return i == 0; }
  void run_rows(const RowArgs& args) const noexcept override {
    const auto channels = static_cast<std::size_t>(channels_);
    const auto* const tokens = args.input<std::int64_t>(0);
    float* y = args.output();
    for (std::int64_t i = 0; i < args.count(); ++i, y += channels) {
      if (tokens[i] >= 0 && tokens[i] < entries_) {
        copy_row(args, static_cast<std::size_t>(tokens[i]) * channels, y);
      } else {
        std::fill_n(y, channels, std::numeric_limits<float>::quiet_NaN());
      }
    }
  }

 private:
  void copy_row(const RowArgs& args, std::size_t first, float* y) const {
    const auto channels = static_cast<std::size_t>(channels_);
    if (stored_ == DType::kBF16) {
      widen(args.input<BFloat16>(1) + first, channels, y);
    } else if (stored_ == DType::kF16) {
      widen(args.input<Half>(1) + first, channels, y);
    } else {
      std::memcpy(y, args.input(1) + first, channels * sizeof(float));
    }
  }

  std::int64_t rows_, entries_, channels_;
  DType stored_;
};

}  // namespace

std::unique_ptr<Kernel> make_kernel(const Embedding&, const KernelRequest& request) {
  const DType stored = request.constants[1] ? request.constants[1]->dtype() : DType::kF32;
  const bool known = stored == DType::kF32 || stored == DType::kBF16 || stored == DType::kF16;
  require<UnsupportedError>(known, "embedding", "a table of f32, bf16 or f16 expected, got {}", name_of(stored));
  return std::make_unique<EmbeddingKernel>(request.in[0].shape.elements(), request.in[1].shape, stored);
}

}  // namespace weft
