#include "connect/mixing.h"

#include <algorithm>
#include <optional>

#include "ops/ops.h"

namespace weft {
namespace {

using Node = Graph::Node;

// What a question about a node needs to know.
struct Surroundings {
  const Graph& graph;
  const std::vector<Axes>& axes;

  const Shape& shape(int value) const { return graph.value(value).type.shape; }
};

bool always(const Surroundings&, const Node&) { return true; }

// A product is along the last axis.
bool along_positions(const Surroundings& s, const Node& node) {
  const Axes& axes = s.axes[static_cast<std::size_t>(node.inputs[0])];
  return !axes.empty() && (axes.back() == Axis::kPosition || axes.back() == Axis::kBoth);
}

// A kernel [..., kh, kw] of one position does not mix.
bool larger_than_one(const Surroundings& s, const Node& node) {
  const Shape& kernel = s.shape(node.inputs[1]);
  return kernel[-2] * kernel[-1] > 1;
}

std::optional<Grid> none(const Operation&) { return std::nullopt; }

template <class A>
std::optional<Grid> own(const Operation& operation) {
  const A& attributes = *operation.as<A>();
  return Grid{attributes.height, attributes.width};
}

// 0 × 0 is a line.
template <class A>
std::optional<Grid> own_if_any(const Operation& operation) {
  const A& attributes = *operation.as<A>();
  return attributes.height > 0 ? own<A>(operation) : std::nullopt;
}

// One line for each operation that mixes positions.
struct Mixer {
  std::string_view operation;
  std::size_t linear_in;  // which of its inputs
  bool (*mixes)(const Surroundings&, const Node&) = always;
  std::optional<Grid> (*grid)(const Operation&) = none;
};
constexpr Mixer kMixers[] = {
    {BiWkv::kName, 1},
    {CausalWkv::kName, 1},
    {TokenShift::kName, 0},
    {Aft::kName, 1, always, own_if_any<Aft>},
    {QShift::kName, 0, always, own<QShift>},
    {Attention::kName, 2},
    {WindowAttention::kName, 2, always, own<WindowAttention>},
    {SlidingAttention::kName, 2, always, own<SlidingAttention>},
    {Conv2d::kName, 0, larger_than_one},
    {DepthwiseConv::kName, 0, larger_than_one},
    {Involution::kName, 0},
    {Linear::kName, 0, along_positions},
};

const Mixer* find_mixer(const Surroundings& s, const Node& node) {
  for (const Mixer& mixer : kMixers) {
    if (mixer.operation != node.operation.name()) continue;
    const bool depends = !s.axes[static_cast<std::size_t>(node.inputs[mixer.linear_in])].empty();
    return depends && mixer.mixes(s, node) ? &mixer : nullptr;
  }
  return nullptr;
}

bool is_layout(const Node& node) { return node.operation.as<Reshape>() || node.operation.as<Permute>(); }

class Finder {
 public:
  Finder(const Graph& graph, const std::vector<Axes>& axes)
      : s_{graph, axes}, uses_(graph.values().size()), links_(graph.nodes().size()) {
    for (int i = 0; i < static_cast<int>(graph.nodes().size()); ++i) {
      for (const int id : node(i).inputs) uses_[static_cast<std::size_t>(id)].push_back(i);
    }
  }

  std::vector<Mixing> run() {
    std::vector<Mixing> found;
    for (int i = 0; i < static_cast<int>(s_.graph.nodes().size()); ++i) {
      const Mixer* mixer = find_mixer(s_, node(i));
      if (mixer == nullptr) continue;
      Mixing& single = links_[static_cast<std::size_t>(i)].emplace();
      single = {.kind = std::string(mixer->operation),
                .place = node(i).place,
                .steps = {{i, mixer->linear_in}},
                .from = node(i).inputs[mixer->linear_in],
                .to = node(i).outputs[0],
                .grid = mixer->grid(node(i).operation)};
      const std::optional<Mixing> composed = behind_another(single);
      if (auto whole = with_clear_ends(single)) found.push_back(std::move(*whole));
      if (!composed) continue;
      links_[static_cast<std::size_t>(i)] = composed;
      if (auto whole = with_clear_ends(*composed)) found.push_back(std::move(*whole));
    }
    return found;
  }

 private:
  const Node& node(int i) const { return s_.graph.nodes()[static_cast<std::size_t>(i)]; }

  // Positions and channels are told apart.
  bool clear(int value) const {
    const Axes& axes = s_.axes[static_cast<std::size_t>(value)];
    return !axes.empty() && std::ranges::find(axes, Axis::kBoth) == axes.end() &&
           std::ranges::find(axes, Axis::kPosition) != axes.end();
  }

  // The chain that ends in `last`, when layout alone lies between it and the mixer before it.
  std::optional<Mixing> behind_another(const Mixing& last) const {
    std::vector<Mixing::Step> between;
    for (int id = last.from;;) {
      const int maker = s_.graph.value(id).node;
      if (maker < 0) return std::nullopt;
      if (const std::optional<Mixing>& before = links_[static_cast<std::size_t>(maker)]) {
        Mixing chain = *before;
        chain.kind += ", " + last.kind;
        chain.steps.insert(chain.steps.end(), between.rbegin(), between.rend());
        chain.steps.insert(chain.steps.end(), last.steps.begin(), last.steps.end());
        chain.to = last.to;
        return chain;
      }
      if (!is_layout(node(maker))) return std::nullopt;
      between.push_back({maker, 0});
      id = node(maker).inputs[0];
    }
  }

  // Taken on by the layout around it, so far as is needed to tell positions and channels apart.
  std::optional<Mixing> with_clear_ends(Mixing mixing) const {
    while (!clear(mixing.from)) {
      const int maker = s_.graph.value(mixing.from).node;
      if (maker < 0 || !is_layout(node(maker))) return std::nullopt;
      mixing.steps.insert(mixing.steps.begin(), Mixing::Step{maker, 0});
      mixing.from = node(maker).inputs[0];
    }
    while (!clear(mixing.to)) {
      const std::vector<int>& uses = uses_[static_cast<std::size_t>(mixing.to)];
      if (uses.size() != 1 || !is_layout(node(uses[0]))) return std::nullopt;
      mixing.steps.push_back({uses[0], 0});
      mixing.to = node(uses[0]).outputs[0];
    }
    return mixing;
  }

  Surroundings s_;
  std::vector<std::vector<int>> uses_;        // nodes that read each value
  std::vector<std::optional<Mixing>> links_;  // of each mixer, the longest chain that ends there
};

}  // namespace

std::vector<Mixing> find_mixings(const Graph& graph, const std::vector<Axes>& axes) {
  return Finder(graph, axes).run();
}

}  // namespace weft
