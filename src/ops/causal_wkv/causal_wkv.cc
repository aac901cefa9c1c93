#include "ops/causal_wkv/causal_wkv.h"

#include "core/format.h"

namespace weft {

std::vector<TensorType> infer(const CausalWkv&, std::span<const TensorType> in) {
  require<ShapeError>(in.size() == 5, "causal_wkv", "takes k, v, w, u and a state, got {} inputs", in.size());
  const Shape& k = in[0].shape;
  require<ShapeError>(k.rank() == 3, "causal_wkv", "k must be [B,T,C], got {}", k);
  require<ShapeError>(in[1].shape == k, "causal_wkv", "v must have the shape of k, {}, got {}", k, in[1].shape);
  require<ShapeError>(in[2].shape == Shape{k[2]}, "causal_wkv", "w (decay) must be [C]=[{}], got {}", k[2],
                      in[2].shape);
  require<ShapeError>(in[3].shape == Shape{k[2]}, "causal_wkv", "u (bonus) must be [C]=[{}], got {}", k[2],
                      in[3].shape);
  const Shape state{k[0], 3, k[2]};
  require<ShapeError>(in[4].shape == state, "causal_wkv", "the state must be [B,3,C]={}, got {}", state, in[4].shape);
  return {in[0], in[4]};
}

std::int64_t macs(const CausalWkv&, std::span<const TensorType> in) {
  return count_product({6, in[0].shape.elements()});
}

CausalWkvResult causal_wkv(Value k, Value v, Value w, Value u, Value state) {
  const std::vector<Value> results = k.graph().add(CausalWkv{}, std::vector{k, v, w, u, state});
  return {results[0], results[1]};
}

}  // namespace weft
