#include "torch/trainer.h"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <string_view>
#include <tuple>

#include "core/format.h"
#include "torch/device.h"
#include "torch/exchange.h"
#include "torch/executor.h"
#include "torch/gradient_buckets.h"

namespace weft::torch_engine {
namespace {

using Tensors = std::vector<at::Tensor>;

// Parameters lie behind one another in flat tensors, so that an optimiser's step is a few passes over memory whatever
// their number. Parameters of equal treatment are neighbours; those that are frozen come last.
class Layout {
 public:
  struct Place {
    std::int64_t offset = 0;
    Shape shape;
  };
  // Neighbours that share learning rate and weight decay.
  struct Group {
    double lr_scale = 1;
    double weight_decay = 0;
    std::int64_t begin = 0;
    std::int64_t end = 0;
  };

  Layout(const Graph& graph, std::span<const TrainedParameter> parameters) : parameters_(parameters.size()) {
    require<WeightError>(graph.parameters().size() == parameters.size(), "trainer", "{} parameters expected, got {}",
                         graph.parameters().size(), parameters.size());
    std::vector<std::size_t> order(parameters.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
    const auto treatment = [&](std::size_t i) {
      const TrainedParameter& p = parameters[i];
      return std::tuple(p.frozen, p.lr_scale, p.weight_decay);
    };
    std::ranges::stable_sort(order, {}, treatment);
    for (const std::size_t i : order) {
      const Graph::ValueInfo& info = graph.value(graph.parameters()[i]);
      require<WeightError>(info.name == parameters[i].name, "trainer", "parameter {} expected, got {}", info.name,
                           parameters[i].name);
      parameters_[i] = {.offset = size_, .shape = info.type.shape};
      const auto& [frozen, lr_scale, weight_decay] = treatment(i);
      if (!frozen &&
          (groups_.empty() || groups_.back().lr_scale != lr_scale || groups_.back().weight_decay != weight_decay)) {
        groups_.push_back({lr_scale, weight_decay, size_, size_});
      }
      constexpr std::int64_t kAlignment = 16;  // elements: a cache line
      size_ += (info.type.shape.elements() + kAlignment - 1) / kAlignment * kAlignment;
      if (frozen) continue;
      groups_.back().end = size_;
      trained_ = size_;
    }
  }

  std::int64_t size() const { return size_; }
  std::int64_t trained() const { return trained_; }  // elements that are not frozen: the first ones
  std::span<const Group> groups() const { return groups_; }
  std::size_t count() const { return parameters_.size(); }
  bool frozen(std::size_t i) const { return parameters_[i].offset >= trained_; }
  // Parameter i within a flat tensor.
  at::Tensor view(const at::Tensor& flat, std::size_t i) const {
    const Place& place = parameters_[i];
    return flat.narrow(0, place.offset, place.shape.elements()).view(extents(place.shape));
  }

 private:
  std::vector<Place> parameters_;
  std::vector<Group> groups_;
  std::int64_t size_ = 0;
  std::int64_t trained_ = 0;
};

bool all_finite(const at::Tensor& x) { return at::isfinite(x).all().item<bool>(); }

// Nothing for a process that trains alone.
std::shared_ptr<Exchange> exchange_of(const TrainerOptions& options) {
  if (!options.processes || options.processes->world() == 1) return nullptr;
  auto exchange = std::dynamic_pointer_cast<Exchange>(options.processes);
  require<ConfigError>(exchange != nullptr, "trainer", "the processes must be those of load_torch_processes");
  return exchange;
}

class TorchTrainer final : public Trainer {
 public:
  TorchTrainer(const TrainerOptions& options, const TrainingStart& start)
      : options_(options),
        execution_(open_device(options.torch)),
        tensors_(execution_.tensor),
        make_graph_(start.graph),
        parameters_(start.parameters),
        layout_(*start.graph(start.input, true), parameters_),
        exchange_(exchange_of(options)) {
    const auto graph = start.graph(start.input, true);
    weights_ = at::zeros({layout_.size()}, tensors_);
    gradients_ = at::zeros({layout_.trained()}, tensors_);
    first_ = at::zeros_like(gradients_);
    second_ = at::zeros_like(gradients_);
    fill(weights_, start.weights, "weights");
    from_first(weights_);
    for (std::size_t i = 0; i < layout_.count(); ++i) {
      at::Tensor leaf = layout_.view(weights_, i).detach();
      if (!layout_.frozen(i)) {
        leaf.requires_grad_();
        leaf.mutable_grad() = layout_.view(gradients_, i);  // where autograd adds to
      }
      leaves_.push_back(std::move(leaf));
      if (graph->value(graph->parameters()[i]).buffer) buffers_.push_back(i);
    }
    if (options_.ema > 0) average_ = weights_.clone();
    if (exchange_) buckets_.emplace(*exchange_, gradients_, leaves_, options_.bucket_bytes);
  }

