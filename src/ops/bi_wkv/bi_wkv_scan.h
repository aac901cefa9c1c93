// How the Bi-WKV scan cuts its work, independent of the instruction set.
//
// Channels go in blocks of 16 and tokens in tiles. Three sweeps:
//
//   1. aggregate   per tile, the sums of e^{k}·v and e^{k}, aged to its end (for tokens behind) and to its start
//   2. combine     from these, in f64, the carries: the same sums over all tokens before and behind each tile
//   3. emit        per tile, the backward sums into a buffer that stays in the cache, then the forward sums and y
//
// A sequence of one tile goes straight to the third. A longer one is scanned in one of two orders, of the same result:
//
//   by column      a thread takes a block through all sweeps. k and v are read once, and their exponentials taken once:
//                  sweep 1 leaves e^k and e^k·v where they stay in the second-level cache until sweep 3.
//   by tile        all threads take all blocks through one sweep after the other, reading k and v and taking the
//                  exponentials twice. Memory is read in its own order, a tile of all channels at a time.
//
// Nothing in a result depends on the number of threads.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "ops/bi_wkv/bi_wkv.h"

namespace weft::bi_wkv_scan {

/// Channels of a block: a cache line of f32.
constexpr std::int64_t kBlock = 16;
/// Tokens of a tile: short enough for the rounding of e^{−w} to stay harmless within one (each step multiplies by it)
/// and for its buffers to stay in the first-level cache, long enough for the carries not to count.
constexpr std::int64_t kTile = 64;
/// Rows from one that is worked on to the one that is fetched meanwhile.
constexpr std::int64_t kAhead = 24;
/// Up to here a sequence is one tile, which saves the first two sweeps.
constexpr std::int64_t kSingleTile = 256;
/// Up to here what sweep 1 keeps of a column, 128 bytes a token, fills at most half of a second-level cache of 1 MiB.
constexpr std::int64_t kLongestKept = 4096;
/// Bytes of k, v and y that a third-level cache (of 32 MiB) may hold. Beyond it y goes to memory past the caches, and
/// reading goes in memory's own order: by column, a line here and a line there, it would take several times as long.
constexpr std::int64_t kLargestInCache = 24 << 20;

/// Tokens cut into tiles. For Wkv::kReleasedKernel a tile is either made of whole runs or lies within one run.
class Tiling {
 public:
  Tiling(std::int64_t tokens, Wkv form) : tokens_(tokens) {
    run_ = form == Wkv::kReleasedKernel ? std::max<std::int64_t>(1, released_kernel_run(tokens)) : tokens;
    if (tokens <= kSingleTile) {
      length_ = tokens;
    } else if (run_ <= kTile) {
      length_ = kTile / run_ * run_;
    } else {
      const std::int64_t pieces = (run_ + kTile - 1) / kTile;
      length_ = (run_ + pieces - 1) / pieces;
      tiles_per_run_ = (run_ + length_ - 1) / length_;
    }
    if (tokens == 0) return;
    count_ = tiles_per_run_ == 0 ? (tokens + length_ - 1) / length_
                                 : tokens / run_ * tiles_per_run_ + (tokens % run_ + length_ - 1) / length_;
  }

  std::int64_t tokens() const { return tokens_; }
  std::int64_t run() const { return run_; }
  std::int64_t count() const { return count_; }
  std::int64_t longest() const { return length_; }
  /// Whether tiles lie within runs.
  bool splits_runs() const { return tiles_per_run_ > 0; }
  bool starts_run(std::int64_t tile) const { return !splits_runs() || tile % tiles_per_run_ == 0; }
  /// First token of a tile.
  std::int64_t begin(std::int64_t tile) const {
    return splits_runs() ? tile / tiles_per_run_ * run_ + tile % tiles_per_run_ * length_ : tile * length_;
  }
  std::int64_t end(std::int64_t tile) const { return tile + 1 < count_ ? begin(tile + 1) : tokens_; }

 private:
  std::int64_t tokens_, run_, length_ = 0, tiles_per_run_ = 0, count_ = 0;
};

/// Rows of the record that each tile has per block; a row is kBlock f32 (in the log-space path, kBlock f64 of which
/// there are three rows). First the tile's aggregates, then the carries into it.
enum Row : std::int64_t {
  kBefore = 0,  // forward sums, numerator and denominator; of the released kernel those over the runs before this one
  kBehind = 2,  // backward sums
  kRest = 4,    // released kernel: sums of e^{(t−i)·w}·e^{k_i}, i > s, of this run
  kRun = 6,     // released kernel: forward sums over this run
  kRows = 8
};

/// What the path in the range of f32 needs to know of a block's channels.
struct Coefficients {
  alignas(64) float decay[kBlock];   // e^{−w}
  alignas(64) float growth[kBlock];  // e^w; as `rest`, of the released kernel only
  alignas(64) float rest[kBlock];    // 1 − e^w
  alignas(64) float bonus[kBlock];   // e^u
  // The k − k_0 that are safe: not farther than `reach` from `middle`; `reach` is negative when none is.
  alignas(64) float middle[kBlock];
  alignas(64) float reach[kBlock];
};

/// Everything that one run of the scan works on.
struct Scan {
  const std::byte* k;  // f32, or bf16
  const std::byte* v;
  const float* w;
  const float* u;
  std::byte* y;
  bool k_is_bf16, v_is_bf16, y_is_bf16;
  std::int64_t batch, channels;
  Wkv form;
  const Tiling& tiling;
  bool by_column;
  bool past_cache;             // y goes to memory past the caches, which takes whole aligned lines
  float* records;              // [B,blocks,tiles,kRows,kBlock]
  Coefficients* coefficients;  // [B,blocks]; unused by column
  float* first_key;            // [B,blocks,kBlock]: k of token 0, which y may overwrite
  std::uint8_t* tile_fits;     // [B,blocks,tiles]: whether the tile stays in the range of f32
  std::uint8_t* fits;          // [B,blocks]

