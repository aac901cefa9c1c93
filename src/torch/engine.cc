#include "torch/engine.h"

#include <torch/torch.h>

#include "core/format.h"
#include "torch/device.h"
#include "torch/executor.h"

namespace weft::torch_engine {
namespace {

using Weights = std::map<std::string, Tensor, std::less<>>;
using Tensors = std::vector<at::Tensor>;

class Engine final : public TorchEngine {
 public:
  explicit Engine(const TorchOptions& options) : execution_(open_device(options)) {}

  std::string description() const override { return describe(execution_.tensor); }

  std::vector<Tensor> run(const Graph& graph, const Weights& weights, std::span<const Tensor> inputs) override {
    return translated([&] {
      const c10::InferenceMode no_gradients;
      const Executor executor(graph, execution_);
      return from_torch_all(executor.forward(to_torch_all(inputs), parameters_of(graph, weights)));
    });
  }

  TorchGradients differentiate(const Graph& graph, const Weights& weights, std::span<const Tensor> inputs,
                               std::span<const Tensor> cotangents) override {
    require<ShapeError>(cotangents.size() == graph.outputs().size(), graph.name(),
                        "{} outputs need as many cotangents, got {}", graph.outputs().size(), cotangents.size());
    return translated([&] { return differentiate_all(graph, weights, inputs, cotangents); });
  }

 private:
  Tensors to_torch_all(std::span<const Tensor> tensors) const {
    Tensors result;
    for (const Tensor& tensor : tensors) result.push_back(to_torch(tensor, execution_.tensor));
    return result;
  }

  static std::vector<Tensor> from_torch_all(const Tensors& tensors) {
    std::vector<Tensor> result;
    for (const at::Tensor& tensor : tensors) result.push_back(from_torch(tensor));
    return result;
  }

  Tensors parameters_of(const Graph& graph, const Weights& weights) const {
    Tensors result;
    for (const int id : graph.parameters()) {
      const std::string& name = graph.value(id).name;
      const auto weight = weights.find(name);
      require<WeightError>(weight != weights.end(), graph.name(), "parameter {} has no weights", name);
      result.push_back(to_torch(weight->second, execution_.tensor));
    }
    return result;
  }

  TorchGradients differentiate_all(const Graph& graph, const Weights& weights, std::span<const Tensor> inputs,
                                   std::span<const Tensor> cotangents) const {
    const Executor executor(graph, execution_);
    const Tensors in = to_torch_all(inputs);
    const Tensors parameters = parameters_of(graph, weights);
    Tensors leaves = in;
    std::vector<std::string> names;  // of those that are parameters
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      const Graph::ValueInfo& info = graph.value(graph.parameters()[i]);
      if (info.buffer) continue;
      leaves.push_back(parameters[i]);
      names.push_back(info.name);
    }
    Tensors wanted;  // numbers of tokens have no gradient
    for (const at::Tensor& leaf : leaves) {
      if (leaf.is_floating_point()) wanted.push_back(leaf.requires_grad_());
    }
    const Tensors outputs = executor.forward(in, parameters);
    Tensors roots, root_cotangents;  // without outputs that depend on no leaf
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      require<ShapeError>(outputs[i].sizes() == at::IntArrayRef(cotangents[i].shape().extents().data(),
                                                                cotangents[i].shape().extents().size()),
                          graph.name(), "the cotangent of {} must be {}, got {}", graph.outputs()[i].name,
                          Shape(outputs[i].sizes().vec()), cotangents[i].shape());
      if (!outputs[i].requires_grad()) continue;
      roots.push_back(outputs[i]);
      root_cotangents.push_back(to_torch(cotangents[i], execution_.tensor));
    }
    Tensors gradients(wanted.size());
    if (!roots.empty() && !wanted.empty()) {
      gradients = torch::autograd::grad(roots, wanted, root_cotangents, /*retain_graph=*/false, /*create_graph=*/false,
                                        /*allow_unused=*/true);
    }
    TorchGradients result{.outputs = from_torch_all(outputs), .inputs = {}, .parameters = {}};
    auto next = gradients.begin();
    for (std::size_t i = 0; i < leaves.size(); ++i) {
      const at::Tensor made = leaves[i].is_floating_point() ? *next++ : at::Tensor();
      Tensor gradient = from_torch(made.defined() ? made : at::zeros(leaves[i].sizes(), execution_.tensor));
      if (i < in.size()) {
        result.inputs.push_back(std::move(gradient));
      } else {
        result.parameters.emplace(names[i - in.size()], std::move(gradient));
      }
    }
    return result;
  }

  ExecutorOptions execution_;
};

}  // namespace
}  // namespace weft::torch_engine

extern "C" __attribute__((visibility("default"))) weft::TorchEngine* weft_make_torch_engine(
    const char* version, const weft::TorchOptions& options) {
  weft::torch_engine::check_version(version);
  return weft::torch_engine::translated([&] { return new weft::torch_engine::Engine(options); });
}