  std::string description() const override { return describe(tensors_); }

  StepResult step(std::span<const TrainingBatch> batches, double learning_rate) override {
    return translated([&] {
      StepResult result;
      gradients_.zero_();
      BufferKeeper buffers(*this);
      const double world = exchange_ ? exchange_->world() : 1;
      for (const TrainingBatch& batch : batches) {
        Tensors updates;
        const at::Tensor loss = loss_of(batch, updates) / (static_cast<double>(batches.size()) * world);
        result.loss += loss.item<double>() * world;
        if (!std::isfinite(result.loss)) fail_forward(batch);
        if (buckets_ && &batch == &batches.back()) buckets_->begin();
        if (loss.requires_grad()) loss.backward();
        update_buffers(updates);
      }
      if (exchange_) average_buffers();
      if (buckets_) buckets_->finish();
      const torch::NoGradGuard no_gradients;
      result.gradient_norm = at::linalg_vector_norm(gradients_, 2, c10::nullopt, false, at::kDouble).item<double>();
      if (exchange_) average(result);
      if (!std::isfinite(result.gradient_norm)) fail_backward();
      if (options_.clip_norm > 0 && result.gradient_norm > options_.clip_norm) {
        gradients_.mul_(options_.clip_norm / result.gradient_norm);
      }
      buffers.keep();
      update(learning_rate);
      return result;
    });
  }

  Tensor logits(const Tensor& input) override {
    return translated([&] {
      const c10::InferenceMode no_gradients;
      const Prepared& prepared = prepare(used_, input.shape(), false);
      Tensors parameters;
      for (std::size_t i = 0; i < layout_.count(); ++i) parameters.push_back(layout_.view(in_use(), i));
      return from_torch(prepared.executor->forward(std::array{to_torch(input, tensors_)}, parameters)[0]);
    });
  }

  TrainerState::Tensors weights() const override {
    return translated([&] { return by_name(in_use(), true); });
  }

  TrainerState state() const override {
    return translated([&] {
      return TrainerState{.steps = steps_,
                          .weights = by_name(weights_, true),
                          .first = by_name(first_, false),
                          .second = by_name(second_, false),
                          .average = average_.defined() ? by_name(average_, true) : TrainerState::Tensors()};
    });
  }

  void restore(const TrainerState& state) override {
    translated([&] {
      const torch::NoGradGuard no_gradients;
      const bool own = !exchange_ || exchange_->rank() == 0;
      const auto each = [&](auto&& part) {
        part(weights_, state.weights, "weights");
        part(first_, state.first, "first moments");
        part(second_, state.second, "second moments");
        if (average_.defined()) part(average_, state.average, "averages");
      };
      // All of it or nothing.
      if (own) each([&](auto&... of) { require_fits(of...); });
      each([&](const at::Tensor& flat, const TrainerState::Tensors& tensors, std::string_view what) {
        if (own) fill(flat, tensors, what);
        from_first(flat);
      });
      steps_ = state.steps;
    });
  }

 private:
  struct Prepared {
    std::unique_ptr<Graph> graph;
    std::unique_ptr<Executor> executor;
  };

  void from_first(const at::Tensor& flat) const {
    if (exchange_) exchange_->copy_from_first(flat, "weights from rank 0");
  }

  // The norm, too, which all compute from the same bits: other numbers of threads may sum in another order.
  void average(StepResult& result) const {
    std::array values = {result.loss, result.gradient_norm};
    exchange_->sum(values, Pace::kStep, "the losses of the others");
    result = {.loss = values[0] / exchange_->world(), .gradient_norm = values[1] / exchange_->world()};
  }

  // The weights that a model is used with.
  const at::Tensor& in_use() const { return average_.defined() ? average_ : weights_; }

  // A graph for training has its updates as further outputs.
  const Prepared& prepare(Prepared& prepared, const Shape& input, bool training) {
    if (!prepared.graph || prepared.graph->value(prepared.graph->inputs()[0]).type.shape != input) {
      const c10::InferenceMode off(false);
      Prepared next{.graph = make_graph_(input, training), .executor = nullptr};
      for (const Graph::Update& update : next.graph->updates()) {
        next.graph->output("update", Value(*next.graph, update.value));
      }
      next.executor = std::make_unique<Executor>(*next.graph, execution_);
      prepared = std::move(next);
    }
    return prepared;
  }

