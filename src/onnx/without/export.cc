// In place of the exporter where libonnx is missing.
#include "onnx/export.h"

#include "core/format.h"

namespace weft {

void require_onnx_export() {
  fail<UnsupportedError>("onnx",
                         "this build of weft cannot write ONNX files; install libonnx-dev and libprotobuf-dev and "
                         "build it again");
}

std::string export_onnx(const Graph&, const std::map<std::string, Tensor, std::less<>>&, const OnnxOptions&) {
  require_onnx_export();
  return "";
}

}  // namespace weft
