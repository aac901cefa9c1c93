// From nodes to steps: constants folded, kernels made, activations absorbed, encoding steps put between.
#include <algorithm>
#include <string_view>

#include "core/format.h"
#include "cpu/plan_builder.h"
#include "kernel/encode.h"
#include "ops/elementwise/elementwise.h"
#include "ops/kernels.h"

namespace weft {
namespace {

constexpr std::string_view kEncode = "encode";

}  // namespace

void PlanBuilder::add(const Graph::Node& node) {
  const bool foldable = std::ranges::all_of(node.inputs, [&](int id) { return state(id).constant.has_value(); });
  if (node.operation.is_view()) {
    const int out = node.outputs[0];
    if (foldable) {
      state(out).constant = state(node.inputs[0]).constant->reshaped(graph_.value(out).type.shape);
    } else {
      alias(out, node.inputs[0]);
    }
    return;
  }
  if (!foldable && absorbed(node)) return;
  std::vector<TensorType> in, out;
  std::vector<const Tensor*> constants;
  for (const int id : node.inputs) {
    in.push_back(graph_.value(id).type);
    constants.push_back(state(id).constant ? &*state(id).constant : nullptr);
  }
  for (const int id : node.outputs) out.push_back(graph_.value(id).type);
  const KernelRequest request{.in = in,
                              .out = out,
                              .constants = constants,
                              .threads = workers_.count(),
                              .packs = packs_.get(),
                              .precision = foldable ? DType::kF32 : precision_};
  if (foldable) return fold(node, *make_lone_kernel(node.operation, request));
  std::unique_ptr<Kernel> kernel = make_kernel(node.operation, request);

  std::vector<int> inputs = node.inputs;
  int scales = -1;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (constants[i] && is_table(node, i)) {
      const bool as_bf16 = kernel->reads_bf16(static_cast<int>(i));
      inputs[i] = rounded(inputs[i], as_bf16 ? DType::kBF16 : DType::kF32);
      if (as_bf16) kernel->give_bf16(static_cast<int>(i));
      continue;
    }
    const DType encoding = kernel->encoding(static_cast<int>(i));
    if (encoding == DType::kF32) continue;
    const Encoded copy = encoded(inputs[i], encoding, node.place);
    inputs[i] = copy.rows;
    scales = copy.scales;
  }
  std::unique_ptr<RowKernel> decoder = kernel->make_decoder();
  const int result = node.outputs[0];
  const int raw = decoder ? new_value(state(result).bytes) : result;
  std::vector<int> outputs = node.outputs;
  outputs[0] = raw;
  append(std::move(kernel), std::string(node.operation.name()), node.place, node.operation.macs(in),
         {std::move(inputs), std::move(outputs)});
  if (decoder) append(std::move(decoder), "decode", node.place, 0, {{raw, scales}, {result}});
}

void PlanBuilder::fold(const Graph::Node& node, const Kernel& kernel) {
  std::vector<const std::byte*> in;
  std::vector<std::byte*> out;
  for (const int id : node.inputs) in.push_back(state(id).constant->raw());
  for (const int id : node.outputs) {
    state(id).constant.emplace(graph_.value(id).type);
    out.push_back(state(id).constant->mutable_raw());
  }
  Tensor scratch(DType::kU8, Shape{static_cast<std::int64_t>(kernel.scratch_bytes())});
  kernel.run({.in = in, .out = out, .scratch = scratch.mutable_raw(), .workers = workers_});
}

// Whether the kernel before an activation does it in passing: then both values are one.
bool PlanBuilder::absorbed(const Graph::Node& node) {
  const Activation activation = activation_of(node.operation);
  if (activation == Activation::kNone) return false;
  Kernel* const maker = sole_maker(node.inputs[0]);
  if (!maker || !maker->absorb(activation)) return false;
  alias(node.outputs[0], node.inputs[0]);
  return true;
}

// The maker of the node's input, when nobody else wants that input; else null.
Kernel* PlanBuilder::sole_maker(int id) {
  const int maker = root_of(id).maker;
  return wanted_once(id) && maker >= 0 ? step(maker).kernel.get() : nullptr;
}

bool PlanBuilder::wanted_once(int id) { return state(id).sole_view && consumers_[static_cast<std::size_t>(id)] == 1; }

// `id` is another name for the memory of `of`.
void PlanBuilder::alias(int id, int of) {
  state(id).root = state(of).root;
  state(id).sole_view = wanted_once(of);
}

int PlanBuilder::new_value(std::size_t bytes) {
  const int id = static_cast<int>(values_.size());
  ValueState& value = values_.emplace_back();
  value.root = id;
  value.bytes = bytes;
  return id;
}

// Whether input `i` of a node is a positional embedding: a constant of many rows in a sum, as large as a picture. In
// fewer bits it is rounded to bf16, whatever the batch that it is added to.
bool PlanBuilder::is_table(const Graph::Node& node, std::size_t i) {
  const Shape& shape = graph_.value(node.inputs[i]).type.shape;
  return precision_ != DType::kF32 && node.operation.as<Add>() && row_count(shape) > 1 &&
         shape[-1] == graph_.value(node.outputs[0]).type.shape[-1];
}

