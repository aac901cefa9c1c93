// How the scan of the causal WKV cuts its work, independent of the instruction set.
//
// Channels go in blocks of 16. A block of one batch entry is a column, which a thread takes through all tokens. Where
// columns are too few for the threads, tokens are cut into segments, which go in three sweeps:
//
//   1. sum     per segment but the last, the sums over its tokens alone
//   2. carry   per column, from these the state that each segment meets
//   3. emit    per segment, y, and after the last one the next state
//
// That is some 1.7 times the work (measured). Nothing else in a result depends on the number of threads, and nothing at
// all on which of them runs.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace weft::causal_wkv_scan {

/// Channels of a block: a cache line of f32.
constexpr std::int64_t kBlock = 16;
/// Tokens of which sums are taken before they are added to those of earlier ones.
constexpr std::int64_t kRun = 64;
/// Rows from one that is worked on to the one that is fetched meanwhile.
constexpr std::int64_t kAhead = 16;
/// Tokens after which a column's state is rounded to f32, so that ages stay small whole numbers.
constexpr std::int64_t kLongest = 1 << 20;
/// Tokens of a segment, if threads share a column. With fewer, waiting costs more than is won.
constexpr std::int64_t kShortest = 1024;

/// Tokens cut into segments of equal length but for the last.
class Segments {
 public:
  Segments(std::int64_t tokens, std::int64_t columns, int threads) : tokens_(tokens), length_(kLongest) {
    if (columns == 0) return;
    const auto up = [](std::int64_t n, std::int64_t by) { return (n + by - 1) / by; };
    const std::int64_t parts = std::min(tokens / kShortest, up(4 * std::int64_t{threads}, columns));
    is_shared_ = parts > 1 && 17 * up(columns * parts, threads) < 10 * parts * up(columns, threads);
    if (is_shared_) length_ = std::min(kLongest, up(up(tokens, parts), kRun) * kRun);
  }

  /// Whether several threads may work on a column.
  bool is_shared() const { return is_shared_; }
  std::int64_t tokens() const { return tokens_; }
  std::int64_t count() const { return (tokens_ + length_ - 1) / length_; }
  std::int64_t longest() const { return std::min(tokens_, length_); }
  std::int64_t begin(std::int64_t segment) const { return segment * length_; }
  std::int64_t end(std::int64_t segment) const { return std::min(begin(segment) + length_, tokens_); }

 private:
  std::int64_t tokens_, length_;
  bool is_shared_ = false;
};

/// Everything that one run of the scan works on.
struct Scan {
  const std::byte* k;  // f32, or bf16
  const std::byte* v;
  const float* w;
  const float* u;
  const float* state;
  std::byte* y;
  float* next;
  bool k_is_bf16, v_is_bf16, y_is_bf16;
  std::int64_t channels;
  const Segments& segments;
  float* records;  // [columns,segments,3,kBlock] if columns are shared: the state that each segment meets

  std::int64_t blocks() const { return (channels + kBlock - 1) / kBlock; }
  float* record(std::int64_t column, std::int64_t segment) const {
    return records + (column * segments.count() + segment) * 3 * kBlock;
  }
};

}  // namespace weft::causal_wkv_scan
