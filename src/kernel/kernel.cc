#include "kernel/kernel.h"

#include <algorithm>
#include <array>

#include "core/format.h"

namespace weft {

Tensor PackCache::get(const Tensor& source, std::string_view layout, FunctionRef<Tensor()> pack) {
  const std::scoped_lock lock(mutex_);
  const auto [entry, is_new] = entries_.try_emplace({source.raw(), std::string(layout)});
  if (is_new) {
    try {
      if (before_packing_) before_packing_(static_cast<std::int64_t>(source.bytes()));
      entry->second = {source, pack()};
    } catch (...) {
      entries_.erase(entry);
      throw;
    }
  }
  return entry->second.packed;
}

void PartedKernel::run(const KernelArgs& args) const noexcept {
  args.workers.parallel_for(parts(), 1, [&](std::int64_t part, std::int64_t) {
    std::byte* const scratch = args.scratch + part_scratch_bytes() * static_cast<std::size_t>(part);
    run_part({.in = args.in, .out = args.out, .scratch = scratch, .workers = args.workers}, part);
  });
}

std::int64_t choose_tile_rows(std::int64_t rows, std::int64_t largest, int threads) {
  std::int64_t tiles = std::max<std::int64_t>((rows + largest - 1) / largest, 1);
  // With few tiles, a thread that has one more than the others would make them wait.
  if (tiles < std::int64_t{8} * threads) tiles = (tiles + threads - 1) / threads * threads;
  return std::max<std::int64_t>((rows + tiles - 1) / tiles, 1);
}

void RowKernel::prepare_to_run_alone(const KernelRequest& request) {
  constexpr std::size_t kTileBytes = 64 * 1024;
  constexpr std::int64_t kHighTile = 128;
  threads_ = request.threads;
  in_row_bytes_.clear();
  out_row_bytes_.clear();
  if (rows() == 0) return;
  const auto row_bytes = [&](const TensorType& type) { return type.bytes() / static_cast<std::size_t>(rows()); };
  std::size_t widest = 1;
  for (std::size_t i = 0; i < request.in.size(); ++i) {
    require<UnsupportedError>(encoding(static_cast<int>(i)) == DType::kF32, name(), "runs in f32 only on its own");
    in_row_bytes_.push_back(reads_by_rows(static_cast<int>(i)) ? row_bytes(request.in[i]) : 0);
  }
  for (const TensorType& type : request.out) {
    out_row_bytes_.push_back(row_bytes(type));
    widest = std::max(widest, out_row_bytes_.back());
  }
  const auto low = static_cast<std::int64_t>(kTileBytes / widest);
  tile_rows_ = choose_tile_rows(rows(), wants_high_tiles() ? kHighTile : std::max<std::int64_t>(low, 1), threads_);
  set_tile_rows(tile_rows_);
}

void RowKernel::run(const KernelArgs& args) const noexcept {
  args.workers.parallel_for(rows(), tile_rows_, [&](std::int64_t begin, std::int64_t end) {
    std::array<const std::byte*, kMaxOperands> in{};
    std::array<std::byte*, kMaxOperands> out{};
    const auto row = static_cast<std::size_t>(begin);
    for (std::size_t i = 0; i < args.in.size(); ++i) in[i] = args.in[i] + row * in_row_bytes_[i];
    for (std::size_t i = 0; i < args.out.size(); ++i) out[i] = args.out[i] + row * out_row_bytes_[i];
    std::byte* const scratch = args.scratch + row_scratch_bytes() * static_cast<std::size_t>(args.workers.index());
    run_rows({.in = std::span(in).first(args.in.size()),
              .out = std::span(out).first(args.out.size()),
              .scratch = scratch,
              .begin = begin,
              .end = end});
  });
}

}  // namespace weft
