// RWKV-4: Peng et al., "RWKV: Reinventing RNNs for the Transformer Era", EMNLP 2023 Findings, arXiv:2305.13048. A
// language model that is computed over a whole sequence at once, as a transformer is, or token by token with a state
// whose size does not depend on how many there were, as an RNN is: the same weights, the same numbers.
#pragma once

#include <optional>
#include <string_view>
#include <tuple>

#include "graph/graph.h"
#include "models/architecture.h"

namespace weft::rwkv4 {

/// Options under the official trainer's names; the defaults are those of the 169M model.
struct Config {
  static constexpr std::string_view kFamily = "rwkv4";
  static constexpr std::string_view kBlocks = "blocks.";

  int n_layer = 12;
  int n_embd = 768;
  int vocab_size = 50277;
  int dim_att = 768;   // channels of the time mix
  int dim_ffn = 3072;  // of the channel mix' hidden layer

  static constexpr std::tuple kFields{
      Field{"n_layer", &Config::n_layer}, Field{"n_embd", &Config::n_embd},   Field{"vocab_size", &Config::vocab_size},
      Field{"dim_att", &Config::dim_att}, Field{"dim_ffn", &Config::dim_ffn},
  };
  bool operator==(const Config&) const = default;
};

/// Throws ConfigError that names every value out of range.
void validate(const Config& config);

/// Logits of the token that follows: [B,T,V], or [B,V] behind the last one. `tokens` is [B,T] of kI64. States of layer
/// i: "blocks.i.att.x" [B,C] and "blocks.i.ffn.x" [B,C], what the token shifts saw last, and "blocks.i.att.wkv"
/// [B,3,dim_att], numerator, denominator and exponent of the weighted mean (ops/causal_wkv).
Value build(Graph& graph, Value tokens, const Config& config, LogitsOf which);

/// The official layout, and that of Hugging Face's transformers.
std::optional<Recognition> recognise(const TensorIndex& tensors, const Json& overrides);
/// From the official trainer's arguments (system "rwkv4-lm"); widths that they leave open are read off the checkpoint.
std::optional<Config> from_official(std::string_view system, const Json& model, const TensorIndex& tensors);

}  // namespace weft::rwkv4
