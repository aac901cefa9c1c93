#include "train/plan.h"

#include <charconv>
#include <cmath>
#include <numbers>

#include "core/format.h"
#include "ops/conv2d/conv2d.h"
#include "ops/depthwise_conv/depthwise_conv.h"
#include "ops/linear/linear.h"
#include "ops/patch_embed/patch_embed.h"

namespace weft {
namespace {

constexpr std::uint64_t kBranches = 0x6272616e;  // tells these random numbers from the loader's

// The number of the block that a name belongs to; −1 for none.
int block_of(std::string_view name, const Architecture& architecture) {
  const std::string_view prefix = architecture.block_prefix();
  if (!name.starts_with(prefix)) return -1;
  const std::string_view rest = name.substr(prefix.size());
  int block = -1;
  std::from_chars(rest.data(), rest.data() + rest.size(), block);
  return block;
}

// What a value is another shape of.
int seen_through(const Graph& graph, int id) {
  while (graph.value(id).kind == Graph::Kind::kResult) {
    const Graph::Node& maker = graph.nodes()[static_cast<std::size_t>(graph.value(id).node)];
    if (!maker.operation.is_view()) break;
    id = maker.inputs[0];
  }
  return id;
}

// Which values are the weights of a product or a convolution.
std::vector<bool> multiplying(const Graph& graph) {
  std::vector<bool> result(graph.values().size());
  for (const Graph::Node& node : graph.nodes()) {
    const Operation& op = node.operation;
    if (!op.as<Linear>() && !op.as<PatchEmbed>() && !op.as<Conv2d>() && !op.as<DepthwiseConv>()) continue;
    result[static_cast<std::size_t>(seen_through(graph, node.inputs[1]))] = true;
  }
  return result;
}

// Of each branch that may be dropped the number of its block, counted over all stages: branches of one block stand at
// one place, and behind one another.
std::vector<int> blocks_of_branches(const Graph& graph) {
  std::vector<int> blocks;
  std::string_view previous;
  for (const int id : graph.inputs().subspan(1)) {
    const std::string_view name = graph.value(id).name;
    const std::string_view place = name.substr(0, name.rfind('.'));
    blocks.push_back(blocks.empty() ? 0 : blocks.back() + (place == previous ? 0 : 1));
    previous = place;
  }
  return blocks;
}

}  // namespace

double learning_rate(const TrainConfig& config, std::int64_t step, std::int64_t warmup, std::int64_t steps) {
  if (step < warmup) return config.lr * static_cast<double>(step + 1) / static_cast<double>(warmup);
  const double way =
      static_cast<double>(step - warmup) / static_cast<double>(std::max<std::int64_t>(steps - warmup, 1));
  return config.min_lr + (config.lr - config.min_lr) * 0.5 * (1 + std::cos(std::numbers::pi * std::min(way, 1.0)));
}

std::unique_ptr<Graph> training_graph(const Architecture& architecture, const Shape& input, bool training) {
  if (const LanguageArchitecture* const language = architecture.language()) {
    // Trained or not: what is judged begins anew, too, and without states there is nothing to carry on.
    auto graph = std::make_unique<Graph>(std::string(architecture.family()), /*training=*/true);
    const Value tokens = graph->input("tokens", {DType::kI64, input});
    graph->output("logits", language->build(*graph, tokens, LogitsOf::kAll));
    return graph;
  }
  auto graph = std::make_unique<Graph>(std::string(architecture.family()), training);
  const Value image = graph->input("image", {DType::kF32, input});
  const ModelValues values = require_pictures(architecture).build(*graph, image, {});
  require<UnsupportedError>(values.logits.has_value(), "train", "the model is a bare backbone; give it a head");
  graph->output("logits", *values.logits);
  return graph;
}

std::vector<int> layers_of_parameters(const Graph& graph, const Architecture& architecture) {
  std::vector<int> layers;
  bool behind = false;
  for (const int id : graph.parameters()) {
    const int block = block_of(graph.value(id).name, architecture);
    behind = behind || block >= 0;
    layers.push_back(block >= 0 ? 1 + block : behind ? 1 + architecture.depth() : 0);
  }
  return layers;
}

std::vector<TrainedParameter> plan_parameters(const Graph& graph, const Architecture& architecture,
                                              const TrainConfig& config) {
  const int last = 1 + architecture.depth();
  const int frozen = config.freeze < 0 ? last : std::min(config.freeze, last);
  const std::vector<int> layers = layers_of_parameters(graph, architecture);
  const std::vector<bool> decays = multiplying(graph);
  std::vector<TrainedParameter> parameters;
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const int id = graph.parameters()[i];
    parameters.push_back({.name = graph.value(id).name,
                          .lr_scale = std::pow(config.layer_decay, last - layers[i]),
                          .weight_decay = decays[static_cast<std::size_t>(id)] ? config.weight_decay : 0,
                          .frozen = graph.value(id).buffer || layers[i] < frozen});
  }
  return parameters;
}

std::vector<Tensor> draw_branches(const Graph& graph, double drop_path, std::uint64_t seed, std::int64_t epoch,
                                  std::int64_t first) {
  std::vector<Tensor> branches;
  const std::vector<int> blocks = blocks_of_branches(graph);
  const int last = blocks.empty() ? 0 : std::max(blocks.back(), 1);
  for (std::size_t i = 1; i < graph.inputs().size(); ++i) {
    const Graph::ValueInfo& info = graph.value(graph.inputs()[i]);
    const double dropped = drop_path * blocks[i - 1] / last;
    Tensor branch(info.type);
    std::int64_t sample = first;
    for (float& keep : branch.mutable_data<float>()) {
      Random random({kBranches, seed, static_cast<std::uint64_t>(epoch), static_cast<std::uint64_t>(sample++), i});
      keep = random.chance(dropped) ? 0.0F : static_cast<float>(1 / (1 - dropped));
    }
    branches.push_back(std::move(branch));
  }
  return branches;
}

}  // namespace weft
