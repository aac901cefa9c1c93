#include "verify/module_cases.h"

#include <algorithm>
#include <array>
#include <numeric>

#include "core/format.h"
#include "models/dwnet/dynamic_conv.h"
#include "models/rmt/rmt.h"
#include "ops/ops.h"
#include "verify/module.h"

namespace weft {
namespace {

// Of what a case shows as a whole matrix, on each side of it.
constexpr std::int64_t kMostShown = 4096;

Tensor identity(std::int64_t n, Shape shape) {
  Tensor tensor = Tensor::zeros({DType::kF32, std::move(shape)});
  for (std::int64_t i = 0; i < n; ++i) tensor.mutable_data<float>()[static_cast<std::size_t>(i * n + i)] = 1;
  return tensor;
}

// The matrix of a linear map of [B,N,C] to [B,N',C'], over rows as vectors: [N'·C',N·C].
template <class F>
Value dense(const Module& m, std::int64_t n, std::int64_t c, const F& map) {
  require<ShapeError>(n * c <= kMostShown, m.graph.name(), "a matrix for at most {} values expected, got {} × {}",
                      kMostShown, n, c);
  const Value columns = map(m.graph.constant(identity(n * c, {n * c, n, c})));
  return permute(reshape(columns, {n * c, columns.shape().elements() / (n * c)}), {1, 0});
}

// y = A x B, of one picture's positions A and channels B.
void separable_mlp(const Module& m) {
  const std::int64_t n = m.option("N");
  const std::int64_t c = m.option("C");
  const Value a = m.param("A", {m.option("N_out"), n});
  const Value b = permute(m.param("B", {c, m.option("C_out")}), {1, 0});
  const auto map = [&](Value x) {
    return linear(permute(linear(permute(x, {0, 2, 1}), a, std::nullopt), {0, 2, 1}), b, std::nullopt);
  };
  m.output(map(m.input("x")));
  m.output(dense(m, n, c, map));
}

// y = U Vᵀ x, over positions and channels as one vector.
void low_rank_mlp(const Module& m) {
  const std::int64_t n = m.option("N");
  const std::int64_t c = m.option("C");
  const std::int64_t n_out = m.option("N_out");
  const std::int64_t c_out = m.option("C_out");
  const std::int64_t rank = m.option("rank");
  const Value u = m.param("U", {n_out * c_out, rank});
  const Value v = permute(m.param("V", {n * c, rank}), {1, 0});
  const auto map = [&](Value x) {
    const Value vector = reshape(x, {x.shape()[0], n * c});
    return reshape(linear(linear(vector, v, std::nullopt), u, std::nullopt), {x.shape()[0], n_out, c_out});
  };
  m.output(map(m.input("x")));
  m.output(dense(m, n, c, map));
}

// What a table of biases adds to the scores of one window, [heads,N,N] for N tokens row by row. Only for one that is
// the same in all directions, as a decay is: of the entries for a query, those of its keys lie in reading order.
Value scores_added(Value table, TokenGrid window) {
  const auto [height, width] = window;
  const std::int64_t heads = table.shape()[0];
  require<ShapeError>(window.tokens() <= kMostShown, "rmt", "a mask of at most {} tokens expected, got {}", kMostShown,
                      window.tokens());
  const Value by_distance = reshape(table, {heads, 2 * height - 1, 2 * width - 1});
  std::vector<Value> queries;
  for (std::int64_t y = 0; y < height; ++y) {
    for (std::int64_t x = 0; x < width; ++x) {
      const Value rows = slice(by_distance, 1, height - 1 - y, 2 * height - 1 - y);
      queries.push_back(reshape(slice(rows, 2, width - 1 - x, 2 * width - 1 - x), {heads, 1, height * width}));
    }
  }
  return queries.size() == 1 ? queries[0] : concat(queries, 1);
}

// RMT's attention on a grid [B,H,W,C], and the mask of decays: of the whole grid, or of a column and of a row.
void masa(const Module& m) {
  const Value x = m.map("x");
  const TokenGrid grid{x.shape()[1], x.shape()[2]};
  const std::int64_t channels = x.shape()[3];
  const Scope s(m.graph);
  const rmt::Masa masa(s["Relpos"], channels,
                       {.heads = m.option("num_heads"),
                        .grid = grid,
                        .decomposed = m.config.at("kind") == "decomposed",
                        .init_value = m.config.at("initial_value").get<double>(),
                        .heads_range = m.config.at("heads_range").get<double>()});
  m.output(reshape(masa(s["retention"], reshape(x, {x.shape()[0], grid.tokens(), channels})), x.shape()));
  const std::vector<TokenGrid> windows = masa.windows();
  for (std::size_t i = windows.size(); i-- > 0;) m.output(scores_added(masa.biases()[i], windows[i]));
}

// [B,C,H,W] as tokens [B,T,C], and back.
Value tokens_of(Value map) {
  const Value last = permute(map, {0, 2, 3, 1});  // channels
  const Shape& shape = last.shape();
  return reshape(last, {shape[0], shape[1] * shape[2], shape[3]});
}
Value map_of(Value tokens, const Shape& map) {
  return permute(reshape(tokens, {map[0], map[2], map[3], map[1]}), {0, 3, 1, 2});
}

// Attention within windows as they are, and shifted.
void local_attention_windows(const Module& m) {
  const Shape map = m.map("q").shape();
  const int window = m.option("window_size");
  WindowAttention attributes{.heads = m.option("num_heads"),
                             .height = static_cast<int>(map[2]),
                             .width = static_cast<int>(map[3]),
                             .window_h = window,
                             .window_w = window};
  const Value bias =
      permute(m.param("relative_position_bias_table", {attributes.bias_entries(), attributes.heads}), {1, 0});
  for (const int shift : {0, m.option("shift_size", 0)}) {
    attributes.shift_h = attributes.shift_w = shift;
    m.output(map_of(
        window_attention(tokens_of(m.input("q")), tokens_of(m.input("k")), tokens_of(m.input("v")), bias, attributes),
        map));
  }
}

// Attention to the window around each position: what is outside left out, or zeros.
void local_attention_sliding(const Module& m) {
  const Shape map = m.map("q").shape();
  SlidingAttention attributes{.heads = m.option("num_heads"),
                              .kernel_size = m.option("kernel_size"),
                              .height = static_cast<int>(map[2]),
                              .width = static_cast<int>(map[3])};
  const std::int64_t entries = std::int64_t{attributes.kernel_size} * attributes.kernel_size;
  const Value bias = permute(m.param("rel_bias", {entries, attributes.heads}), {1, 0});
  for (const SlidingBorder border : {SlidingBorder::kExcluded, SlidingBorder::kZeroPadding}) {
    attributes.border = border;
    m.output(map_of(
        sliding_attention(tokens_of(m.input("q")), tokens_of(m.input("k")), tokens_of(m.input("v")), bias, attributes),
        map));
  }
}

// DWNet's dynamic depth-wise convolutions, and the kernels that they compute.
void dynamic_convolution(const Module& m) {
  const Value x = permute(m.map("x"), {0, 2, 3, 1});
  const auto conv = dwnet::dynamic_conv(x, Scope(m.graph), m.option("kernel_size"), m.option("reduction"));
  m.output(permute(conv.y, {0, 3, 1, 2}));
  m.output(conv.kernels);
}

void inhomogeneous_convolution(const Module& m) {
  const int k = m.option("kernel_size");
  const std::int64_t taps = std::int64_t{k} * k;
  const Value x = permute(m.map("x"), {0, 2, 3, 1});
  const auto conv = dwnet::inhomogeneous_conv(x, Scope(m.graph), k, m.option("group_channels"));
  m.output(permute(conv.y, {0, 3, 1, 2}));
  const Shape shape = conv.kernels.shape();
  const Value kernels = reshape(conv.kernels, {shape[0], shape[1], shape[2], shape[3] / taps, k, k});
  m.output(permute(kernels, {0, 3, 4, 5, 1, 2}));
}

struct Entry {
  std::string_view system;
  const char* only_with;  // an option that tells the part from the whole model; null: none
  void (*build)(const Module&);
};
constexpr std::array kModules{
    Entry{"sep-mlp-op", nullptr, separable_mlp},
    Entry{"lowrank-mlp-op", nullptr, low_rank_mlp},
    Entry{"rmt", "kind", masa},
    Entry{"local-attention-op", "window_size", local_attention_windows},
    Entry{"local-attention-op", "kernel_size", local_attention_sliding},
    Entry{"ddw-op", nullptr, dynamic_convolution},
    Entry{"iddw-op", nullptr, inhomogeneous_convolution},
    Entry{"aft", "d_model", aft_with_table},
    Entry{"aft", "position_bias_dim", aft_with_factors},
    Entry{"aft", "ndim", aft_with_filters},
    Entry{"aft", "max_seqlen", aft_simple},
};

}  // namespace

std::unique_ptr<Graph> build_module(std::string_view system, const Json& config,
                                    const std::map<std::string, TensorType>& inputs) {
  for (const Entry& entry : kModules) {
    if (entry.system != system || (entry.only_with && !config.contains(entry.only_with))) continue;
    auto graph = std::make_unique<Graph>(std::string(system));
    Module module{.graph = *graph, .config = config, .inputs = {}};
    for (const auto& [name, type] : inputs) module.inputs.emplace(name, graph->input(name, type));
    entry.build(module);
    return graph;
  }
  return nullptr;
}

}  // namespace weft