  // Buffers as they are, brought back unless the step succeeds.
  class BufferKeeper {
   public:
    explicit BufferKeeper(TorchTrainer& trainer) : trainer_(trainer) {
      const torch::NoGradGuard no_gradients;
      for (const std::size_t i : trainer.buffers_) before_.push_back(trainer.leaves_[i].clone());
    }
    BufferKeeper(const BufferKeeper&) = delete;
    ~BufferKeeper() {
      const torch::NoGradGuard no_gradients;
      try {
        for (std::size_t i = 0; i < before_.size(); ++i) trainer_.leaves_[trainer_.buffers_[i]].copy_(before_[i]);
      } catch (const std::exception&) {
        // A device that fails here has failed the step, and says so.
      }
    }
    void keep() { before_.clear(); }

   private:
    TorchTrainer& trainer_;
    Tensors before_;
  };

  // After the backward pass, which may not see its weights change: they lie in the same memory.
  void update_buffers(const Tensors& updates) {
    const torch::NoGradGuard no_gradients;
    for (std::size_t i = 0; i < updates.size(); ++i) {
      const int buffer = training_.graph->updates()[i].buffer;
      const auto at = std::ranges::find(training_.graph->parameters(), buffer);
      const std::size_t parameter = static_cast<std::size_t>(at - training_.graph->parameters().begin());
      if (!all_finite(updates[i])) {
        fail<NumericError>(parameters_[parameter].name, "is not finite after step {}; {}", steps_, remedy());
      }
      leaves_[parameter].copy_(updates[i]);
    }
  }

  // Statistics of all processes are what each goes on with.
  void average_buffers() const {
    if (buffers_.empty()) return;
    const torch::NoGradGuard no_gradients;
    Tensors parts;
    for (const std::size_t i : buffers_) parts.push_back(leaves_[i].reshape({-1}));
    const at::Tensor all = at::cat(parts);
    exchange_->begin_sum(all, "running statistics")();
    all.div_(exchange_->world());
    std::int64_t begin = 0;
    for (const std::size_t i : buffers_) {
      const std::int64_t count = leaves_[i].numel();
      leaves_[i].copy_(all.narrow(0, begin, count).view_as(leaves_[i]));
      begin += count;
    }
  }

  Tensors inputs_of(const TrainingBatch& batch) const {
    Tensors in = {to_torch(batch.input, tensors_)};
    for (const Tensor& branch : batch.branches) in.push_back(to_torch(branch, tensors_));
    return in;
  }

  at::Tensor loss_of(const TrainingBatch& batch, Tensors& updates) {
    Tensors outputs = prepare(training_, batch.input.shape(), true).executor->forward(inputs_of(batch), leaves_);
    const at::Tensor logits = outputs[0];
    updates.assign(outputs.begin() + 1, outputs.end());
    const bool by_number = batch.targets.dtype() == DType::kI64;
    const at::IntArrayRef expected = by_number ? logits.sizes().slice(0, logits.sizes().size() - 1) : logits.sizes();
    const at::Tensor targets = to_torch(batch.targets, tensors_);
    require<ShapeError>(targets.sizes() == expected, "trainer", "targets must be {}, got {}", Shape(expected.vec()),
                        batch.targets.shape());
    if (by_number) return at::cross_entropy_loss(logits.reshape({-1, logits.size(-1)}), targets.reshape({-1}));
    return -(targets * at::log_softmax(logits, -1)).sum(-1).mean();
  }

  void update(double learning_rate) {
    ++steps_;
    const auto t = static_cast<double>(steps_);
    const auto [beta1, beta2] = options_.betas;
    const double first_correction = 1 - std::pow(beta1, t);
    const double second_correction = std::sqrt(1 - std::pow(beta2, t));
    first_.lerp_(gradients_, 1 - beta1);
    second_.mul_(beta2).addcmul_(gradients_, gradients_, 1 - beta2);
    const at::Tensor scale = second_.sqrt().div_(second_correction).add_(options_.eps);
    for (const Layout::Group& group : layout_.groups()) {
      const auto part = [&](const at::Tensor& flat) { return flat.slice(0, group.begin, group.end); };
      const double rate = learning_rate * group.lr_scale;
      at::Tensor weights = part(weights_);
      if (group.weight_decay != 0) weights.mul_(1 - rate * group.weight_decay);
      weights.addcdiv_(part(first_), part(scale), -rate / first_correction);
    }
    if (average_.defined()) average_.lerp_(weights_, 1 - std::min(options_.ema, (1 + t) / (10 + t)));
  }

