// Other engines that weft bench measures beside weft, on models that weft exports for them.
#pragma once

#include <filesystem>
#include <string>

#include "bench_subjects.h"

namespace weft::cli {

class Peer {
 public:
  static constexpr std::string_view kModel = "deit_tiny_patch16_224";

  /// `what` is "onnxruntime" or "onnxruntime:MODEL". `spinning`: its threads wait for work in loops. Throws UsageError
  /// for a peer that weft does not know, Error when it cannot run here, with what is missing.
  Peer(const std::string& what, bool spinning);

  const std::string& name() const { return name_; }
  const std::string& version() const { return version_; }
  /// The model that it runs: a preset or a file.
  const std::string& model() const { return model_; }

  /// Answers as weft_child does.
  BenchChild child(const BenchCase& bench_case) const;

 private:
  std::string name_, model_, version_;
  std::filesystem::path script_;
  bool spinning_;
};

}  // namespace weft::cli
