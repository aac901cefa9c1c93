#include "torch/tile_ops.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <optional>

#include "ops/ops.h"
#include "torch/mix_kernels.h"
#include "torch/tile_products.h"

namespace weft::torch_engine {
namespace {

std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

// How an operand of an elementwise operator meets the result [B,…,C].
enum class Meets : std::uint8_t {
  kNot,      // in a way that has no kernel
  kEntries,  // of the batch, with the result's shape
  kRow,      // one row for all rows, [C]
  kEntry,    // one entry for all entries, […,C]
  kFactor,   // of the batch, with one element for an entry, [B,1,…,1]
};

Meets how_it_meets(const Shape& shape, bool shared, const Shape& out) {
  if (!shared) {
    if (shape == out) return Meets::kEntries;
    const bool is_factor = shape.rank() == out.rank() && shape[0] == out[0] && shape.elements() == out[0];
    return is_factor ? Meets::kFactor : Meets::kNot;
  }
  if (shape.rank() > 0 && shape[-1] == out[-1] && shape.elements() == out[-1]) return Meets::kRow;
  if (shape.rank() + 1 < out.rank() || shape.elements() * out[0] != out.elements()) return Meets::kNot;
  for (int axis = 1; axis < out.rank(); ++axis) {
    if (shape[axis - out.rank()] != out[axis]) return Meets::kNot;
  }
  return Meets::kEntry;
}

// What elementwise operators compute by; kCopy: none of them.
Map map_of(const Operation& operation) {
  if (operation.as<Add>()) return Map::kAdd;
  if (operation.as<Mul>()) return Map::kMul;
  if (operation.as<Scale>()) return Map::kScale;
  if (operation.as<Lerp>()) return Map::kLerp;
  if (operation.as<Sigmoid>()) return Map::kSigmoid;
  if (operation.as<Tanh>()) return Map::kTanh;
  if (operation.as<SquaredRelu>()) return Map::kSquaredRelu;
  if (operation.as<Gelu>()) return Map::kGelu;
  return Map::kCopy;
}

// Rows and columns of one entry.
struct Extent {
  explicit Extent(const Shape& shape) : columns(shape[-1]), rows(shape.elements() / shape[0] / shape[-1]) {}
  std::int64_t columns, rows;
  std::int64_t elements() const { return rows * columns; }
};

float* scratch_of(const TileArgs& args) { return reinterpret_cast<float*>(args.scratch); }

// Base of those with operands of any kind.
class ElementwiseOp : public TileOp {
 public:
  explicit ElementwiseOp(const TileRequest& request)
      : map_(map_of(request.node.nodes[0]->operation)),
        extent_(request.graph.value(request.node.outputs[0]).type.shape) {
    const Shape& out = request.graph.value(request.node.outputs[0]).type.shape;
    for (const int id : request.node.inputs) {
      meets_.push_back(how_it_meets(request.graph.value(id).type.shape, request.shared[index(id)], out));
    }
    if (const auto* scale = request.node.nodes[0]->operation.as<Scale>()) factor_ = scale->factor;
  }

  void forward(const TileArgs& args) const noexcept override {
    by_parts(args.entries, [&](std::int64_t offset, std::int64_t rows) {
      std::array<Operand, 3> in;
      for (std::size_t i = 0; i < meets_.size(); ++i) in[i] = operand(args, i, offset);
      map(map_, {in.data(), meets_.size()}, args.out[0].behind(offset), rows, index(extent_.columns), factor_);
    });
  }

 protected:
  // Calls f(first element, rows), for each entry where an operand is shared by entries, else for all at once.
  template <class F>
  void by_parts(std::int64_t entries, F&& f) const {
    if (std::ranges::find(meets_, Meets::kEntry) == meets_.end()) return f(std::int64_t{0}, entries * extent_.rows);
    for (std::int64_t entry = 0; entry < entries; ++entry) f(entry * extent_.elements(), extent_.rows);
  }
  Operand operand(const TileArgs& args, std::size_t i, std::int64_t offset) const {
    const bool moves = meets_[i] == Meets::kEntries;
    return {args.in[i] + (moves ? offset : 0), meets_[i] == Meets::kRow};
  }

