// The CPU kernel: the parallel scan. Its sweeps are in bi_wkv_scan-inl.h, their plan in bi_wkv_scan.h.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/bi_wkv/bi_wkv_cpu.cc"
#include "hwy/foreach_target.h"
// Highway wants foreach_target first.
#include <utility>

#include "kernel/scratch.h"
#include "ops/bi_wkv/bi_wkv_scan-inl.h"

#if HWY_ONCE

namespace weft {
namespace bi_wkv_scan {
namespace {

HWY_EXPORT(prepare_column);
HWY_EXPORT(aggregate_tile);
HWY_EXPORT(combine_column);
HWY_EXPORT(emit_tile);
HWY_EXPORT(scan_column);
HWY_EXPORT(log_column);

bool is_aligned(const void* data) { return reinterpret_cast<std::uintptr_t>(data) % 64 == 0; }

// Elements that a thread takes at once: some ten microseconds' worth.
constexpr std::int64_t kGrain = 8 * 1024;

class BiWkvKernel final : public Kernel {
 public:
  BiWkvKernel(Wkv form, const Shape& shape, int threads)
      : form_(form),
        batch_(shape[0]),
        channels_(shape[2]),
        columns_(batch_ * ((channels_ + kBlock - 1) / kBlock)),
        threads_(threads),
        tiling_(shape[1], form),
        elements_(shape.elements()) {
    // Left to itself, each call that the first run prepares would look for the instruction set anew.
    if (!hwy::GetChosenTarget().IsInitialized()) hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }

  std::string_view name() const override { return "hwy:bi_wkv"; }
  std::size_t scratch_bytes() const override {
    return record_bytes() + coefficient_bytes() + key_bytes() + tile_fit_bytes() + fit_bytes() +
           static_cast<std::size_t>(threads_) * buffer_bytes();
  }
  bool may_overwrite(int i) const override {
    return (i == 0 && k_is_bf16_ == y_is_bf16_) || (i == 1 && v_is_bf16_ == y_is_bf16_);
  }
  bool reads_bf16(int i) const override { return i == 0 || i == 1; }
  void give_bf16(int i) override { (i == 0 ? k_is_bf16_ : v_is_bf16_) = true; }
  bool encode_output(DType encoding) override { return y_is_bf16_ = encoding == DType::kBF16; }

  void run(const KernelArgs& args) const noexcept override {
    if (columns_ == 0 || tiling_.count() == 0) return;
    std::byte* next = args.scratch;
    const auto take = [&](std::size_t bytes) { return std::exchange(next, next + bytes); };
    const Scan scan{.k = args.in[0],
                    .v = args.in[1],
                    .w = args.input(2),
                    .u = args.input(3),
                    .y = args.out[0],
                    .k_is_bf16 = k_is_bf16_,
                    .v_is_bf16 = v_is_bf16_,
                    .y_is_bf16 = y_is_bf16_,
                    .batch = batch_,
                    .channels = channels_,
                    .form = form_,
                    .tiling = tiling_,
                    .by_column = by_column(),
                    .past_cache = past_cache() && channels_ % kBlock == 0 && is_aligned(args.out[0]),
                    .records = reinterpret_cast<float*>(take(record_bytes())),
                    .coefficients = reinterpret_cast<Coefficients*>(take(coefficient_bytes())),
                    .first_key = reinterpret_cast<float*>(take(key_bytes())),
                    .tile_fits = reinterpret_cast<std::uint8_t*>(take(tile_fit_bytes())),
                    .fits = reinterpret_cast<std::uint8_t*>(take(fit_bytes()))};
    std::byte* buffers = next;
    const auto unit = [&](std::int64_t column) {
      std::byte* buffer = buffers + static_cast<std::size_t>(args.workers.index()) * buffer_bytes();
      return Unit{.scan = scan,
                  .entry = column / scan.blocks(),
                  .block = column % scan.blocks(),
                  .buffer = reinterpret_cast<float*>(buffer)};
    };
    const auto for_each_column = [&](std::int64_t tokens, auto body) {
      const std::int64_t grain = std::max<std::int64_t>(1, kGrain / (tokens * kBlock));
      args.workers.parallel_for(columns_, grain, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t column = begin; column < end; ++column) body(unit(column));
        if (scan.past_cache) hwy::FlushStream();
      });
    };
    // Blocks vary fastest: neighbours in memory are worked on one after the other.
    const auto for_each_tile = [&](auto body) {
      const std::int64_t per_entry = tiling_.count() * scan.blocks();
      const std::int64_t grain = std::max<std::int64_t>(1, kGrain / (tiling_.longest() * kBlock));
      args.workers.parallel_for(batch_ * per_entry, grain, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
          const std::int64_t entry = i / per_entry;
          body(unit(entry * scan.blocks() + i % scan.blocks()), i % per_entry / scan.blocks());
        }
        if (scan.past_cache) hwy::FlushStream();
      });
    };

    if (scan.by_column) return for_each_column(tiling_.tokens(), HWY_DYNAMIC_DISPATCH(scan_column));
    for_each_column(kTile, HWY_DYNAMIC_DISPATCH(prepare_column));
    for_each_tile(HWY_DYNAMIC_DISPATCH(aggregate_tile));
    for_each_column(2 * tiling_.count(), HWY_DYNAMIC_DISPATCH(combine_column));
    for_each_tile([&, emit = HWY_DYNAMIC_DISPATCH(emit_tile)](const Unit& u, std::int64_t tile) {
      if (scan.fits[u.column()]) emit(u, tile);
    });
    if (std::all_of(scan.fits, scan.fits + columns_, [](std::uint8_t fits) { return fits != 0; })) return;
    for_each_column(tiling_.tokens(), [&, log = HWY_DYNAMIC_DISPATCH(log_column)](const Unit& u) {
      if (!scan.fits[u.column()]) log(u);
    });
  }

 private:
  bool past_cache() const {
    const auto size = [](bool is_bf16) { return is_bf16 ? 2 : 4; };
    return elements_ * (size(k_is_bf16_) + size(v_is_bf16_) + size(y_is_bf16_)) > kLargestInCache;
  }
  bool by_column() const {
    return tiling_.count() == 1 || (tiling_.tokens() <= kLongestKept && columns_ >= 2 * threads_ && !past_cache());
  }
  std::size_t columns() const { return static_cast<std::size_t>(columns_); }
  std::size_t tiles() const { return static_cast<std::size_t>(tiling_.count()); }
  std::size_t record_bytes() const { return columns() * tiles() * kRows * kBlock * sizeof(float); }
  std::size_t coefficient_bytes() const { return columns() * sizeof(Coefficients); }
  std::size_t key_bytes() const { return columns() * kBlock * sizeof(float); }
  std::size_t tile_fit_bytes() const { return whole_lines(columns() * tiles()); }
  std::size_t fit_bytes() const { return whole_lines(columns()); }
  std::size_t buffer_bytes() const {
    return static_cast<std::size_t>(buffer_floats(tiling_, by_column())) * sizeof(float);
  }

  Wkv form_;
  std::int64_t batch_, channels_, columns_;
  int threads_;
  Tiling tiling_;
  std::int64_t elements_;
  bool k_is_bf16_ = false, v_is_bf16_ = false, y_is_bf16_ = false;
};

}  // namespace
}  // namespace bi_wkv_scan

std::unique_ptr<Kernel> make_kernel(const BiWkv& attributes, const KernelRequest& request) {
  return std::make_unique<bi_wkv_scan::BiWkvKernel>(attributes.wkv, request.in[0].shape, request.threads);
}

}  // namespace weft

#endif  // HWY_ONCE