  // The forward pass once more, with everything on it looked at.
  [[noreturn]] void fail_forward(const TrainingBatch& batch) {
    const torch::NoGradGuard no_gradients;
    for (std::size_t i = 0; i < layout_.count(); ++i) {
      if (!all_finite(leaves_[i])) {
        fail<NumericError>(parameters_[i].name, "the weights are no longer finite after {} steps; {}", steps_,
                           remedy());
      }
    }
    const Tensors in = inputs_of(batch);
    const std::unique_ptr<Graph> graph = make_graph_(batch.input.shape(), true);
    for (std::size_t i = 0; i < in.size(); ++i) {
      if (all_finite(in[i])) continue;
      fail<NumericError>("trainer", "the input {} is not finite at step {}", graph->value(graph->inputs()[i]).name,
                         steps_);
    }
    std::vector<const Graph::Node*> nodes;
    for (const Graph::Node& node : graph->nodes()) nodes.push_back(&node);
    for (const Graph::Node* const node : nodes) graph->output("", Value(*graph, node->outputs[0]));
    ExecutorOptions one_by_one = execution_;
    one_by_one.fused = false;
    const Tensors values = Executor(*graph, one_by_one).forward(in, leaves_);
    for (std::size_t i = 0; i < nodes.size(); ++i) {  // behind the logits
      if (all_finite(values[i + 1])) continue;
      fail<NumericError>(nodes[i]->place.empty() ? graph->name() : nodes[i]->place,
                         "{} gave a NaN or an infinity at step {}, the first to do so; {}", nodes[i]->operation.name(),
                         steps_, remedy());
    }
    fail<NumericError>("loss", "is NaN or infinite at step {} from finite logits: are the targets finite?", steps_);
  }

  // Backward goes from the last layer to the first.
  [[noreturn]] void fail_backward() const {
    for (std::size_t i = layout_.count(); i-- > 0;) {
      if (layout_.frozen(i) || all_finite(leaves_[i].grad())) continue;
      fail<NumericError>(parameters_[i].name,
                         "its gradient at step {} has a NaN or an infinity, the first on the way back; {}", steps_,
                         remedy());
    }
    fail<NumericError>("trainer", "the norm of the gradient at step {} is beyond f64", steps_);
  }
  static std::string_view remedy() { return "lower lr, set clip, or look at the data"; }

  TrainerState::Tensors by_name(const at::Tensor& flat, bool with_frozen) const {
    TrainerState::Tensors result;
    for (std::size_t i = 0; i < layout_.count(); ++i) {
      if (layout_.frozen(i) && !with_frozen) continue;
      result.emplace(parameters_[i].name, from_torch(layout_.view(flat, i)));
    }
    return result;
  }

  // Calls f(target, tensor) for each parameter that the flat tensor has, and its tensor among these.
  template <class F>
  void for_each(const at::Tensor& flat, const TrainerState::Tensors& tensors, std::string_view what, F&& f) const {
    const bool with_frozen = flat.numel() == layout_.size();
    for (std::size_t i = 0; i < layout_.count(); ++i) {
      if (layout_.frozen(i) && !with_frozen) continue;
      const auto tensor = tensors.find(parameters_[i].name);
      require<WeightError>(tensor != tensors.end(), "trainer", "{} has no {}", parameters_[i].name, what);
      const at::Tensor target = layout_.view(flat, i);
      require<WeightError>(tensor->second.shape() == Shape(target.sizes().vec()), "trainer",
                           "{} of {} must be {}, got {}", what, parameters_[i].name, Shape(target.sizes().vec()),
                           tensor->second.shape());
      f(target, tensor->second);
    }
  }

  void require_fits(const at::Tensor& flat, const TrainerState::Tensors& tensors, std::string_view what) const {
    for_each(flat, tensors, what, [](const at::Tensor&, const Tensor&) {});
  }

  void fill(const at::Tensor& flat, const TrainerState::Tensors& tensors, std::string_view what) const {
    for_each(flat, tensors, what,
             [&](const at::Tensor& target, const Tensor& tensor) { target.copy_(to_torch(tensor, tensors_)); });
  }

  TrainerOptions options_;
  ExecutorOptions execution_;
  at::TensorOptions tensors_;
  TrainingGraph make_graph_;
  std::vector<TrainedParameter> parameters_;
  Layout layout_;
  Prepared training_, used_;
  std::vector<std::size_t> buffers_;  // those of the parameters that are
  std::int64_t steps_ = 0;
  at::Tensor weights_, average_;           // of all parameters
  at::Tensor gradients_, first_, second_;  // of those that are not frozen
  Tensors leaves_;                         // views of weights_, in the graph's order
  std::shared_ptr<Exchange> exchange_;     // with other processes, if any
  std::optional<GradientBuckets> buckets_;
};

}  // namespace
}  // namespace weft::torch_engine

extern "C" __attribute__((visibility("default"))) weft::Trainer* weft_make_torch_trainer(
    const char* version, const weft::TrainerOptions& options, const weft::TrainingStart& start) {
  weft::torch_engine::check_version(version);
  return weft::torch_engine::translated([&] { return new weft::torch_engine::TorchTrainer(options, start); });
}
