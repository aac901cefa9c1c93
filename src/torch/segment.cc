#include "torch/segment.h"

#include <algorithm>
#include <typeindex>
#include <unordered_map>

#include "core/format.h"
#include "torch/by_entries.h"
#include "torch/lowering.h"

namespace weft::torch_engine {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

template <class A>
Results lower_as(const Operation& operation, Inputs in, const Setting& setting) {
  return lower(*operation.as<A>(), in, setting);
}

using Lower = Results (*)(const Operation&, Inputs, const Setting&);

Lower lowering_of(const Operation& operation) {
  static const std::unordered_map<std::type_index, Lower> table = {
#define WEFT_OP(Attributes, room) {typeid(weft::Attributes), &lower_as<weft::Attributes>},
#include "ops/ops.def"
#undef WEFT_OP
  };
  const auto found = table.find(operation.type());
  require<UnsupportedError>(found != table.end(), "torch", "{} has no line in ops.def", operation.name());
  return found->second;
}

std::size_t index(int id) { return static_cast<std::size_t>(id); }

bool multiplies(const Operation& operation) {
  return operation.as<Linear>() || operation.as<PatchEmbed>() || operation.as<Attention>();
}

variable_list run_node(const Operation& operation, Inputs in, const Setting& setting, bool bf16) {
  if (!bf16 || !multiplies(operation)) return lowering_of(operation)(operation, in, setting).tensors;
  variable_list rounded;
  for (const Tensor& tensor : in) rounded.push_back(tensor.to(at::kBFloat16));
  variable_list results = lowering_of(operation)(operation, rounded, setting).tensors;
  for (Tensor& result : results) result = result.to(at::kFloat);
  return results;
}

variable_list run_step(const Step& step, const variable_list& in, const Setting& setting, bool bf16) {
  if (step.region) return step.region->forward(in);
  const Operation& operation = step.node->operation;
  if (step.entries == 0) return run_node(operation, in, setting, bf16);
  const auto part = [operation, whole = setting.out, workers = setting.workers, bf16](Inputs of) {
    std::vector<std::int64_t> sizes(whole.extents().begin(), whole.extents().end());
    sizes[0] = of[0].size(0);
    const Shape out(std::move(sizes));
    return run_node(operation, of, {.out = out, .workers = workers}, bf16)[0];
  };
  return {run_by_entries({.run = part, .out = setting.out, .entries = step.entries, .workers = setting.workers}, in)};
}

struct Record : torch::CustomClassHolder {
  explicit Record(std::shared_ptr<const Segment> recorded) : segment(std::move(recorded)) {}
  std::shared_ptr<const Segment> segment;
};

struct Recomputed : public Function<Recomputed> {
  static variable_list forward(AutogradContext* context, const c10::intrusive_ptr<Record>& record,
                               at::TensorList inputs) {
    context->save_for_backward(inputs.vec());
    context->saved_data["record"] = c10::IValue::make_capsule(record);
    return record->segment->run(inputs.vec());
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    require<UnsupportedError>(!at::GradMode::is_enabled(), "torch",
                              "what is recomputed can be differentiated once only");
    const auto capsule = context->saved_data["record"].toCapsule();
    const Segment& segment = *static_cast<const Record&>(*capsule).segment;
    variable_list in, wanted;
    for (const Tensor& saved : context->get_saved_variables()) {
      in.push_back(saved.detach().requires_grad_(saved.requires_grad()));
      if (saved.requires_grad()) wanted.push_back(in.back());
    }
    variable_list roots, cotangents;
    {
      const torch::AutoGradMode record(true);
      const variable_list outputs = segment.run(in);
      for (std::size_t i = 0; i < outputs.size(); ++i) {
        if (!outputs[i].requires_grad()) continue;
        roots.push_back(outputs[i]);
        cotangents.push_back(gradients[i]);
      }
    }
    const variable_list made = torch::autograd::grad(roots, wanted, cotangents, /*retain_graph=*/false,
                                                     /*create_graph=*/false, /*allow_unused=*/true);
    variable_list result(1);  // nothing for the record
    auto next = made.begin();
    for (const Tensor& input : in) result.push_back(input.requires_grad() ? *next++ : Tensor());
    return result;
  }
};

}  // namespace

std::vector<Tensor> Segment::run(std::vector<Tensor> in) const {
  variable_list values(graph->values().size());
  for (std::size_t i = 0; i < in.size(); ++i) values[index(inputs[i])] = std::move(in[i]);
  variable_list operands;
  for (const Step& step : steps) {
    operands.clear();
    for (const int id : step.inputs) operands.push_back(values[index(id)]);
    try {
      const Setting setting{.out = graph->value(step.outputs[0]).type.shape, .workers = workers};
      variable_list results = run_step(step, operands, setting, bf16);
      for (std::size_t i = 0; i < results.size(); ++i) values[index(step.outputs[i])] = std::move(results[i]);
    } catch (c10::Error& error) {
      error.add_context(fmt::format("at {} {}", step.node->place, step.node->operation.name()));
      throw;
    }
    for (const int id : step.dead) values[index(id)].reset();
  }
  variable_list result;
  for (const int id : outputs) result.push_back(values[index(id)]);
  return result;
}

std::vector<Tensor> run_recomputing(const std::shared_ptr<const Segment>& segment, const std::vector<Tensor>& in) {
  return Recomputed::apply(c10::make_intrusive<Record>(segment), at::TensorList(in));
}

}  // namespace weft::torch_engine
