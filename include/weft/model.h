// Models and sessions: load a checkpoint, give it pictures, get predictions and features.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "weft/api.h"
#include "weft/image.h"
#include "weft/tensor.h"

namespace weft {

struct ModelData;

struct WEFT_API LoadOptions {
  /// Which tensors of a PyTorch checkpoint: "model", "state_dict", "ema", …; empty chooses.
  std::string section;
  /// Options of the model that the file does not tell, or that shall be other than it says: {"post_norm", "false"}.
  /// Values are JSON; what is no JSON is taken as a string.
  std::vector<std::pair<std::string, std::string>> config;
};

/// A network with its weights, labels and preprocessing. Immutable; copies share everything.
class WEFT_API Model {
 public:
  /// Reads a safetensors file or a PyTorch checkpoint in the official layout. Throws IoError for a file that cannot be
  /// read, WeightError for one whose tensors fit no known model (all misfits in one message), ConfigError for bad
  /// options.
  static Model load(const std::filesystem::path& path, const LoadOptions& options = {});
  /// A published architecture ("vrwkv_tiny", "rwkv4_169m", …) with fresh random weights. Throws ConfigError for an
  /// unknown name.
  static Model create(std::string_view preset, std::uint64_t seed = 0, const LoadOptions& options = {});

  /// Writes one safetensors file that holds the whole model: weights, configuration, labels, preprocessing, provenance.
  void save(const std::filesystem::path& path) const;

  std::string_view family() const;
  /// The complete configuration as a JSON object.
  std::string config() const;
  /// Names of the classes; empty when unknown.
  const std::vector<std::string>& labels() const;
  const Preprocess& preprocess() const;
  /// The same model with another preprocessing or other labels. Labels must be as many as classes.
  Model with_preprocess(const Preprocess& preprocess) const;
  Model with_labels(std::vector<std::string> labels) const;

  int depth() const;
  /// Channels of the pictures that it reads; 0 where it reads text.
  int in_channels() const;
  /// 0 for a bare backbone and for what reads text.
  int classes() const;
  /// Tokens that it knows, 0 … vocab_size() − 1; 0 where it reads pictures.
  int vocab_size() const;
  std::int64_t parameter_count() const;
  /// Multiply-accumulates for one picture of this size. Throws UnsupportedError where it reads text.
  std::int64_t macs(std::int64_t height, std::int64_t width) const;

  /// For weft's own use: what is inside is no part of the public interface.
  const ModelData& data() const { return *data_; }
  explicit Model(std::shared_ptr<const ModelData> data) : data_(std::move(data)) {}

 private:
  std::shared_ptr<const ModelData> data_;
};

/// One class and how likely the model finds it.
struct WEFT_API Prediction {
  std::string label;  // "class 7" when the model has no labels
  double probability = 0;
  int index = 0;
};

struct WEFT_API Features {
  std::vector<int> layers;
  /// Per layer a feature map, f32 [B,C,H/patch,W/patch]; the final norm is applied to the last layer only.
  std::vector<Tensor> maps;
  /// Global average of the map that the head reads (the last of the model's out_indices, whichever layers were asked
  /// for), f32 [B,C].
  Tensor pooled;
};

struct WEFT_API SessionOptions {
  /// Threads that compute, the caller's included; 0 means one per core.
  int threads = 0;
  /// What matrix products multiply: kF32, kBF16 or kI8 (both rounded from f32 weights and activations at load and on
  /// the fly; sums, norms, mixers and the residual stream stay f32). Others are refused with ConfigError.
  DType dtype = DType::kF32;
  /// Bytes of memory that the process may have; a run that would take more is refused with MemoryError before it
  /// starts, the first one while it packs the weights. 0: no limit.
  std::int64_t max_memory = 0;
};

/// The fastest element type for products that loses no accuracy worth mentioning: kBF16 where this CPU multiplies it in
/// hardware, else kF32.
WEFT_API DType best_dtype();

/// Runs a model that reads pictures on the CPU. All methods may be called from several threads at once: they share the
/// session's threads and packed weights. The network is compiled once per input shape and kept for the shapes used
/// last.
class WEFT_API Session {
 public:
  /// Throws ConfigError for options that make no sense, UnsupportedError for a model that reads text.
  explicit Session(Model model, const SessionOptions& options = {});
  ~Session();
  Session(Session&&) noexcept;
  Session& operator=(Session&&) noexcept;

  const Model& model() const;
  int threads() const;
  DType dtype() const;

  /// The `top` likeliest classes of each picture, likeliest first. The pictures must have one size after preprocessing.
  /// Throws UnsupportedError for a bare backbone, ShapeError for pictures that do not fit.
  std::vector<std::vector<Prediction>> classify(std::span<const Image> images, int top = 5) const;
  std::vector<Prediction> classify(const Image& image, int top = 5) const;

  /// Maps of these layers (negative ones count from the end; none: the model's own out_indices).
  Features features(std::span<const Image> images, std::span<const int> layers = {}) const;
  Features features(const Image& image, std::span<const int> layers = {}) const;

  /// The same from normalised input, f32 [B,C,H,W] of any size.
  Features features(const Tensor& input, std::span<const int> layers = {}) const;
  /// f32 [B,classes] from normalised input.
  Tensor logits(const Tensor& input) const;

  /// Bytes of working memory that a run at this input shape needs, beside the weights. Compiles for the shape.
  std::int64_t working_bytes(const Shape& input) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace weft
