#include <algorithm>
#include <memory>
#include <numbers>
#include <optional>

#include "core/format.h"
#include "kernel/attention_tiles.h"
#include "kernel/empty_kernel.h"
#include "kernel/onednn.h"
#include "kernel/scratch.h"
#include "ops/window_attention/window_attention.h"
#include "ops/window_attention/window_tiles.h"

namespace weft {
namespace {

// Windows of more tokens go tile by tile over blocks of packed keys; smaller ones, whose matrices stay in the
// second-level cache, in groups.
constexpr std::int64_t kSmallWindow = 512;

// What both kernels share: where tokens are, and the bias.
class WindowKernel : public Kernel {
 public:
  WindowKernel(const WindowAttention& attributes, const KernelRequest& request)
      : a_(attributes),
        batch_(request.in[0].shape[0]),
        channels_(request.in[0].shape[2]),
        head_channels_(channels_ / a_.heads),
        tokens_(a_.window_tokens()),
        threads_(static_cast<std::size_t>(request.threads)),
        has_bias_(request.in.size() == 4) {
    if (const Tensor* const bias = has_bias_ ? request.constants[3] : nullptr) {
      // Windows of other extents may have as many entries.
      constant_table_ = request.packs->get(*bias, fmt::format("window_attention {}", table_row()), [&] {
        Tensor table(DType::kF32, table_shape());
        fill_table(bias->data<float>().data(), table.mutable_data<float>().data());
        return table;
      });
    }
    if (!has_bias_) constant_table_ = Tensor::zeros({DType::kF32, table_shape()});
  }

  bool reads_bf16(int i) const override { return i < 3; }
  void give_bf16(int i) override { is_bf16_[static_cast<std::size_t>(i)] = true; }
  bool encode_output(DType encoding) override {
    if (encoding == DType::kBF16) is_bf16_[3] = true;
    return encoding == DType::kBF16;
  }

 protected:
  // To the bias a column is a row: long runs of neighbouring keys.
  bool is_column() const { return a_.window_w == 1; }
  std::int64_t table_row() const { return 2 * std::int64_t{is_column() ? a_.window_h : a_.window_w} - 1; }

  // The table of the bias (WindowBias): for each head, or one row of zeros for all.
  std::size_t table_elements() const {
    const std::int64_t entries = has_bias_ ? a_.heads * a_.bias_entries() : table_row();
    return static_cast<std::size_t>(entries) + kBiasSlack;
  }
  Shape table_shape() const { return {static_cast<std::int64_t>(table_elements())}; }
  bool has_to_make_table() const { return constant_table_.elements() == 0; }
  // Of one that is not known beforehand.
  std::size_t table_bytes() const { return has_to_make_table() ? whole_lines(table_elements() * sizeof(float)) : 0; }
  // At the beginning of the scratch when it is made for a run.
  const float* table(const KernelArgs& args) const {
    return has_to_make_table() ? reinterpret_cast<const float*>(args.scratch) : constant_table_.data<float>().data();
  }
  void make_table(const KernelArgs& args) const {
    if (has_to_make_table()) fill_table(args.input(3), reinterpret_cast<float*>(args.scratch));
  }

  // Windows are counted in one picture, row by row.
  WindowBias bias(const KernelArgs& args, std::int64_t window, std::int64_t head) const {
    return {.table = table(args) + (has_bias_ ? head * a_.bias_entries() : 0),
            .row_step = has_bias_ ? table_row() : 0,
            .window_h = is_column() ? 1 : a_.window_h,
            .window_w = is_column() ? a_.window_h : a_.window_w,
            .rows_before = is_column() ? 1 : a_.rows_before(window),
            .columns_before = is_column() ? a_.rows_before(window) : a_.columns_before(window)};
  }
  bool adds_to_scores() const { return has_bias_ || a_.shift_h > 0 || a_.shift_w > 0; }

  bool is_bf16(std::size_t i) const { return is_bf16_[i]; }  // q, k, v, y

