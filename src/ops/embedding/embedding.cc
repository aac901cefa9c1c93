#include "ops/embedding/embedding.h"

#include <algorithm>
#include <limits>

#include "core/format.h"

namespace weft {

std::vector<TensorType> infer(const Embedding&, std::span<const TensorType> in) {
  require<ShapeError>(in.size() == 2, "embedding", "takes tokens and a table, got {} inputs", in.size());
  const Shape& tokens = in[0].shape;
  const Shape& table = in[1].shape;
  require<ShapeError>(in[0].dtype == DType::kI64 && tokens.rank() == 2, "embedding",
                      "tokens must be whole numbers i64[B,T], got {}", in[0]);
  require<ShapeError>(table.rank() == 2, "embedding", "the table must be [V,C], got {}", table);
  return {{in[1].dtype, {tokens[0], tokens[1], table[1]}}};
}

std::int64_t macs(const Embedding&, std::span<const TensorType>) { return 0; }

void reference(const Embedding&, std::span<const Tensor> in, std::span<Tensor> out) {
  const auto tokens = in[0].data<double>();
  const auto table = in[1].data<double>();
  const auto rows = static_cast<double>(in[1].shape()[0]);
  const auto channels = static_cast<std::size_t>(in[1].shape()[1]);
  const auto y = out[0].mutable_data<double>();
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const auto to = y.subspan(i * channels, channels);
    if (tokens[i] >= 0 && tokens[i] < rows) {
      std::ranges::copy(table.subspan(static_cast<std::size_t>(tokens[i]) * channels, channels), to.begin());
    } else {
      std::ranges::fill(to, std::numeric_limits<double>::quiet_NaN());
    }
  }
}

Value embedding(Value tokens, Value table) { return tokens.graph().add_one(Embedding{}, {tokens, table}); }

}  // namespace weft
