#include <algorithm>

#include "core/format.h"
#include "ops/aft/aft.h"
#include "ops/aft/aft_form.h"

namespace weft {

AftRecurrence::AftRecurrence(const Aft& attributes, std::int64_t keys, std::int64_t channels,
                             std::optional<Tensor> bias)
    : keys_(static_cast<std::size_t>(keys)),
      channels_(static_cast<std::size_t>(channels)),
      reach_(0),
      bias_(std::move(bias)) {
  std::vector<TensorType> in = {{DType::kF64, {1, 0, keys}}, {DType::kF64, {1, 0, channels}}};
  if (bias_) in.push_back(bias_->type());
  Aft on_a_line = attributes;  // of any length
  if (attributes.height == 1) on_a_line.height = on_a_line.width = 0;
  infer(on_a_line, in);
  require<ConfigError>(attributes.causal, Aft::kName, "only what is causal goes token by token; set causal");
  if (bias_) {
    const bool table = bias_->shape().rank() == 2;
    require<ConfigError>(!table || attributes.window > 0, Aft::kName,
                         "a table of biases without a window has no bounded state; set window");
    reach_ = static_cast<std::size_t>(table ? std::min<std::int64_t>(attributes.window, bias_->shape()[0])
                                            : bias_->shape()[2]);
  }
  recent_keys_.resize(reach_ * keys_);
  recent_values_.resize(reach_ * channels_);
  gone_.resize(channels_);
}

std::size_t AftRecurrence::state_size() const { return recent_keys_.size() + recent_values_.size() + 3 * channels_; }

double AftRecurrence::bias_of(std::size_t key, std::size_t age) const {
  const Shape& shape = bias_->shape();
  const auto values = bias_->data<double>();
  if (shape.rank() == 2) return values[next_ * static_cast<std::size_t>(shape[1]) + next_ - age];
  return values[key / (keys_ / static_cast<std::size_t>(shape[0])) * reach_ + reach_ - 1 - age];
}

void AftRecurrence::step(std::span<const double> k, std::span<const double> v, std::span<double> y) {
  require<ShapeError>(k.size() == keys_ && v.size() == channels_ && y.size() == channels_, Aft::kName,
                      "k must be [{}], v and y [{}], got {}, {} and {} elements", keys_, channels_, k.size(), v.size(),
                      y.size());
  require<ShapeError>(!bias_ || bias_->shape().rank() == 3 || next_ < static_cast<std::size_t>(bias_->shape()[0]),
                      Aft::kName, "a table of {} rows has no bias for another token", next_);
  const std::size_t share = channels_ / keys_;
  const std::size_t slot = reach_ > 0 ? next_ % reach_ : 0;
  for (std::size_t c = 0; c < channels_; ++c) {
    if (reach_ == 0) {
      gone_[c] = sum_of(gone_[c], {v[c], 1, k[c / share]});
    } else if (next_ >= reach_) {  // what leaves the window
      gone_[c] = sum_of(gone_[c], {recent_values_[slot * channels_ + c], 1, recent_keys_[slot * keys_ + c / share]});
    }
  }
  if (reach_ > 0) {
    std::ranges::copy(k, recent_keys_.begin() + static_cast<std::ptrdiff_t>(slot * keys_));
    std::ranges::copy(v, recent_values_.begin() + static_cast<std::ptrdiff_t>(slot * channels_));
  }
  const std::size_t recent = std::min(reach_, next_ + 1);
  for (std::size_t c = 0; c < channels_; ++c) {
    AftSums sums = gone_[c];
    for (std::size_t age = 0; age < recent; ++age) {
      const std::size_t at = (next_ - age) % reach_;
      const double key = recent_keys_[at * keys_ + c / share] + bias_of(c / share, age);
      sums = sum_of(sums, {recent_values_[at * channels_ + c], 1, key});
    }
    y[c] = sums.numerator / sums.denominator;
  }
  ++next_;
}

}  // namespace weft
