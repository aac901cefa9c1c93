// What softmax attention does to rows of scores, as blocks of keys go by (Milakov and Gimelshein 2018,
// arXiv:1805.02867; Dao et al. 2022, arXiv:2205.14135).
#pragma once

#include <cstdint>

namespace weft {

/// A tile of queries of one head. Scores are in powers of two: multiplied by log2 e.
struct AttentionRows {
  std::int64_t rows, channels;  // channels of the head, D
  void* queries;                // [rows,D], f32 or bf16
  float* scores;                // [rows,N] for the N keys of the present block
  void* probabilities;          // [rows,N], not normalised; the scores' memory in f32
  float* sums;                  // [rows,D], of probability times value
  float* largest;               // [rows], of all scores so far
  float* totals;                // [rows], of all probabilities so far
};

/// Queries become factor · q; nothing has been seen. `bf16`, here and below: of queries and probabilities.
void start_attention(const AttentionRows& tile, bool bf16, const float* q, std::int64_t q_step, float factor);
/// Scores become probabilities, and the sums relative to the largest score so far.
void attention_softmax(const AttentionRows& tile, bool bf16, std::int64_t keys);
/// y = sums / totals
void finish_attention(const AttentionRows& tile, float* y, std::int64_t y_step);

}  // namespace weft
