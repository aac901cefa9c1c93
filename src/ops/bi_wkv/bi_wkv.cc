#include "ops/bi_wkv/bi_wkv.h"

#include "core/format.h"

namespace weft {

std::vector<TensorType> infer(const BiWkv&, std::span<const TensorType> in) {
  require<ShapeError>(in.size() == 4, "bi_wkv", "takes k, v, w and u, got {} inputs", in.size());
  const Shape& k = in[0].shape;
  require<ShapeError>(k.rank() == 3, "bi_wkv", "k must be [B,T,C], got {}", k);
  require<ShapeError>(in[1].shape == k, "bi_wkv", "v must have the shape of k, {}, got {}", k, in[1].shape);
  for (const int i : {2, 3}) {
    const Shape& shape = in[static_cast<std::size_t>(i)].shape;
    require<ShapeError>(shape == Shape{k[2]}, "bi_wkv", "{} must be [C]=[{}], got {}",
                        i == 2 ? "w (decay)" : "u (bonus)", k[2], shape);
  }
  return {in[0]};
}

std::int64_t macs(const BiWkv&, std::span<const TensorType> in) { return count_product({29, in[0].shape.elements()}); }

Value bi_wkv(Value k, Value v, Value w, Value u, Wkv wkv) { return k.graph().add_one(BiWkv{.wkv = wkv}, {k, v, w, u}); }

}  // namespace weft
