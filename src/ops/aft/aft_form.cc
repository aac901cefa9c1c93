#include "ops/aft/aft_form.h"

#include <algorithm>
#include <cmath>

#include "kernel/empty_kernel.h"

namespace weft {
AftSums sum_of(const AftSums& a, const AftSums& b) {
  const AftSums& larger = b.exponent > a.exponent ? b : a;
  const AftSums& other = b.exponent > a.exponent ? a : b;
  if (other.exponent == AftSums().exponent) return larger;
  const double share = std::exp(other.exponent - larger.exponent);
  return {larger.numerator + share * other.numerator, larger.denominator + share * other.denominator, larger.exponent};
}

AftForm::AftForm(const Aft& attributes, std::span<const TensorType> in)
    : causal(attributes.causal),
      batch(in[1].shape[0]),
      tokens(in[1].shape[1]),
      channels(in[1].shape[2]),
      keys(in[0].shape[2]),
      height(attributes.height > 0 ? attributes.height : 1),
      width(tokens / height) {
  if (in.size() == 2) return;
  const Shape& bias = in[2].shape;
  if (bias.rank() == 2) {
    window = attributes.window > 0 ? std::min<std::int64_t>(attributes.window, tokens) : tokens;
    table_step = bias[1];
  } else {
    filters = bias[0];
    kernel_h = bias[1];
    kernel_w = bias[2];
  }
}

AftRange AftForm::biased_rows(std::int64_t y) const {
  const std::int64_t first = y - kernel_h / 2;
  return {std::max<std::int64_t>(first, 0), std::min(first + kernel_h, height)};
}

AftRange AftForm::biased_columns(std::int64_t x) const {
  if (window == 0 && filters == 0) return causal ? AftRange{x + 1, x + 1} : AftRange{0, 0};
  if (window > 0) {
    return {std::max<std::int64_t>(x - window + 1, 0), causal ? x + 1 : std::min(x + window, width)};
  }
  const std::int64_t first = x - (causal ? kernel_w - 1 : kernel_w / 2);
  return {std::max<std::int64_t>(first, 0), std::min(first + kernel_w, width)};
}

std::int64_t AftForm::tap(std::int64_t y, std::int64_t x, std::int64_t row, std::int64_t column) const {
  return (row - y + kernel_h / 2) * kernel_w + column - x + (causal ? kernel_w - 1 : kernel_w / 2);
}

// Row by row of the grid: what has no bias for a token are the rows above and below, and of the rows between the
// columns before and behind.
void aft_in_log_space(const AftForm& f, const float* k, const float* v, const float* bias, float* y, std::int64_t entry,
                      std::int64_t channel, AftRange tokens, AftSums* memory) {
  const std::int64_t key = f.key_of(channel);
  const auto token = [&](std::int64_t row, std::int64_t column) { return entry * f.tokens + row * f.width + column; };
  const auto term = [&](std::int64_t row, std::int64_t column, double added) {
    const std::int64_t i = token(row, column);
    return AftSums{double{v[i * f.channels + channel]}, 1, double{k[i * f.keys + key]} + added};
  };
  const float* const filter = f.filters > 0 ? bias + key / (f.keys / f.filters) * f.taps() : nullptr;
  AftSums* const before = memory;                // columns [0,x)
  AftSums* const behind = memory + f.width + 1;  // columns [x,width)
  for (std::int64_t row = tokens.begin / f.width; row * f.width < tokens.end; ++row) {
    const AftRange rows = f.biased_rows(row);
    AftSums elsewhere;
    for (std::int64_t other = 0; other < f.height; ++other) {
      if (other >= rows.begin && other < rows.end) continue;
      for (std::int64_t x = 0; x < f.width; ++x) elsewhere = sum_of(elsewhere, term(other, x, 0));
    }
    const auto with_column = [&](AftSums sum, std::int64_t x) {
      for (std::int64_t i = rows.begin; i < rows.end; ++i) sum = sum_of(sum, term(i, x, 0));
      return sum;
    };
    before[0] = elsewhere;
    for (std::int64_t x = 0; x < f.width; ++x) before[x + 1] = with_column(before[x], x);
    behind[f.width] = {};
    for (std::int64_t x = f.causal ? 0 : f.width; x-- > 0;) behind[x] = with_column(behind[x + 1], x);
    const std::int64_t first = std::max<std::int64_t>(tokens.begin - row * f.width, 0);
    const std::int64_t last = std::min(tokens.end - row * f.width, f.width);
    for (std::int64_t x = first; x < last; ++x) {
      const AftRange columns = f.biased_columns(x);
      AftSums sum = before[columns.begin];
      if (!f.causal) sum = sum_of(sum, behind[columns.end]);
      for (std::int64_t i = rows.begin; i < rows.end; ++i) {
        for (std::int64_t j = columns.begin; j < columns.end; ++j) {
          sum = sum_of(sum, term(i, j, double{filter ? filter[f.tap(row, x, i, j)] : bias[x * f.table_step + j]}));
        }
      }
      y[token(row, x) * f.channels + channel] = static_cast<float>(sum.numerator / sum.denominator);
    }
  }
}

std::unique_ptr<Kernel> make_kernel(const Aft& attributes, const KernelRequest& request) {
  if (request.out[0].shape.elements() == 0) return std::make_unique<EmptyKernel>("empty:aft");
  const AftForm form(attributes, request.in);
  return form.window > 0 ? make_aft_table(form, request.threads) : make_aft_sums(form, request.threads);
}

}  // namespace weft