  WindowAttention a_;
  std::int64_t batch_, channels_, head_channels_, tokens_;
  std::size_t threads_;

 private:
  // Each row turned around, so that it goes along with the keys, and in powers of two.
  void fill_table(const float* bias, float* to) const {
    const std::int64_t row = table_row();
    const std::int64_t entries = a_.heads * a_.bias_entries();
    for (std::int64_t i = 0; i < entries; ++i) {
      to[i] = bias[i / row * row + row - 1 - i % row] * std::numbers::log2e_v<float>;
    }
    std::fill_n(to + entries, kBiasSlack, 0.0F);
  }

  bool has_bias_;
  std::array<bool, 4> is_bf16_{};
  Tensor constant_table_;  // empty: made for each run
};

// How many heads, and windows side by side, are worked on at once.
struct Grouping {
  std::int64_t heads = 1;
  std::int64_t windows = 1;

  // Runs of memory of some 512 bytes, of which a hardware prefetcher knows what to make; but not more than fits the
  // second-level cache, nor so much that threads have nothing to do.
  Grouping(const WindowAttention& a, std::int64_t batch, std::int64_t head_channels, int threads) {
    constexpr std::int64_t kRun = 128;
    constexpr std::int64_t kElements = 64 * 1024;
    const std::int64_t across = a.width / a.window_w;
    const std::int64_t most = std::max<std::int64_t>(kElements / (3 * a.window_tokens() * head_channels), 1);
    heads = std::clamp<std::int64_t>(kRun / head_channels, 1, std::min<std::int64_t>(a.heads, most));
    const std::int64_t run = a.window_w * head_channels * heads;
    if (heads == a.heads) windows = std::clamp<std::int64_t>(kRun / run, 1, std::min(across, most / heads));
    while (batch * tasks(a) < std::int64_t{4} * threads && heads * windows > 1) {
      (windows > 1 ? windows : heads) /= 2;
    }
  }
  std::int64_t head_groups(const WindowAttention& a) const { return (a.heads + heads - 1) / heads; }
  std::int64_t column_groups(const WindowAttention& a) const { return (a.width / a.window_w + windows - 1) / windows; }
  // In one picture.
  std::int64_t tasks(const WindowAttention& a) const {
    return head_groups(a) * column_groups(a) * (a.height / a.window_h);
  }
};

class SmallWindowKernel final : public WindowKernel {
 public:
  SmallWindowKernel(const WindowAttention& attributes, const KernelRequest& request)
      : WindowKernel(attributes, request),
        factor_(static_cast<float>(attributes.factor(head_channels_) * std::numbers::log2e)),
        grouping_(attributes, batch_, head_channels_, request.threads) {
    const auto parts = static_cast<std::size_t>(grouping_.heads * grouping_.windows);
    const std::int64_t offsets = a_.window_h + grouping_.windows * a_.window_w;
    offsets_at_ = attend_scratch_bytes(tokens_, head_channels_, grouping_.heads * grouping_.windows);
    biases_at_ = offsets_at_ + whole_lines(static_cast<std::size_t>(offsets) * sizeof(std::int64_t));
    slot_bytes_ = biases_at_ + whole_lines(parts * sizeof(WindowBias));
  }

  std::string_view name() const override { return "hwy:window_attention"; }
  std::size_t scratch_bytes() const override { return table_bytes() + slot_bytes_ * threads_; }

  void run(const KernelArgs& args) const noexcept override {
    make_table(args);
    // Work of some microseconds at once.
    constexpr std::int64_t kScores = 8192;
    const std::int64_t scores = tokens_ * tokens_ * grouping_.heads * grouping_.windows;
    args.workers.parallel_for(batch_ * grouping_.tasks(a_), std::max<std::int64_t>(kScores / scores, 1),
                              [&](std::int64_t begin, std::int64_t end) {
                                for (std::int64_t task = begin; task < end; ++task) run_group(args, task);
                              });
  }

