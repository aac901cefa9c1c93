#include "torch/gradient_buckets.h"

#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>

namespace weft::torch_engine {
namespace {

using torch::autograd::variable_list;

// Called by autograd behind the node that adds to a leaf's gradient.
class Notice final : public torch::autograd::FunctionPostHook {
 public:
  explicit Notice(std::function<void()> call) : call_(std::move(call)) {}
  variable_list operator()(const variable_list& outputs, const variable_list&) override {
    call_();
    return outputs;
  }

 private:
  std::function<void()> call_;
};

}  // namespace

GradientBuckets::GradientBuckets(Exchange& exchange, const at::Tensor& gradients, std::span<const at::Tensor> leaves,
                                 std::int64_t bucket_bytes)
    : exchange_(exchange) {
  std::vector<const at::Tensor*> from_the_back;
  for (const at::Tensor& leaf : leaves) {
    if (leaf.requires_grad()) from_the_back.push_back(&leaf);
  }
  const auto offset = [&](const at::Tensor* leaf) { return leaf->grad().storage_offset(); };
  std::ranges::sort(from_the_back, std::greater{}, offset);
  const std::int64_t limit = bucket_bytes / gradients.element_size();
  std::int64_t end = gradients.numel();
  int count = 0;
  for (const at::Tensor* const leaf : from_the_back) {
    const std::size_t bucket = buckets_.size();
    accumulators_.push_back(torch::autograd::impl::grad_accumulator(*leaf));
    accumulators_.back()->add_post_hook(std::make_unique<Notice>([this, bucket] { gradient_is_there(bucket); }));
    ++count;
    const bool last = leaf == from_the_back.back();
    const std::int64_t begin = last ? 0 : offset(leaf);
    if (end - begin < limit && !last) continue;
    buckets_.push_back({.elements = gradients.slice(0, begin, end), .leaves = count});
    end = begin;
    count = 0;
  }
}

void GradientBuckets::begin() {
  for (Bucket& bucket : buckets_) bucket.missing = bucket.leaves;
  waits_.clear();
  running_ = true;
}

void GradientBuckets::gradient_is_there(std::size_t bucket) {
  if (!running_) return;
  --buckets_[bucket].missing;
  while (waits_.size() < buckets_.size() && buckets_[waits_.size()].missing == 0) send_next();
}

void GradientBuckets::send_next() {
  waits_.push_back(exchange_.begin_sum(buckets_[waits_.size()].elements, "the gradients of the others"));
}

void GradientBuckets::finish() {
  running_ = false;
  while (waits_.size() < buckets_.size()) send_next();  // with parameters that had no part in the loss
  for (const Exchange::Wait& wait : waits_) wait();
  waits_.clear();
}

}  // namespace weft::torch_engine