  Map map_;
  Extent extent_;
  std::vector<Meets> meets_;
  float factor_ = 1;
};

class SumOp final : public ElementwiseOp {
 public:
  using ElementwiseOp::ElementwiseOp;
  bool backward_reads(std::size_t, std::span<const bool>) const override { return false; }
  bool hands_on_gradient() const override { return true; }
  void backward(const TileArgs& args) const noexcept override {
    by_parts(args.entries, [&](std::int64_t offset, std::int64_t rows) {
      for (std::size_t i = 0; i < meets_.size(); ++i) {
        Target to = args.gin[i];
        if (!to) continue;
        if (meets_[i] == Meets::kRow) {
          add_rows(args.g[0] + offset, to.at, rows, index(extent_.columns));
          continue;
        }
        if (meets_[i] == Meets::kEntries) to = to.behind(offset);
        const Operand g{args.g[0] + offset};
        map(Map::kCopy, {&g, 1}, to, rows, index(extent_.columns));
      }
    });
  }
};

class ProductOp final : public ElementwiseOp {
 public:
  using ElementwiseOp::ElementwiseOp;
  bool backward_reads(std::size_t i, std::span<const bool> wanted) const override { return wanted[1 - i]; }
  void backward(const TileArgs& args) const noexcept override {
    by_parts(args.entries, [&](std::int64_t offset, std::int64_t rows) {
      for (std::size_t i = 0; i < 2; ++i) {
        Target to = args.gin[i];
        if (!to) continue;
        const std::array<Operand, 2> factors{Operand{args.g[0] + offset}, operand(args, 1 - i, offset)};
        if (meets_[i] == Meets::kRow) {
          add_rows_of_products(factors[0].at, factors[1].at, to.at, rows, index(extent_.columns));
          continue;
        }
        if (meets_[i] == Meets::kEntries) to = to.behind(offset);
        map(Map::kMul, factors, to, rows, index(extent_.columns));
      }
    });
  }
};

// Each entry of x times its factor (a branch that is dropped for some).
class FactorOp final : public TileOp {
 public:
  explicit FactorOp(const TileRequest& request) : extent_(request.graph.value(request.node.outputs[0]).type.shape) {
    const Shape& first = request.graph.value(request.node.inputs[0]).type.shape;
    x_ = first == request.graph.value(request.node.outputs[0]).type.shape ? 0 : 1;
  }
  bool backward_reads(std::size_t i, std::span<const bool> wanted) const override { return wanted[1 - i]; }
  std::size_t scratch_bytes() const override { return index(extent_.columns) * sizeof(float); }
  void forward(const TileArgs& args) const noexcept override { scale(args, args.in[x_], args.out[0]); }
  void backward(const TileArgs& args) const noexcept override {
    if (args.gin[x_]) scale(args, args.g[0], args.gin[x_]);
    const Target& to = args.gin[1 - x_];
    if (!to) return;
    float* const sums = scratch_of(args);
    for (std::int64_t entry = 0; entry < args.entries; ++entry) {
      const std::int64_t offset = entry * extent_.elements();
      std::fill_n(sums, extent_.columns, 0.0F);
      add_rows_of_products(args.g[0] + offset, args.in[x_] + offset, sums, extent_.rows, index(extent_.columns));
      const float total = std::accumulate(sums, sums + extent_.columns, 0.0F);
      const Operand whole{&total};
      map(Map::kCopy, {&whole, 1}, to.behind(entry), 1, 1);
    }
  }

 private:
  void scale(const TileArgs& args, const float* from, Target to) const {
    for (std::int64_t entry = 0; entry < args.entries; ++entry) {
      const std::int64_t offset = entry * extent_.elements();
      const Operand x{from + offset};
      map(Map::kScale, {&x, 1}, to.behind(offset), extent_.rows, index(extent_.columns), args.in[1 - x_][entry]);
    }
  }

