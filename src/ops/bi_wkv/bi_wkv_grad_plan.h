// How the gradient of Bi-WKV cuts its work, independent of the instruction set.
//
// A thread takes a column at a time, that is a block of 16 channels of one batch entry, and goes over its tokens three
// times, tile by tile (bi_wkv_scan.h):
//
//   1. behind      last to first: e^k and the sums over the tokens behind each
//   2. gradients   first to last: the sums over the tokens before, with them D and y, g and h, and the sums of those
//                  over the tokens before
//   3. results     last to first: the sums of g and h over the tokens behind, gk and gv
//
// What a sweep leaves for the next is a handful of rows of kBlock f32 for each token, in the thread's buffer. Of a long
// sequence they would stay in no cache, nor would k, v and gy until the next column reads the lines beside. So a long
// one is cut into segments of some tiles, and all columns go through a segment before the next one is touched:
//
//   1. last to first: sweep 1, for the carries alone, which are noted at the segments' borders
//   2. first to last: sweeps 1 and 2, likewise
//   3. last to first: all sweeps, from the carries noted
//
// That is about twice the work, in a buffer of a fixed size. What goes from segment to segment is kept for each column.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "ops/bi_wkv/bi_wkv_grad.h"
#include "ops/bi_wkv/bi_wkv_scan.h"

namespace weft::bi_wkv_grad {

using bi_wkv_scan::kBlock;
using bi_wkv_scan::Tiling;

/// Rows from one that is worked on to the one that is fetched meanwhile.
constexpr std::int64_t kAhead = 24;
/// Up to here, 16384 tokens (10922 of the released kernel), the rows of a whole column may spill over into the third
/// level of the caches: that costs less than to read k, v and gy from memory and to compute the rows once more.
constexpr std::int64_t kLargestKept = 8 << 20;
/// Tiles of a segment of a longer sequence.
constexpr std::int64_t kTilesPerSegment = 16;

/// Rows of kBlock f32 that sweeps leave for each token. But for the first two, pairs: numerator's and denominator's.
enum Slot : std::int64_t {
  kKey = 0,         // e^k
  kValue = 1,       // v
  kBehind = 2,      // S, up to sweep 2, which puts P there
  kBefore = 2,      // P
  kGradient = 4,    // g and h
  kTransposed = 6,  // of A what comes from the tokens before; of B that, and what this one has in v·A + B
  kPaperSlots = 8,
  kRun = 8,    // released kernel: Q
  kRest = 10,  // released kernel: X
  kReleasedSlots = 12
};

/// In the log-space path, rows of as many f64 as a vector holds: a numerator's, a denominator's and an exponent.
enum LogSlot : std::int64_t {
  kLogBefore = 0,  // S, then P
  kLogGradient = 3,
  kLogTransposed = 6,
  kLogPaperSlots = 9,
  kLogRun = 9,
  kLogRest = 12,
  kLogReleasedSlots = 15
};

/// Of gw and gu what a column gives.
struct Partial {
  alignas(64) double w[kBlock];
  alignas(64) double u[kBlock];
};

/// What the sweeps in the range of f32 need to know of a block's channels.
struct Coefficients {
  alignas(64) float decay[kBlock];   // e^{−w}
  alignas(64) float bonus[kBlock];   // e^u
  alignas(64) float growth[kBlock];  // e^w; as `rest`, of the released kernel only
  alignas(64) float rest[kBlock];    // 1 − e^w
  // The k − k_0 that are safe: not farther than `reach` from `middle`; `reach` is negative when none is.
  alignas(64) float middle[kBlock];
  alignas(64) float reach[kBlock];
  alignas(64) double w[kBlock];
  alignas(64) double exact_decay[kBlock];
  alignas(64) double exact_growth[kBlock];
  alignas(64) double exact_bonus[kBlock];
};

/// Tiles cut into segments.
class Segments {
 public:
  /// A sequence is one segment if all of its rows fit in `largest_kept` bytes.
  Segments(const Tiling& tiling, Wkv form, std::int64_t largest_kept) : tiling_(tiling), tiles_(kTilesPerSegment) {
    const std::int64_t slots = form == Wkv::kPaper ? std::int64_t{kPaperSlots} : std::int64_t{kReleasedSlots};
    if (tiling.tokens() * slots * kBlock * static_cast<std::int64_t>(sizeof(float)) <= largest_kept) {
      tiles_ = tiling.count();
    }
  }

  std::int64_t count() const { return (tiling_.count() + tiles_ - 1) / tiles_; }
  std::int64_t first_tile(std::int64_t segment) const { return segment * tiles_; }
  std::int64_t end_tile(std::int64_t segment) const { return std::min((segment + 1) * tiles_, tiling_.count()); }
  std::int64_t begin(std::int64_t segment) const { return tiling_.begin(first_tile(segment)); }
  std::int64_t end(std::int64_t segment) const { return tiling_.end(end_tile(segment) - 1); }
  std::int64_t longest() const { return std::min(tiling_.tokens(), tiles_ * tiling_.longest()); }

