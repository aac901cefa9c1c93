// Reference cases: a folder with a meta.json, inputs, expected outputs and weights (docs/reference_cases.md tells the
// format), run through one of weft's engines.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/threads.h"
#include "torch/engine.h"
#include "weft/tensor.h"

namespace weft {

/// kCpu is what sessions use; kReference computes everything by the naive double-precision loops; kTorch is libtorch.
enum class Engine { kCpu, kReference, kTorch };

struct VerifyOptions {
  Engine engine = Engine::kCpu;
  int threads = 0;
  /// What the CPU engine's products multiply: kF32, kBF16 or kI8. In fewer bits than f32 a model's tolerance is the
  /// case's plus the one of verify/rounding.h.
  DType dtype = DType::kF32;
  /// What kTorch runs on; it brings its own threads.
  std::shared_ptr<TorchEngine> torch = nullptr;
  /// Compares the gradients, too, of the cases that have some. For kTorch only.
  bool gradients = false;
};

/// One array compared: error is max |got − want| / (max |want| + 1e-6), or the largest difference where equality is
/// asked.
struct VerifyCheck {
  std::string name;
  double error = 0;
  double tolerance = 0;
  bool passed() const { return error <= tolerance; }  // false for NaN
};

struct VerifyResult {
  std::string name;    // of the folder
  std::string system;  // as meta.json says
  std::vector<VerifyCheck> checks;

  bool passed() const;
  /// The check that comes nearest to its tolerance or passes it by most.
  const VerifyCheck& worst() const;
};

/// Gradients are those of Σ over outputs of sum(output · cotangent). Throws IoError for a folder that cannot be read,
/// ConfigError or WeightError for a case that does not make sense, UnsupportedError for a system that weft does not
/// know and for gradients of an engine that has none.
VerifyResult verify_case(const std::filesystem::path& folder, const VerifyOptions& options = {});

}  // namespace weft