  Extent extent_;
  std::size_t x_;  // which of the inputs
};

class LerpOp final : public ElementwiseOp {
 public:
  using ElementwiseOp::ElementwiseOp;
  bool backward_reads(std::size_t i, std::span<const bool> wanted) const override { return i < 2 && wanted[2]; }
  void backward(const TileArgs& args) const noexcept override {
    lerp_backward(args.g[0], args.in[0], args.in[1], args.in[2], args.gin[0], args.gin[1], args.gin[2].at,
                  args.entries * extent_.rows, index(extent_.columns));
  }
};

// Functions of one operand.
class FunctionOp final : public ElementwiseOp {
 public:
  explicit FunctionOp(const TileRequest& request) : ElementwiseOp(request) {
    switch (map_) {
      case Map::kSigmoid:
        gradient_ = Map::kSigmoidGradient;
        break;
      case Map::kTanh:
        gradient_ = Map::kTanhGradient;
        break;
      case Map::kSquaredRelu:
        gradient_ = Map::kSquaredReluGradient;
        break;
      case Map::kGelu:
        gradient_ = Map::kGeluGradient;
        break;
      default:
        gradient_ = Map::kScale;
    }
  }
  bool backward_reads(std::size_t, std::span<const bool>) const override {
    return gradient_ == Map::kSquaredReluGradient || gradient_ == Map::kGeluGradient;
  }
  bool backward_reads_result() const override {
    return gradient_ == Map::kSigmoidGradient || gradient_ == Map::kTanhGradient;
  }
  void backward(const TileArgs& args) const noexcept override {
    const std::array<Operand, 2> in{Operand{args.g[0]}, Operand{backward_reads_result() ? args.out[0].at : args.in[0]}};
    map(gradient_, in, args.gin[0], args.entries * extent_.rows, index(extent_.columns), factor_);
  }

 private:
  Map gradient_;
};

class NormOp final : public TileOp {
 public:
  explicit NormOp(const TileRequest& request)
      : extent_(request.graph.value(request.node.outputs[0]).type.shape),
        eps_(request.node.nodes[0]->operation.as<LayerNorm>()->eps) {}
  bool backward_reads(std::size_t, std::span<const bool> wanted) const override { return wanted[0] || wanted[1]; }
  void forward(const TileArgs& args) const noexcept override {
    norm_forward(args.in[0], args.in[1], args.in[2], args.out[0], args.entries * extent_.rows, index(extent_.columns),
                 eps_);
  }
  void backward(const TileArgs& args) const noexcept override {
    if (!args.gin[0] && !args.gin[1]) {
      return add_rows(args.g[0], args.gin[2].at, args.entries * extent_.rows, index(extent_.columns));
    }
    norm_backward(args.g[0], args.in[0], args.in[1], args.gin[0], args.gin[1].at, args.gin[2].at,
                  args.entries * extent_.rows, index(extent_.columns), eps_);
  }

 private:
  Extent extent_;
  float eps_;
};

MixShape mix_shape(const QShift& q, std::int64_t columns) {
  return {.height = q.height, .width = q.width, .columns = columns, .pixels = q.pixels, .cuts = q.cuts(columns)};
}

class ShiftOp final : public TileOp {
 public:
  explicit ShiftOp(const TileRequest& request)
      : shape_(mix_shape(*request.node.nodes[0]->operation.as<QShift>(),
                         request.graph.value(request.node.outputs[0]).type.shape[-1])),
        transpose_(shape_) {
    transpose_.pixels = -shape_.pixels;
  }
  bool backward_reads(std::size_t, std::span<const bool>) const override { return false; }
  std::size_t scratch_bytes() const override { return index(mix_scratch_floats(shape_)) * sizeof(float); }
  void forward(const TileArgs& args) const noexcept override {
    shift(shape_, args.in[0], args.out[0], args.entries, scratch_of(args));
  }
  void backward(const TileArgs& args) const noexcept override {
    shift(transpose_, args.g[0], args.gin[0], args.entries, scratch_of(args));
  }

