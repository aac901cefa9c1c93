#include <algorithm>
#include <chrono>
#include <cmath>
#include <future>
#include <list>
#include <mutex>
#include <numeric>

#include "api/compiled.h"
#include "api/memory_limit.h"
#include "api/model_data.h"
#include "core/format.h"
#include "graph/dependence.h"
#include "kernel/onednn.h"
#include "weft/model.h"

namespace weft {
namespace {

// Of this file, so that nothing that futures make of it is seen from outside of a shared library.
class CompiledShape final : public Compiled {
 public:
  using Compiled::Compiled;
};

// Bytes of everything that a plan computes once from weights: resized positional embeddings grow with the picture.
std::size_t folded_bytes(const Graph& graph) {
  const std::vector<bool> depends = depends_on_inputs(graph);
  std::size_t bytes = 0;
  for (const Graph::Node& node : graph.nodes()) {
    for (const int id : node.outputs) {
      if (!depends[static_cast<std::size_t>(id)] && !node.operation.is_view()) bytes += graph.value(id).type.bytes();
    }
  }
  return bytes;
}

std::vector<Prediction> best(std::span<const float> logits, const std::vector<std::string>& labels, int top) {
  // Without this an ordering by logit would be none.
  require<Error>(std::ranges::all_of(logits, [](float x) { return std::isfinite(x); }), "session",
                 "the model's logits are not finite: its weights or the input leave the range of f32");
  const double largest = *std::ranges::max_element(logits);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - largest);
  std::vector<int> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto count = std::min(static_cast<std::size_t>(std::max(top, 0)), order.size());
  const auto by_logit = [&](int a, int b) {  // ties in the order of the classes
    const float x = logits[static_cast<std::size_t>(a)];
    const float y = logits[static_cast<std::size_t>(b)];
    return x != y ? x > y : a < b;
  };
  std::ranges::partial_sort(order, order.begin() + static_cast<std::ptrdiff_t>(count), by_logit);
  std::vector<Prediction> predictions;
  for (const int index : std::span(order).first(count)) {
    const auto i = static_cast<std::size_t>(index);
    predictions.push_back({.label = labels.empty() ? fmt::format("class {}", index) : labels[i],
                           .probability = std::exp(logits[i] - largest) / sum,
                           .index = index});
  }
  return predictions;
}

}  // namespace

struct Session::Impl {
  Impl(Model wanted, const SessionOptions& options)
      : model(std::move(wanted)), workers(options.threads), dtype(options.dtype), max_memory(options.max_memory) {
    validate(options);
    (void)require_pictures(*model.data().architecture);
    // Converted here, once: plans of all shapes share the packed forms of these very tensors.
    for (const auto& [name, tensor] : model.data().weights) weights.emplace(name, tensor.to(DType::kF32));
  }

  struct Key {
    Shape input;
    std::vector<int> layers;
    bool operator==(const Key&) const = default;
  };

  using Compiling = std::shared_future<std::shared_ptr<CompiledShape>>;

  // Compiles at the first use of a shape, without holding up callers whose shape is ready.
  std::shared_ptr<CompiledShape> compiled(const Shape& input, std::vector<int> layers) {
    const Key key{input, std::move(layers)};
    std::promise<std::shared_ptr<CompiledShape>> promise;
    {
      std::unique_lock lock(mutex);
      const auto found = std::ranges::find(recent, key, &std::pair<Key, Compiling>::first);
      if (found != recent.end()) {
        recent.splice(recent.begin(), recent, found);
        const Compiling ready = found->second;
        lock.unlock();
        return ready.get();  // waits while another caller compiles it
      }
      recent.emplace_front(key, promise.get_future().share());
      drop_old();
    }
    try {
      const auto graph = build_graph(*model.data().architecture, key.input, key.layers);
      require_memory(max_memory, static_cast<std::int64_t>(folded_bytes(*graph)), "what depends on weights only");
      auto shape = std::make_shared<CompiledShape>(*graph, weights, workers, packs, dtype);
      promise.set_value(shape);
      return shape;
    } catch (...) {
      {  // first: whoever finds the entry ready takes it for compiled
        const std::scoped_lock lock(mutex);
        std::erase_if(recent, [&](const auto& entry) { return entry.first == key; });
      }
      promise.set_exception(std::current_exception());
      throw;
    }
  }

  // Forgets the shapes used least recently when there are many, or when they keep much memory.
  void drop_old() {
    constexpr std::size_t kShapes = 8;
    constexpr std::size_t kBytes = std::size_t{1} << 30;
    std::size_t shapes = 0;
    std::size_t bytes = 0;
    std::erase_if(recent, [&](const auto& entry) {
      const bool ready = entry.second.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
      if (ready) bytes += entry.second.get()->kept_bytes();
      return ++shapes > kShapes || bytes > kBytes;
    });
  }

  std::vector<Tensor> run(const Tensor& input, std::vector<int> layers) {
    require<ShapeError>(input.dtype() == DType::kF32, "session", "input must be f32, got {}", input.type());
    const std::byte* const in = input.raw();
    return compiled(input.shape(), std::move(layers))->run({&in, 1}, workers, max_memory);
  }

  Model model;
  Weights weights;
  Workers workers;
  DType dtype;
  std::int64_t max_memory;
  std::shared_ptr<PackCache> packs = make_packs(max_memory);
  std::mutex mutex;
  std::list<std::pair<Key, Compiling>> recent;  // used last first
};

DType best_dtype() { return onednn::multiplies_natively(DType::kBF16) ? DType::kBF16 : DType::kF32; }

Session::Session(Model model, const SessionOptions& options)
    : impl_(std::make_unique<Impl>(std::move(model), options)) {}
Session::~Session() = default;
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;

const Model& Session::model() const { return impl_->model; }
int Session::threads() const { return impl_->workers.count(); }
DType Session::dtype() const { return impl_->dtype; }

Tensor Session::logits(const Tensor& input) const {
  require<UnsupportedError>(model().classes() > 0, "session",
                            "this model is a bare backbone: it has features but no classes");
  return impl_->run(input, {}).back();
}

std::vector<std::vector<Prediction>> Session::classify(std::span<const Image> images, int top) const {
  if (images.empty()) return {};
  const Tensor scores = logits(to_input(images, model().preprocess()));
  const auto classes = static_cast<std::size_t>(model().classes());
  std::vector<std::vector<Prediction>> predictions;
  for (std::size_t i = 0; i < images.size(); ++i) {
    predictions.push_back(best(scores.data<float>().subspan(i * classes, classes), model().labels(), top));
  }
  return predictions;
}

std::vector<Prediction> Session::classify(const Image& image, int top) const {
  return classify(std::span(&image, 1), top).front();
}

Features Session::features(const Tensor& input, std::span<const int> layers) const {
  Features features{.layers = resolve_layers(*model().data().architecture, layers)};
  std::vector<Tensor> outputs = impl_->run(input, features.layers);
  const auto maps = static_cast<std::ptrdiff_t>(features.layers.size());
  features.maps.assign(outputs.begin(), outputs.begin() + maps);
  features.pooled = outputs[static_cast<std::size_t>(maps)];
  return features;
}

Features Session::features(std::span<const Image> images, std::span<const int> layers) const {
  return features(to_input(images, model().preprocess()), layers);
}

Features Session::features(const Image& image, std::span<const int> layers) const {
  return features(std::span(&image, 1), layers);
}

std::int64_t Session::working_bytes(const Shape& input) const {
  return static_cast<std::int64_t>(impl_->compiled(input, {})->plan().arena_bytes());
}

}  // namespace weft
