// A language model for tests.
#pragma once

#include <cmath>
#include <string>
#include <utility>

#include "api/model_data.h"
#include "ops/testing/random.h"

namespace weft::testing {

struct SmallLanguageModel {
  int vocab_size = 97;
  int n_embd = 40;
  int dim_ffn = 96;
  unsigned seed = 1;
};

/// RWKV-4 of 2 layers. Its matrices are random: half of the official initial ones are zeros, and hide what they
/// multiply.
inline Model small_language_model(const SmallLanguageModel& size = {}) {
  const LoadOptions options{.section = "",
                            .config = {{"n_layer", "2"},
                                       {"n_embd", std::to_string(size.n_embd)},
                                       {"vocab_size", std::to_string(size.vocab_size)},
                                       {"dim_att", std::to_string(size.n_embd + 8)},
                                       {"dim_ffn", std::to_string(size.dim_ffn)}}};
  ModelData data = Model::create("rwkv4_169m", size.seed, options).data();
  std::uint64_t seed = 1000 * size.seed;
  for (auto& [name, weight] : data.weights) {
    if (weight.shape().rank() != 2) continue;
    const double scale = name == "emb.weight" ? 1 : 1 / std::sqrt(static_cast<double>(weight.shape()[1]));
    weight = random_tensor(weight.shape(), ++seed, static_cast<float>(scale));
  }
  return Model(std::make_shared<const ModelData>(std::move(data)));
}

}  // namespace weft::testing