 private:
  MixShape shape_, transpose_;
};

// The shift of x and all lerps of x and the shift. Inputs are x and the mixes.
class MixOp final : public TileOp {
 public:
  explicit MixOp(const TileRequest& request)
      : shape_(mix_shape(*request.node.nodes[0]->operation.as<QShift>(),
                         request.graph.value(request.node.outputs[0]).type.shape[-1])) {}
  bool backward_reads(std::size_t, std::span<const bool> wanted) const override {
    return std::find(wanted.begin() + 1, wanted.end(), true) != wanted.end();
  }
  std::size_t scratch_bytes() const override { return index(mix_scratch_floats(shape_)) * sizeof(float); }
  void forward(const TileArgs& args) const noexcept override {
    mix_forward(shape_, args.in[0], args.in.subspan(1), args.out, args.entries, scratch_of(args));
  }
  void backward(const TileArgs& args) const noexcept override {
    std::array<float*, kMaxMixes> sums{};
    for (std::size_t i = 1; i < args.gin.size(); ++i) sums[i - 1] = args.gin[i].at;
    mix_backward(shape_, args.g, args.in[0], args.in.subspan(1), args.gin[0], {sums.data(), args.gin.size() - 1},
                 args.entries, scratch_of(args));
  }

 private:
  MixShape shape_;
};

// Over the tokens.
class MeanOp final : public TileOp {
 public:
  explicit MeanOp(const TileRequest& request) : extent_(request.graph.value(request.node.inputs[0]).type.shape) {}
  bool backward_reads(std::size_t, std::span<const bool>) const override { return false; }
  void forward(const TileArgs& args) const noexcept override {
    const std::size_t columns = index(extent_.columns);
    for (std::int64_t entry = 0; entry < args.entries; ++entry) {
      const Target to = args.out[0].behind(entry * extent_.columns);
      std::fill_n(to.at, columns, 0.0F);
      add_rows(args.in[0] + entry * extent_.elements(), to.at, extent_.rows, columns);
      const Operand sum{to.at};
      map(Map::kScale, {&sum, 1}, to, 1, columns, 1 / static_cast<float>(extent_.rows));
    }
  }
  void backward(const TileArgs& args) const noexcept override {
    for (std::int64_t entry = 0; entry < args.entries; ++entry) {
      const Operand g{args.g[0] + entry * extent_.columns, true};
      map(Map::kScale, {&g, 1}, args.gin[0].behind(entry * extent_.elements()), extent_.rows, index(extent_.columns),
          1 / static_cast<float>(extent_.rows));
    }
  }