  std::int64_t blocks() const { return (channels + kBlock - 1) / kBlock; }
  float* record(std::int64_t column, std::int64_t tile) const {
    return records + (column * tiling.count() + tile) * kRows * kBlock;
  }
};

/// Floats of the buffer that every thread needs, all of it in rows of a block: for each token of a tile (scanned by
/// column, of the sequence) what is kept of k and v, for each token of a tile the backward sums, and k and v of
/// channels that do not fill a block.
inline std::int64_t buffer_floats(const Tiling& tiling, bool by_column) {
  return 2 * kBlock * ((by_column ? tiling.tokens() : tiling.longest()) + 2 * tiling.longest());
}

/// A block's columns of k, v and y over a range of tokens: float, or std::uint16_t for bf16. A block that the channels
/// do not fill, or of which one is in bf16 and another is not, is worked on in copies in the thread's buffer, in f32
/// and padded with zeros.
template <class T>
struct Rows {
  const T* k;
  const T* v;
  T* y;
  std::int64_t stride, tokens;
  // What is likely wanted after row t lies at soon + t·soon_stride from row 0.
  std::int64_t soon = 0, soon_stride = 0;

  const T* after(const T* column, std::int64_t t) const { return column + soon + t * soon_stride; }
};

/// What a thread works on at a time: a block of channels of one batch entry (a column), or a tile of it.
struct Unit {
  const Scan& scan;
  std::int64_t entry, block;
  float* buffer;  // buffer_floats()

  std::int64_t column() const { return entry * scan.blocks() + block; }
  std::int64_t channel() const { return block * kBlock; }
  std::int64_t width() const { return std::min(kBlock, scan.channels - channel()); }

  float* kept() const { return buffer; }
  float* late() const { return buffer + 2 * kBlock * (scan.by_column ? scan.tiling.tokens() : scan.tiling.longest()); }
  float* first_key() const { return scan.first_key + column() * kBlock; }
  Coefficients* coefficients() const { return scan.coefficients + column(); }
  /// Whether the rows are worked on where they are: in f32, or in bf16.
  bool is_f32() const { return width() == kBlock && !scan.k_is_bf16 && !scan.v_is_bf16 && !scan.y_is_bf16; }
  bool is_bf16() const { return width() == kBlock && scan.k_is_bf16 && scan.v_is_bf16 && scan.y_is_bf16; }
  /// The element of a token's first channel of this block.
  std::int64_t element(std::int64_t token) const {
    return (entry * scan.tiling.tokens() + token) * scan.channels + channel();
  }
  /// Copies of k and v, a row of kBlock for each token of a tile.
  float* k_copy() const { return late() + 2 * kBlock * scan.tiling.longest(); }
  float* v_copy() const { return k_copy() + kBlock * scan.tiling.longest(); }

  /// Rows in place, and what to fetch meanwhile: rows of a block lie too far apart for the hardware to foresee the
  /// next.
  template <class T>
  Rows<T> rows_in_place(std::int64_t begin, std::int64_t end) const {
    const std::int64_t tokens = end - begin;
    const auto at = [&](const std::byte* data) { return reinterpret_cast<const T*>(data) + element(begin); };
    Rows<T> rows = {at(scan.k), at(scan.v), const_cast<T*>(at(scan.y)), scan.channels, tokens};
    const bool followed = entry * scan.tiling.tokens() + end + tokens <= scan.batch * scan.tiling.tokens();
    if (scan.past_cache || !scan.by_column) {
      // This block's share of as many rows of all channels from here on: together the blocks read them from end to
      // end.
      if (followed) rows.soon = tokens * scan.channels + channel() * (tokens - 1), rows.soon_stride = kBlock;
    } else if (scan.tiling.count() > 1) {
      if (followed) rows.soon = std::min(tokens, kAhead) * scan.channels, rows.soon_stride = scan.channels;
    } else if (channel() + 2 * kBlock <= scan.channels) {
      rows.soon = kBlock, rows.soon_stride = scan.channels;
    }
    return rows;
  }

  /// This block's part of a vector of all channels (w, u).
  void load_channels(const float* from, float* to) const {
    std::memset(to, 0, kBlock * sizeof(float));
    std::memcpy(to, from + channel(), static_cast<std::size_t>(width()) * sizeof(float));
  }
};

}  // namespace weft::bi_wkv_scan
