// In place of the exporter where libonnx is missing.
#include "onnx/export.h"

#include "core/format.h"

namespace weft {

bool can_export_onnx() { return false; }

std::string export_onnx(const Graph&, const std::map<std::string, Tensor, std::less<>>&, const OnnxOptions&) {
  fail<UnsupportedError>(
      "onnx",
      "this build of weft cannot write ONNX files; install libonnx-dev and libprotobuf-dev and build "
      "it again");
}

}  // namespace weft