 private:
  const Tiling& tiling_;
  std::int64_t tiles_;
};

/// Bytes of what is kept for a column between segments (sums, carries), and noted at each segment's border by either
/// path (five sums). Multiples of 64.
constexpr std::int64_t kStateBytes = 2624;
constexpr std::int64_t kCheckpointBytes = 1280;
inline std::int64_t note_bytes(const Segments& segments) { return kStateBytes + segments.count() * kCheckpointBytes; }

/// Bytes of a thread's buffer for rows, where the log-space path takes the most. A multiple of 64.
inline std::int64_t row_bytes(Wkv form, const Segments& segments) {
  const std::int64_t slots = form == Wkv::kPaper ? std::int64_t{kLogPaperSlots} : std::int64_t{kLogReleasedSlots};
  return segments.longest() * slots * kBlock / 2 * static_cast<std::int64_t>(sizeof(double));
}

struct Job {
  Wkv form;
  const float* k;
  const float* v;
  const float* w;
  const float* u;
  const float* gy;
  float* gk;
  float* gv;
  Coefficients* coefficients;  // [blocks]
  Partial* partials;           // [B,blocks]
  std::int64_t batch, channels;
  const Tiling& tiling;
  const Segments& segments;

  std::int64_t blocks() const { return (channels + kBlock - 1) / kBlock; }
  std::int64_t width(std::int64_t block) const { return std::min(kBlock, channels - block * kBlock); }
  /// A block's part of a vector of all channels, padded with zeros.
  void load_channels(const float* from, std::int64_t block, float* to) const {
    std::memset(to, 0, kBlock * sizeof(float));
    std::memcpy(to, from + block * kBlock, static_cast<std::size_t>(width(block)) * sizeof(float));
  }
};

/// What all columns do with a segment before they go on to the next.
enum class Round { kNoteBehind, kNoteBefore, kWriteResults };

/// What a thread works on at a time.
struct Column {
  const Job& job;
  std::int64_t entry, block;
  float* rows;       // row_bytes(), the thread's
  std::byte* notes;  // note_bytes()

  /// Of the first token's first channel.
  std::int64_t element() const { return entry * job.tiling.tokens() * job.channels + block * kBlock; }
  const Coefficients& coefficients() const { return job.coefficients[block]; }
  std::byte* checkpoint(std::int64_t segment) const { return notes + kStateBytes + segment * kCheckpointBytes; }
  Partial& partial() const { return job.partials[entry * job.blocks() + block]; }
};

/// A column's memory: where its first channel is of token 0, and how far it is to the next token. Copies of what lies
/// behind the references of a Column, which the compiler would read again after every store.
struct Rows {
  const float *k, *v, *gy;
  float *gk, *gv;
  std::int64_t stride;
  float* kept;  // of the segment's first token
  std::int64_t kept_stride;
  std::int64_t tokens, width, run;
  // From a row to what is likely wanted after it: rows lie too far apart for the hardware to foresee the next. Where
  // columns take turns over the same rows it is the same row of the next column, else a later row of this one.
  std::int64_t ahead, soon;

  Rows(const Column& column, std::int64_t slots)
      : stride(column.job.channels),
        kept(column.rows),
        kept_stride(slots * kBlock),
        tokens(column.job.tiling.tokens()),
        width(column.job.width(column.block)),
        run(column.job.tiling.run()),
        ahead(0),
        soon(0) {
    const Job& job = column.job;
    const std::int64_t first = column.element();
    k = job.k + first, v = job.v + first, gy = job.gy + first;
    gk = job.gk + first, gv = job.gv + first;
    const bool is_short = job.tiling.count() == 1, is_long = job.segments.count() > 1;
    if (!is_short && (!is_long || column.block == 0)) {
      ahead = kAhead;
    } else if (column.block + 1 < job.blocks()) {
      soon = kBlock;
    } else if (is_short && column.entry + 1 < job.batch) {
      soon = tokens * stride - column.block * kBlock;
    }
  }

  /// What to fetch while token t is worked on, going up or down.
  std::int64_t after(std::int64_t t) const { return soon + std::min(t + ahead, tokens - 1) * stride; }
  std::int64_t before(std::int64_t t) const { return soon + std::max<std::int64_t>(t - ahead, 0) * stride; }
};

/// bi_wkv_backward.
void backward(Wkv form, const Shape& shape, const BiWkvBackwardInput<float>& in, const BiWkvGradients<float>& out,
              const Workers& workers, std::int64_t largest_kept = kLargestKept);

}  // namespace weft::bi_wkv_grad