 private:
  void run_group(const KernelArgs& args, std::int64_t task) const {
    std::byte* const slot = args.scratch + table_bytes() + slot_bytes_ * static_cast<std::size_t>(args.workers.index());
    const std::int64_t first_head = task % grouping_.head_groups(a_) * grouping_.heads;
    task /= grouping_.head_groups(a_);
    const std::int64_t first_window = task % grouping_.column_groups(a_) * grouping_.windows;  // in its row
    task /= grouping_.column_groups(a_);
    const std::int64_t across = a_.width / a_.window_w;
    const std::int64_t down = a_.height / a_.window_h;
    const std::int64_t window = task % down * across + first_window;
    const std::int64_t heads = std::min(grouping_.heads, a_.heads - first_head);
    const std::int64_t windows = std::min(grouping_.windows, across - first_window);

    auto* const offsets = reinterpret_cast<std::int64_t*>(slot + offsets_at_);
    const std::span rows(offsets, static_cast<std::size_t>(a_.window_h));
    const std::span columns(offsets + a_.window_h, static_cast<std::size_t>(windows * a_.window_w));
    const std::int64_t picture = task / down * a_.height * a_.width;
    std::int64_t y = task % down * a_.window_h + a_.shift_h;
    for (std::int64_t& row : rows) row = (picture + y++ % a_.height * a_.width) * channels_;
    std::int64_t x = first_window * a_.window_w + a_.shift_w;
    for (std::int64_t& column : columns) column = x++ % a_.width * channels_ + first_head * head_channels_;
    auto* const biases = reinterpret_cast<WindowBias*>(slot + biases_at_);
    const std::int64_t parts = windows * heads;
    for (std::int64_t i = 0; i < parts; ++i) biases[i] = bias(args, window + i / heads, first_head + i % heads);

    const WindowGroup group{
        .rows = rows, .columns = columns, .window_w = a_.window_w, .heads = heads, .channels = head_channels_};
    attend_windows(group, {args.in[0], is_bf16(0)}, {args.in[1], is_bf16(1)}, {args.in[2], is_bf16(2)},
                   {args.out[0], is_bf16(3)}, factor_, std::span(biases, static_cast<std::size_t>(parts)), slot);
  }

  float factor_;  // of the scores, times log2 e
  Grouping grouping_;
  // Within a slot, the scratch of one thread, behind that of attend_windows.
  std::size_t offsets_at_, biases_at_, slot_bytes_;
};

class LargeWindowKernel final : public WindowKernel {
 public:
  LargeWindowKernel(const WindowAttention& attributes, const KernelRequest& request)
      : WindowKernel(attributes, request),
        tiles_({.heads = pieces(),
                .queries = tokens_,
                .keys = tokens_,
                .channels = head_channels_,
                .row_step = head_channels_,
                .factor = attributes.factor(head_channels_),
                .biased = adds_to_scores(),
                .threads = request.threads,
                .precision = request.precision}) {
    const auto rows = static_cast<std::size_t>(std::max(tiles_.tile_rows(), tiles_.block_keys()));
    offsets_at_ = tiles_.slot_bytes();
    rows_at_ = offsets_at_ + whole_lines(rows * sizeof(std::int64_t));
    slot_bytes_ = rows_at_ + whole_lines(rows * static_cast<std::size_t>(head_channels_) * sizeof(float));
  }

  std::string_view name() const override {
    return tiles_.is_bf16() ? "onednn:window_attention_bf16" : "onednn:window_attention";
  }
  std::size_t scratch_bytes() const override { return slots_at() + slot_bytes_ * threads_; }

