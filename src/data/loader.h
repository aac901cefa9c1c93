// From a data set to batches: shuffled, augmented and normalised by worker threads, some ahead of their use.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "data/augment.h"
#include "data/dataset.h"
#include "weft/tensor.h"

namespace weft {

/// What one process trains with in one step.
struct TrainBatch {
  Tensor images;            ///< f32 [B,3,side,side], normalised
  Tensor targets;           ///< f32 [B,classes], rows sum to 1: smoothed, mixed
  std::vector<int> labels;  ///< the pictures' own classes
  std::int64_t epoch = 0;
  std::int64_t step = 0;  ///< within the epoch
};

struct LoaderOptions {
  /// Side (crop must be positive) and normalisation of the input; see Augmenter.
  Preprocess preprocess;
  Augment augment;
  std::uint64_t seed = 0;
  /// Pictures per step and process. Even where pictures are mixed.
  int batch = 128;
  /// Process `rank` of `world` takes its part of each global batch of world · batch pictures.
  int rank = 0;
  int world = 1;
  /// Threads that make batches; 0: the one that asks for them.
  int workers = 1;
  /// Batches made before they are asked for, ≥ 1.
  int prefetch = 2;
};

/// Training batches, without end. In each epoch every picture is seen once, in a new order, but for those that do not
/// fill a global batch. Everything is a function of the data set, `seed`, and where a picture stands in its epoch: not
/// of the number of workers or of where the loader started; the batches of `world` processes, one behind the other, are
/// those of one process with as many pictures.
class Loader {
 public:
  /// Begins at this epoch and step. Throws ConfigError for options that are out of range, or a data set too small for
  /// one global batch.
  Loader(std::shared_ptr<const Dataset> data, const LoaderOptions& options, std::int64_t epoch = 0,
         std::int64_t step = 0);
  ~Loader();

  std::int64_t steps_per_epoch() const;
  /// Throws IoError naming a picture that cannot be read.
  TrainBatch next();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Pictures to judge a model by.
struct EvalBatch {
  Tensor images;  ///< f32 [B,3,side,side], normalised
  std::vector<int> labels;
};

struct EvalOptions {
  Preprocess preprocess;
  int batch = 128;
  /// Of all pictures, process `rank` of `world` sees a contiguous part; together they see each once.
  int rank = 0;
  int world = 1;
  int workers = 1;
  int prefetch = 2;
  /// Only so many pictures, spread evenly over the data set; 0: all.
  std::int64_t limit = 0;
};

/// Pictures in the order of the data set, prepared as for inference. The last batch may be smaller.
class EvalLoader {
 public:
  /// Throws ConfigError.
  EvalLoader(std::shared_ptr<const Dataset> data, const EvalOptions& options);
  ~EvalLoader();

  /// Pictures in all batches of this process.
  std::int64_t size() const;
  /// Nothing at the end. Throws as Loader::next does.
  std::optional<EvalBatch> next();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace weft