// A constant rounded to bf16, and stored as that or as f32.
int PlanBuilder::rounded(int id, DType stored) {
  const Tensor values = state(id).constant->to(DType::kBF16).to(stored);
  const int copy = new_value(values.bytes());
  state(copy).constant = values;
  return copy;
}

// The encoded form of a value: made so by its maker if nobody else wants it otherwise, else by a step of its own,
// unless there is one already.
PlanBuilder::Encoded PlanBuilder::encoded(int id, DType encoding, const std::string& place) {
  const Shape& shape = graph_.value(id).type.shape;
  const std::int64_t rows = row_count(shape);
  const std::size_t bytes = size_of(encoding) * static_cast<std::size_t>(shape.elements());
  Kernel* const maker = sole_maker(id);
  const bool same_rows = maker && maker->by_rows() && maker->by_rows()->rows() == rows;  // no view cuts them anew
  if (same_rows && maker->encode_output(encoding)) {
    root_of(id).bytes = bytes;
    Encoded own{state(id).root};
    if (encoding == DType::kI8) own.scales = new_scales(rows, operands(root_of(id).maker));
    return own;
  }
  const std::tuple key{state(id).root, encoding, shape[-1]};
  if (const auto found = encoded_.find(key); found != encoded_.end()) return found->second;
  Encoded copy{new_value(bytes)};
  Operands operands{{id}, {copy.rows}};
  if (encoding == DType::kI8) copy.scales = new_scales(rows, operands);
  encoded_.emplace(key, copy);
  append(make_encoder(encoding, rows, shape[-1]), std::string(kEncode), place, 0, std::move(operands));
  return copy;
}

// One RowScale per row, as the next output of these operands.
int PlanBuilder::new_scales(std::int64_t rows, Operands& maker) {
  const int id = new_value(sizeof(RowScale) * static_cast<std::size_t>(rows));
  state(id).maker = state(maker.outputs[0]).maker;
  maker.outputs.push_back(id);
  return id;
}

void PlanBuilder::append(std::unique_ptr<Kernel> kernel, std::string operation, std::string place, std::int64_t macs,
                         Operands operands) {
  const int index = static_cast<int>(plan_.steps_.size());
  for (const int id : operands.outputs) state(id).maker = index;
  const bool fits = operands.inputs.size() <= kMaxOperands && operands.outputs.size() <= kMaxOperands;
  require<UnsupportedError>(fits || !kernel->by_rows(), operation, "the CPU engine takes {} inputs at most",
                            kMaxOperands);
  plan_.steps_.push_back({std::move(kernel), std::move(operation), std::move(place), macs, 0, 0});
  operands_.push_back(std::move(operands));
}

// Encodes each value as soon as it is there: what is read while it is hot need not be kept. Parted kernels come
// directly behind one another where what they read is there, so that they run together. Then numbers the steps.
void PlanBuilder::schedule() {
  std::vector<std::size_t> order;
  std::vector<std::vector<std::size_t>> after(plan_.steps_.size());  // encoding steps, behind what they encode
  for (std::size_t i = 0; i < plan_.steps_.size(); ++i) {
    const int maker = plan_.steps_[i].operation == kEncode ? root_of(operands_[i].inputs[0]).maker : -1;
    if (maker >= 0) after[static_cast<std::size_t>(maker)].push_back(i);
  }
  std::vector<bool> placed(plan_.steps_.size());
  const auto put = [&](std::size_t i) {
    for (order.push_back(i), placed[i] = true; const std::size_t encoder : after[i]) {
      order.push_back(encoder);
      placed[encoder] = true;
    }
  };
  const auto is_there = [&](int id) {
    const int maker = root_of(id).maker;
    return maker < 0 || placed[static_cast<std::size_t>(maker)];
  };
  for (std::size_t i = 0; i < plan_.steps_.size(); ++i) {
    if (placed[i]) continue;
    std::vector<std::size_t> together{i};
    for (std::size_t j = i + 1; plan_.steps_[i].kernel->by_parts() && j < plan_.steps_.size(); ++j) {
      const bool joins = !placed[j] && plan_.steps_[j].kernel->by_parts();
      if (joins && std::ranges::all_of(operands_[j].inputs, is_there)) together.push_back(j);
    }
    for (const std::size_t next : together) put(next);
  }
  std::vector<Plan::Step> steps;
  std::vector<Operands> operands;
  for (const std::size_t old : order) {
    const int index = static_cast<int>(steps.size());
    const std::vector<int>& inputs = operands_[old].inputs;
    for (std::size_t j = 0; j < inputs.size(); ++j) root_of(inputs[j]).uses.push_back({index, static_cast<int>(j)});
    for (const int id : operands_[old].outputs) state(id).maker = index;
    steps.push_back(std::move(plan_.steps_[old]));
    operands.push_back(std::move(operands_[old]));
  }
  plan_.steps_ = std::move(steps);
  operands_ = std::move(operands);
}

}  // namespace weft
