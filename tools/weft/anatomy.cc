#include "anatomy.h"

#include <algorithm>
#include <string_view>

#include "cpu/memory_plan.h"
#include "graph/dependence.h"

namespace weft::cli {
namespace {

struct PartName {
  std::string part;
  std::string within;  // empty for a part that is not numbered
};

bool is_number(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
}

// "backbone.layers.3.att.key.weight" → "backbone.layers.3", "att"; "backbone.patch_embed.projection.bias" →
// "backbone.patch_embed"; "norm.weight" → "norm".
PartName part_name(std::string_view place) {
  std::vector<std::string_view> words;
  for (std::size_t begin = 0; begin <= place.size();) {
    const std::size_t end = std::min(place.find('.', begin), place.size());
    words.push_back(place.substr(begin, end - begin));
    begin = end + 1;
  }
  const auto number = std::ranges::find_if(words, is_number);
  const auto up_to = [&](std::size_t count) {  // words are views into `place`, one after the other
    const std::string_view last = words[std::min(count, words.size()) - 1];
    return std::string(place.substr(0, static_cast<std::size_t>(last.data() + last.size() - place.data())));
  };
  if (number == words.end()) {
    const bool is_leaf = words.size() > 1 && (words.back() == "weight" || words.back() == "bias");
    return {up_to(is_leaf ? std::min<std::size_t>(words.size() - 1, 2) : 2), ""};
  }
  const auto index = static_cast<std::size_t>(number - words.begin());
  return {up_to(index + 1), index + 1 < words.size() ? std::string(words[index + 1]) : ""};
}

Part& named(std::vector<Part>& parts, const std::string& name) {
  const auto found = std::ranges::find(parts, name, &Part::name);
  return found != parts.end() ? *found : parts.emplace_back(Part{.name = name});
}

void count(std::vector<Part>& parts, std::string_view place, std::int64_t parameters, std::int64_t macs) {
  const PartName name = part_name(place);
  Part& part = named(parts, name.part);
  part.parameters += parameters;
  part.macs += macs;
  if (name.within.empty()) return;
  Part& within = named(part.parts, name.within);
  within.parameters += parameters;
  within.macs += macs;
}

}  // namespace

std::vector<Part> parts_of(const Graph& graph) {
  std::vector<Part> parts;
  for (const int id : graph.parameters()) {
    const Graph::ValueInfo& parameter = graph.value(id);
    if (!parameter.buffer) count(parts, parameter.name, parameter.type.shape.elements(), 0);
  }
  const std::vector<bool> depends = depends_on_inputs(graph);
  for (const Graph::Node& node : graph.nodes()) {
    std::vector<TensorType> types;
    std::string_view place = node.place;
    for (const int id : node.inputs) {
      types.push_back(graph.value(id).type);
      if (place.data() == node.place.data() && graph.value(id).kind == Graph::Kind::kParameter) {
        place = graph.value(id).name;
      }
    }
    const bool once = !depends[static_cast<std::size_t>(node.outputs.front())];  // counts as Graph::macs does
    const std::int64_t macs = once ? 0 : node.operation.macs(types);
    if (macs > 0) count(parts, place, 0, macs);
  }
  return parts;
}

std::int64_t live_bytes(const Graph& graph) {
  const auto index = [](int id) { return static_cast<std::size_t>(id); };
  std::vector<int> root(graph.values().size());  // the value whose memory a view shows
  for (std::size_t id = 0; id < root.size(); ++id) root[id] = static_cast<int>(id);
  std::vector<Lifetime> lifetimes(graph.values().size());
  int step = 0;
  for (const Graph::Node& node : graph.nodes()) {
    for (const int id : node.inputs) lifetimes[index(root[index(id)])].last = step;
    for (const int id : node.outputs) {
      if (node.operation.is_view()) {
        root[index(id)] = root[index(node.inputs[0])];
      } else {
        lifetimes[index(id)] = {.bytes = graph.value(id).type.bytes(), .first = step, .last = step};
      }
    }
    ++step;
  }
  for (const Graph::Output& output : graph.outputs()) lifetimes[index(root[index(output.value)])].last = step;
  std::erase_if(lifetimes, [](const Lifetime& lifetime) { return lifetime.bytes == 0; });
  return static_cast<std::int64_t>(plan_memory(lifetimes).bytes);
}

}  // namespace weft::cli
