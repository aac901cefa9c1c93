// Gradients of one step, made in several processes, added up while the backward pass still runs.
#pragma once

#include <torch/torch.h>

#include <span>
#include <vector>

#include "torch/exchange.h"

namespace weft::torch_engine {

/// The flat tensor of gradients cut into buckets, from its end on. Each bucket is added up over all processes as soon
/// as autograd has written the last gradient that lies in it (Li et al. 2020, arXiv:2006.15704, section 3.2), in the
/// same order in all processes.
class GradientBuckets {
 public:
  /// `leaves` that require gradients have these as views of `gradients`. `exchange` and `leaves` must outlive this.
  GradientBuckets(Exchange& exchange, const at::Tensor& gradients, std::span<const at::Tensor> leaves,
                  std::int64_t bucket_bytes);
  GradientBuckets(const GradientBuckets&) = delete;
  GradientBuckets& operator=(const GradientBuckets&) = delete;

  std::size_t count() const { return buckets_.size(); }

  /// Before the last backward pass of a step: what it makes is complete.
  void begin();
  /// Behind it: waits until all buckets are sums.
  void finish();

 private:
  struct Bucket {
    at::Tensor elements;  // of the flat tensor
    int leaves = 0;
    int missing = 0;  // leaves whose gradient is not there yet
  };

  void gradient_is_there(std::size_t bucket);
  void send_next();

  Exchange& exchange_;
  std::vector<Bucket> buckets_;
  std::vector<std::shared_ptr<torch::autograd::Node>> accumulators_;  // which leaves hold weakly
  std::vector<Exchange::Wait> waits_;                                 // of the first buckets
  bool running_ = false;
};

}  // namespace weft::torch_engine
