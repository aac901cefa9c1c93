// A model as data: a directed acyclic graph of operations over typed values, built in topological order.
#pragma once

#include <functional>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "graph/operation.h"
#include "weft/tensor.h"

namespace weft {

class Graph;

/// A handle to one value of a graph: an input, a parameter, a constant or a result of an operation.
class Value {
 public:
  Value(Graph& graph, int id) : graph_(&graph), id_(id) {}
  Graph& graph() const { return *graph_; }
  int id() const { return id_; }
  const TensorType& type() const;
  const Shape& shape() const { return type().shape; }
  bool operator==(const Value&) const = default;

 private:
  Graph* graph_;
  int id_;
};

/// Fills a new parameter before training.
using Initializer = std::function<void(std::span<float> values, std::mt19937_64& random)>;

class Graph {
 public:
  enum class Kind { kInput, kParameter, kConstant, kResult };

  struct ValueInfo {
    Kind kind;
    TensorType type;
    std::string name;         // of an input or a parameter; empty otherwise
    int node = -1;            // the node that makes it, for a result
    Tensor constant;          // for a constant
    Initializer initializer;  // for a parameter
    bool buffer = false;      // a parameter that is not trained
  };

  struct Node {
    Operation operation;
    std::vector<int> inputs;
    std::vector<int> outputs;
    std::string place;  // where in the model it stands: "backbone.layers.3.att"
  };

  struct Output {
    std::string name;
    int value;
  };

  struct Update {
    int buffer;
    int value;
  };

  /// What a recurrent model carries from one run to the next: an input, and the output that is it afterwards.
  struct State {
    int input;
    int output;    // place in outputs()
    Tensor empty;  // what it is before the first run
  };

  /// A graph for training has what training alone needs: inputs that drop branches (models/drop_path.h). It has no
  /// states.
  explicit Graph(std::string name, bool training = false) : name_(std::move(name)), training_(training) {}
  Graph(const Graph&) = delete;  // values point to their graph
  Graph& operator=(const Graph&) = delete;

  Value input(std::string name, TensorType type);
  /// Throws ConfigError when the name is taken.
  Value parameter(std::string name, TensorType type, Initializer initializer);
  /// A parameter that is part of a checkpoint and not trained: running statistics, decays. It is one of parameters(),
  /// does not count in parameter_count() and has no gradient.
  Value buffer(std::string name, TensorType type, Initializer initializer);
  Value constant(Tensor tensor);
  /// Adds a node after checking its shapes. Throws ShapeError, with the place in the message.
  std::vector<Value> add(Operation operation, std::span<const Value> inputs);
  /// The same for an operation with one result.
  Value add_one(Operation operation, std::initializer_list<Value> inputs);
  void output(std::string name, Value value);
  /// In a graph for training: after a pass the buffer is to have this value.
  void update(Value buffer, Value value);
  /// What is carried from run to run: an input of this name, which is `empty` (f32) before the first run. In a graph
  /// for training, where each run begins anew, it is a constant.
  Value state(std::string name, Tensor empty);
  /// What a state is after the run: an output of the state's name. Throws ShapeError for another type, ConfigError when
  /// it is told twice.
  void next_state(Value state, Value value);

  const std::string& name() const { return name_; }
  bool training() const { return training_; }
  std::span<const ValueInfo> values() const { return values_; }
  const ValueInfo& value(int id) const { return values_[static_cast<std::size_t>(id)]; }
  std::span<const Node> nodes() const { return nodes_; }
  std::span<const Output> outputs() const { return outputs_; }
  std::span<const Update> updates() const { return updates_; }
  std::span<const State> states() const { return states_; }
  /// Ids of all inputs and of all parameters, in order of declaration.
  std::span<const int> inputs() const { return inputs_; }
  std::span<const int> parameters() const { return parameters_; }

  /// Number of elements of all parameters but buffers.
  std::int64_t parameter_count() const;
  /// Multiply-accumulates of one run, without what depends on no input.
  std::int64_t macs() const;
  /// One line a value, in order, for people.
  std::string str() const;

 private:
  friend class Scope;

  Value new_value(ValueInfo info);
  std::vector<TensorType> types_of(std::span<const int> ids) const;

  std::string name_;
  bool training_;
  std::string place_;
  std::vector<ValueInfo> values_;
  std::vector<Node> nodes_;
  std::vector<Output> outputs_;
  std::vector<Update> updates_;
  std::vector<State> states_;
  std::vector<int> inputs_;
  std::vector<int> parameters_;
  std::unordered_set<std::string> parameter_names_;
};

/// A place in a model's tree of names. Indexing goes down: s["layers"][3]["att"].param("key.weight", …) declares
/// "layers.3.att.key.weight".
class Scope {
 public:
  explicit Scope(Graph& graph, std::string path = "") : graph_(&graph), path_(std::move(path)) {}

  Scope operator[](std::string_view name) const;
  Scope operator[](int index) const { return (*this)[std::to_string(index)]; }

  Value param(std::string_view name, Shape shape, Initializer initializer) const;
  Value buffer(std::string_view name, Shape shape, Initializer initializer) const;
  Value state(std::string_view name, Tensor empty) const;
  Graph& graph() const { return *graph_; }
  const std::string& path() const { return path_; }

  /// While the returned guard lives, nodes and errors carry this scope as their place.
  class [[nodiscard]] Guard {
   public:
    Guard(Graph& graph, std::string place) : graph_(graph), previous_(std::exchange(graph.place_, std::move(place))) {}
    ~Guard() { graph_.place_ = std::move(previous_); }
    Guard(const Guard&) = delete;
    Guard& operator=(const Guard&) = delete;

   private:
    Graph& graph_;
    std::string previous_;
  };
  Guard enter() const { return Guard(*graph_, path_); }

 private:
  Graph* graph_;
  std::string path_;
};

/// Initializers. Sources: PyTorch's defaults (fan_in), timm's and mmcv's truncated normal (cut at two deviations).
namespace init {
Initializer constant(float value);
Initializer truncated_normal(float deviation);
/// Uniform in ±bound.
Initializer uniform(float bound);
/// Uniform in ±1/√fan_in: PyTorch's default for Linear and Conv2d weights and biases.
Initializer uniform_fan_in(std::int64_t fan_in);
/// values[i] = f(i)
Initializer each(std::function<double(std::int64_t)> f);
}  // namespace init

}  // namespace weft
