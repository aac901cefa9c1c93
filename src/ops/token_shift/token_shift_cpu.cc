#include <algorithm>
#include <cstring>

#include "core/half.h"
#include "ops/token_shift/token_shift.h"

namespace weft {
namespace {

class TokenShiftKernel final : public RowKernel {
 public:
  explicit TokenShiftKernel(const Shape& x) : rows_(row_count(x)), tokens_(x[1]), channels_(x[2]) {}

  std::string_view name() const override { return "copy:token_shift"; }
  std::int64_t rows() const override { return rows_; }
  bool reads_by_rows(int) const override { return false; }
  bool reads_bf16(int i) const override { return i == 0; }
  void give_bf16(int) override { is_bf16_ = true; }
  bool moves() const override { return true; }

  void run_rows(const RowArgs& args) const noexcept override {
    const auto row = static_cast<std::size_t>(channels_) * (is_bf16_ ? sizeof(BFloat16) : sizeof(float));
    const auto* const x = args.input<std::byte>(0);
    auto* to = args.output<std::byte>();
    for (std::int64_t r = args.begin; r < args.end;) {
      const std::int64_t token = r % tokens_;
      std::int64_t count = 1;
      if (token == 0) {
        put_previous(args.input(1) + r / tokens_ * channels_, to);
      } else {
        count = std::min(args.end - r, tokens_ - token);
        std::memcpy(to, x + static_cast<std::size_t>(r - 1) * row, static_cast<std::size_t>(count) * row);
      }
      to += static_cast<std::size_t>(count) * row;
      r += count;
    }
  }

 private:
  void put_previous(const float* from, std::byte* to) const {
    if (is_bf16_) {
      std::transform(from, from + channels_, reinterpret_cast<BFloat16*>(to), to_bfloat16);
    } else {
      std::copy_n(from, channels_, reinterpret_cast<float*>(to));
    }
  }

  std::int64_t rows_, tokens_, channels_;
  bool is_bf16_ = false;
};

}  // namespace

std::unique_ptr<Kernel> make_kernel(const TokenShift&, const KernelRequest& request) {
  return std::make_unique<TokenShiftKernel>(request.in[0].shape);
}

}  // namespace weft
