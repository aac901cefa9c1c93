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
// What a sweep leaves for the next is a handful of rows of kBlock f32 for each token, in the thread's buffer.
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

  std::int64_t blocks() const { return (channels + kBlock - 1) / kBlock; }
  std::int64_t width(std::int64_t block) const { return std::min(kBlock, channels - block * kBlock); }
  /// A block's part of a vector of all channels, padded with zeros.
  void load_channels(const float* from, std::int64_t block, float* to) const {
    std::memset(to, 0, kBlock * sizeof(float));
    std::memcpy(to, from + block * kBlock, static_cast<std::size_t>(width(block)) * sizeof(float));
  }
};

/// Bytes of the buffer that every thread needs, a multiple of 64: the log-space path takes the most.
inline std::int64_t buffer_bytes(Wkv form, std::int64_t tokens) {
  const std::int64_t slots = form == Wkv::kPaper ? std::int64_t{kLogPaperSlots} : std::int64_t{kLogReleasedSlots};
  return tokens * slots * kBlock / 2 * static_cast<std::int64_t>(sizeof(double));
}

/// What a thread works on at a time.
struct Column {
  const Job& job;
  std::int64_t entry, block;
  float* buffer;  // buffer_bytes()

  /// Of the first token's first channel.
  std::int64_t element() const { return entry * job.tiling.tokens() * job.channels + block * kBlock; }
  const Coefficients& coefficients() const { return job.coefficients[block]; }
  Partial& partial() const { return job.partials[entry * job.blocks() + block]; }
};

/// A column's memory: where its first channel is of token 0, and how far it is to the next token. Copies of what lies
/// behind the references of a Column, which the compiler would read again after every store.
struct Rows {
  const float *k, *v, *gy;
  float *gk, *gv;
  std::int64_t stride;
  float* kept;
  std::int64_t kept_stride;
  std::int64_t tokens, width, run;
  // From a row to what is likely wanted after it: rows lie too far apart for the hardware to foresee the next. A column
  // of one tile is short: there it is the same row of the next column.
  std::int64_t ahead, soon;

  Rows(const Column& column, std::int64_t slots)
      : stride(column.job.channels),
        kept(column.buffer),
        kept_stride(slots * kBlock),
        tokens(column.job.tiling.tokens()),
        width(column.job.width(column.block)),
        run(column.job.tiling.run()),
        ahead(column.job.tiling.count() > 1 ? kAhead : 0),
        soon(0) {
    const Job& job = column.job;
    const std::int64_t first = column.element();
    k = job.k + first, v = job.v + first, gy = job.gy + first;
    gk = job.gk + first, gv = job.gv + first;
    if (ahead > 0) return;
    if (column.block + 1 < job.blocks()) {
      soon = kBlock;
    } else if (column.entry + 1 < job.batch) {
      soon = tokens * stride - column.block * kBlock;
    }
  }

  /// What to fetch while token t is worked on, going up or down.
  std::int64_t after(std::int64_t t) const { return soon + std::min(t + ahead, tokens - 1) * stride; }
  std::int64_t before(std::int64_t t) const { return soon + std::max<std::int64_t>(t - ahead, 0) * stride; }
};

}  // namespace weft::bi_wkv_grad
