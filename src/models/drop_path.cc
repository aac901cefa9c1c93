#include "models/drop_path.h"

#include "ops/elementwise/elementwise.h"

namespace weft {

Value drop_path(const Scope& scope, std::string_view name, Value y) {
  if (!scope.graph().training()) return y;
  std::vector<std::int64_t> extents(static_cast<std::size_t>(y.shape().rank()), 1);
  extents[0] = y.shape()[0];
  return mul(y, scope.graph().input(scope[name].path(), {y.type().dtype, Shape(std::move(extents))}));
}

}  // namespace weft
