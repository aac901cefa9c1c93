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

struct Job {
  Wkv form;
  const float* k;
  const float* v;
  const float* w;
  const float* u;
  const float* gy;
  float* gk;
  float* gv;
  Partial* partials;  // [B,blocks]
  std::int64_t batch, channels;
  const Tiling& tiling;

  std::int64_t blocks() const { return (channels + kBlock - 1) / kBlock; }
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

  std::int64_t tokens() const { return job.tiling.tokens(); }
  std::int64_t stride() const { return job.channels; }
  std::int64_t channel() const { return block * kBlock; }
  std::int64_t width() const { return std::min(kBlock, job.channels - channel()); }
  std::int64_t first() const { return entry * tokens() * job.channels + channel(); }
  Partial& partial() const { return job.partials[entry * job.blocks() + block]; }

  /// From a row to what is likely wanted after it: rows lie too far apart for the hardware to foresee the next. A
  /// column of one tile is short: there it is the same row of the next column.
  std::int64_t ahead() const { return job.tiling.count() > 1 ? kAhead : 0; }
  std::int64_t soon() const {
    if (job.tiling.count() > 1) return 0;
    if (block + 1 < job.blocks()) return kBlock;
    return entry + 1 < job.batch ? tokens() * job.channels - channel() : 0;
  }

  /// This block's part of a vector of all channels, padded with zeros.
  void load_channels(const float* from, float* to) const {
    std::memset(to, 0, kBlock * sizeof(float));
    std::memcpy(to, from + channel(), static_cast<std::size_t>(width()) * sizeof(float));
  }
};

}  // namespace weft::bi_wkv_grad