 private:
  Extent extent_;
};

bool has_factor(const TileRequest& request) {
  const Shape& out = request.graph.value(request.node.outputs[0]).type.shape;
  return std::ranges::any_of(request.node.inputs, [&](int id) {
    return how_it_meets(request.graph.value(id).type.shape, request.shared[index(id)], out) == Meets::kFactor;
  });
}

bool is_mean_of_tokens(const Operation& operation, const Shape& x) {
  const auto* mean = operation.as<Mean>();
  return mean && x.rank() == 3 && (mean->axis == 1 || mean->axis == -2);
}

}  // namespace

bool can_tile(const Graph& graph, const Graph::Node& node, std::span<const bool> shared, std::int64_t batch) {
  if (node.outputs.size() != 1) return false;
  const Shape& out = graph.value(node.outputs[0]).type.shape;
  if (out.rank() < 2 || out[0] != batch || out.elements() == 0) return false;
  const auto is_shared = [&](std::size_t i) { return shared[index(node.inputs[i])]; };
  const auto shape = [&](std::size_t i) -> const Shape& { return graph.value(node.inputs[i]).type.shape; };
  if (node.operation.as<QShift>()) return !is_shared(0);
  if (is_mean_of_tokens(node.operation, shape(0))) return !is_shared(0);
  if (node.operation.as<Linear>() || node.operation.as<LayerNorm>() || node.operation.as<PatchEmbed>()) {
    if (is_shared(0) || shape(0).rank() < 2 || shape(0).elements() == 0) return false;
    for (std::size_t i = 1; i < node.inputs.size(); ++i) {
      if (!is_shared(i)) return false;
    }
    return true;
  }
  const Map map = map_of(node.operation);
  if (map == Map::kCopy) return false;
  std::vector<Meets> meets;
  for (std::size_t i = 0; i < node.inputs.size(); ++i) meets.push_back(how_it_meets(shape(i), is_shared(i), out));
  if (map == Map::kLerp) {
    return meets[0] == Meets::kEntries && meets[1] == Meets::kEntries && meets[2] == Meets::kRow;
  }
  if (map != Map::kMul && std::ranges::find(meets, Meets::kFactor) != meets.end()) return false;
  return std::ranges::find(meets, Meets::kNot) == meets.end() &&
         std::ranges::find(meets, Meets::kEntries) != meets.end();
}

namespace {

// What a tile node is of when there are several nodes in it.
TileNode gather_mixes(const Graph::Node& shift, std::span<const Graph::Node* const> nodes, std::span<const int> kept) {
  const int shifted = shift.outputs[0];
  TileNode mix{.nodes = {&shift}, .inputs = shift.inputs, .outputs = {}};
  const TileNode alone{.nodes = {&shift}, .inputs = shift.inputs, .outputs = shift.outputs};
  if (std::ranges::find(kept, shifted) != kept.end()) return alone;
  for (const Graph::Node* node : nodes) {
    if (std::ranges::find(node->inputs, shifted) == node->inputs.end()) continue;
    const bool is_mix = node->operation.as<Lerp>() && node->inputs[0] == shift.inputs[0] && node->inputs[1] == shifted;
    if (!is_mix || mix.nodes.size() > kMaxMixes) return alone;
    mix.nodes.push_back(node);
    mix.inputs.push_back(node->inputs[2]);
    mix.outputs.push_back(node->outputs[0]);
  }
  return mix.outputs.empty() ? alone : mix;
}

bool is_mix(const TileNode& node) { return node.nodes.size() > 1; }

}  // namespace

std::vector<TileNode> gather(std::span<const Graph::Node* const> nodes, std::span<const int> kept) {
  std::vector<TileNode> result;
  std::set<const Graph::Node*> gathered;
  for (const Graph::Node* node : nodes) {
    if (gathered.contains(node)) continue;
    result.push_back(node->operation.as<QShift>() ? gather_mixes(*node, nodes, kept)
                                                  : TileNode{{node}, node->inputs, node->outputs});
    gathered.insert(result.back().nodes.begin(), result.back().nodes.end());
  }
  return result;
}

bool can_write_bf16(const TileNode& node) {
  const Operation& operation = node.nodes[0]->operation;
  if (is_mix(node) || operation.as<LayerNorm>()) return true;
  // A sigmoid's and a hyperbolic tangent's own results are what their gradients are computed of.
  return map_of(operation) != Map::kCopy && !operation.as<Sigmoid>() && !operation.as<Tanh>();
}

bool can_write_bf16_gradients(const TileNode& node) {
  const Operation& operation = node.nodes[0]->operation;
  return map_of(operation) != Map::kCopy && !operation.as<Add>() && !operation.as<Lerp>();
}

std::unique_ptr<TileOp> make_tile_op(const TileRequest& request) {
  const Operation& operation = request.node.nodes[0]->operation;
  if (is_mix(request.node)) return std::make_unique<MixOp>(request);
  if (operation.as<Linear>()) return make_linear_op(request);
  if (operation.as<PatchEmbed>()) return make_patch_op(request);
  if (operation.as<Mean>()) return std::make_unique<MeanOp>(request);
  if (operation.as<LayerNorm>()) return std::make_unique<NormOp>(request);
  if (operation.as<QShift>()) return std::make_unique<ShiftOp>(request);
  if (operation.as<Add>()) return std::make_unique<SumOp>(request);
  if (operation.as<Mul>() && has_factor(request)) return std::make_unique<FactorOp>(request);
  if (operation.as<Mul>()) return std::make_unique<ProductOp>(request);
  if (operation.as<Lerp>()) return std::make_unique<LerpOp>(request);
  return std::make_unique<FunctionOp>(request);
}

}  // namespace weft::torch_engine
