#include "kernel/attention_tiles.h"
#include "kernel/empty_kernel.h"
#include "ops/attention/attention.h"

namespace weft {
namespace {

class AttentionKernel final : public Kernel {
 public:
  AttentionKernel(const Attention& attributes, const KernelRequest& request)
      : batch_(request.in[0].shape[0]),
        queries_(request.in[0].shape[1]),
        keys_(request.in[1].shape[1]),
        channels_(request.in[0].shape[2]),
        heads_(attributes.heads),
        slots_(static_cast<std::size_t>(request.threads)),
        tiles_({.heads = batch_ * heads_,
                .queries = queries_,
                .keys = keys_,
                .channels = head_channels(),
                .row_step = channels_,
                .factor = attributes.factor(head_channels()),
                .threads = request.threads,
                .precision = request.precision}) {}

  std::string_view name() const override { return tiles_.is_bf16() ? "onednn:attention_bf16" : "onednn:attention"; }

  std::size_t scratch_bytes() const override {
    return tiles_.packed_bytes() * static_cast<std::size_t>(batch_ * heads_) + tiles_.slot_bytes() * slots_;
  }

  void run(const KernelArgs& args) const noexcept override {
    const std::int64_t packings = tiles_.blocks() * 2;
    args.workers.parallel_for(batch_ * heads_ * packings, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) pack(args, i / packings, i % packings / 2, i % 2 == 0);
    });
    args.workers.parallel_for(batch_ * heads_ * tiles_.tiles(), 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) run_tile(args, i / tiles_.tiles(), i % tiles_.tiles());
    });
  }

 private:
  std::int64_t head_channels() const { return channels_ / heads_; }
  // Where head `head`, counted over the whole batch, has its first channel in tensors of `tokens` tokens a picture.
  std::int64_t first(std::int64_t head, std::int64_t tokens) const {
    return head / heads_ * tokens * channels_ + head % heads_ * head_channels();
  }
  std::byte* packed(const KernelArgs& args, std::int64_t head) const {
    return args.scratch + tiles_.packed_bytes() * static_cast<std::size_t>(head);
  }

  void pack(const KernelArgs& args, std::int64_t head, std::int64_t block, bool keys) const {
    const std::int64_t from = first(head, keys_) + block * tiles_.block_keys() * channels_;
    if (keys) {
      tiles_.pack_keys(args.input(1) + from, block, packed(args, head));
    } else {
      tiles_.pack_values(args.input(2) + from, block, packed(args, head));
    }
  }

  void run_tile(const KernelArgs& args, std::int64_t head, std::int64_t tile) const {
    // Slots follow the packed keys and values of all heads.
    std::byte* const slot =
        packed(args, batch_ * heads_) + tiles_.slot_bytes() * static_cast<std::size_t>(args.workers.index());
    const std::int64_t from = first(head, queries_) + tile * tiles_.tile_rows() * channels_;
    tiles_.run(tile, args.input(0) + from, channels_, args.output() + from, channels_, packed(args, head), slot,
               [](std::int64_t, std::int64_t, float*) {});
  }

  std::int64_t batch_, queries_, keys_, channels_, heads_;
  std::size_t slots_;
  AttentionTiles tiles_;
};

}  // namespace

std::unique_ptr<Kernel> make_kernel(const Attention& attributes, const KernelRequest& request) {
  if (request.out[0].shape.elements() == 0) return std::make_unique<EmptyKernel>("empty:attention");
  return std::make_unique<AttentionKernel>(attributes, request);
}

}  // namespace weft
