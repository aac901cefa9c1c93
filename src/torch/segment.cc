#include "torch/segment.h"

#include <algorithm>
#include <typeindex>
#include <unordered_map>

#include "core/format.h"
#include "torch/lowering.h"

namespace weft::torch_engine {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

template <class A>
Tensor lower_as(const Operation& operation, Inputs in, const Shape& out) {
  return lower(*operation.as<A>(), in, out);
}

using Lower = Tensor (*)(const Operation&, Inputs, const Shape&);

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

variable_list run_step(const Step& step, const variable_list& in, const Shape& out, bool bf16) {
  if (step.region) return step.region->forward(in);
  const Operation& operation = step.node->operation;
  if (!bf16 || !multiplies(operation)) return {lowering_of(operation)(operation, in, out)};
  variable_list rounded;
  for (const Tensor& tensor : in) rounded.push_back(tensor.to(at::kBFloat16));
  return {lowering_of(operation)(operation, rounded, out).to(at::kFloat)};
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
      variable_list results = run_step(step, operands, graph->value(step.outputs[0]).type.shape, bf16);
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