  void run(const KernelArgs& args) const noexcept override {
    make_table(args);
    const std::int64_t packings = tiles_.blocks() * 2;
    args.workers.parallel_for(pieces() * packings, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) pack(args, i / packings, i % packings / 2, i % 2 == 0);
    });
    args.workers.parallel_for(pieces() * tiles_.tiles(), 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) run_tile(args, i / tiles_.tiles(), i % tiles_.tiles());
    });
  }

 private:
  // Heads of windows, counted over all of the batch.
  std::int64_t pieces() const { return batch_ * a_.windows() * a_.heads; }

  // The offsets of so many tokens of a window's head from position `first` on.
  void find(std::int64_t piece, std::int64_t first, std::span<std::int64_t> offsets) const {
    const std::int64_t window = piece / a_.heads;
    const std::int64_t origin =
        window / a_.windows() * a_.height * a_.width * channels_ + piece % a_.heads * head_channels_;
    std::int64_t position = first;
    for (std::int64_t& offset : offsets) offset = origin + a_.token(window % a_.windows(), position++) * channels_;
  }
  TokenRows input_rows(const KernelArgs& args, std::size_t i, std::span<const std::int64_t> offsets) const {
    return {.base = args.in[i], .is_bf16 = is_bf16(i), .offsets = offsets, .channels = head_channels_};
  }
  TokenRows output_rows(const KernelArgs& args, std::span<const std::int64_t> offsets) const {
    return {.base = args.out[0], .is_bf16 = is_bf16(3), .offsets = offsets, .channels = head_channels_};
  }

  // After the table the packed keys and values of all pieces, then a slot for each thread.
  std::size_t slots_at() const { return table_bytes() + tiles_.packed_bytes() * static_cast<std::size_t>(pieces()); }
  std::byte* packed(const KernelArgs& args, std::int64_t piece) const {
    return args.scratch + table_bytes() + tiles_.packed_bytes() * static_cast<std::size_t>(piece);
  }
  std::byte* slot(const KernelArgs& args) const {
    return args.scratch + slots_at() + slot_bytes_ * static_cast<std::size_t>(args.workers.index());
  }
  std::span<std::int64_t> offsets(std::byte* slot, std::int64_t rows) const {
    return {reinterpret_cast<std::int64_t*>(slot + offsets_at_), static_cast<std::size_t>(rows)};
  }

  void pack(const KernelArgs& args, std::int64_t piece, std::int64_t block, bool keys) const {
    std::byte* const mine = slot(args);
    auto* const rows = reinterpret_cast<float*>(mine + rows_at_);
    const std::int64_t first = block * tiles_.block_keys();
    const auto places = offsets(mine, std::min(tiles_.block_keys(), tokens_ - first));
    find(piece, first, places);
    gather_rows(input_rows(args, keys ? 1 : 2, places), rows, head_channels_);
    if (keys) {
      tiles_.pack_keys(rows, block, packed(args, piece));
    } else {
      tiles_.pack_values(rows, block, packed(args, piece));
    }
  }

  void run_tile(const KernelArgs& args, std::int64_t piece, std::int64_t tile) const {
    std::byte* const mine = slot(args);
    auto* const rows = reinterpret_cast<float*>(mine + rows_at_);
    const std::int64_t first = tile * tiles_.tile_rows();
    const auto places = offsets(mine, tiles_.rows(tile));
    find(piece, first, places);
    gather_rows(input_rows(args, 0, places), rows, head_channels_);
    const WindowBias added = bias(args, piece / a_.heads % a_.windows(), piece % a_.heads);
    tiles_.run(tile, rows, head_channels_, rows, head_channels_, packed(args, piece), mine,
               [&](std::int64_t first_key, std::int64_t keys, float* scores) {
                 fill_bias(added, first, tiles_.rows(tile), first_key, keys, scores, keys);
               });
    scatter_rows(rows, head_channels_, output_rows(args, places));
  }

  AttentionTiles tiles_;
  std::size_t offsets_at_, rows_at_, slot_bytes_;
};

}  // namespace

std::unique_ptr<Kernel> make_kernel(const WindowAttention& attributes, const KernelRequest& request) {
  if (request.out[0].shape.elements() == 0) return std::make_unique<EmptyKernel>("empty:window_attention");
  if (attributes.window_tokens() <= kSmallWindow) return std::make_unique<SmallWindowKernel>(attributes, request);
  return std::make_unique<LargeWindowKernel>(attributes, request);
}

}  // namespace weft
