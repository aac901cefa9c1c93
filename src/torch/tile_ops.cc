#include "torch/tile_ops.h"

#include <algorithm>
#include <array>
#include <optional>

#include "kernel/onednn_matmul.h"
#include "ops/ops.h"

namespace weft::torch_engine {
namespace {

std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

// How an operand of an elementwise operator meets the result [B,…,C].
enum class Meets : std::uint8_t {
  kNot,      // in a way that has no kernel
  kEntries,  // of the batch, with the result's shape
  kRow,      // one row for all rows, [C]
  kEntry,    // one entry for all entries, […,C]
};

Meets how_it_meets(const Shape& shape, bool shared, const Shape& out) {
  if (!shared) return shape == out ? Meets::kEntries : Meets::kNot;
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

// Base of those with operands of any kind.
class ElementwiseOp : public TileOp {
 public:
  explicit ElementwiseOp(const TileRequest& request)
      : map_(map_of(request.node.operation)), extent_(request.graph.value(request.node.outputs[0]).type.shape) {
    const Shape& out = request.graph.value(request.node.outputs[0]).type.shape;
    for (const int id : request.node.inputs) {
      meets_.push_back(how_it_meets(request.graph.value(id).type.shape, request.shared[index(id)], out));
    }
    if (const auto* scale = request.node.operation.as<Scale>()) factor_ = scale->factor;
  }

  void forward(const TileArgs& args) const noexcept override {
    by_parts(args.entries, [&](std::int64_t offset, std::int64_t rows) {
      std::array<Operand, 3> in;
      for (std::size_t i = 0; i < meets_.size(); ++i) in[i] = operand(args, i, offset);
      map(map_, {in.data(), meets_.size()}, {args.out + offset}, rows, index(extent_.columns), factor_);
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
          add_rows(args.g + offset, to.at, rows, index(extent_.columns));
          continue;
        }
        if (meets_[i] == Meets::kEntries) to.at += offset;
        const Operand g{args.g + offset};
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
        const std::array<Operand, 2> factors{Operand{args.g + offset}, operand(args, 1 - i, offset)};
        if (meets_[i] == Meets::kRow) {
          add_rows_of_products(factors[0].at, factors[1].at, to.at, rows, index(extent_.columns));
          continue;
        }
        if (meets_[i] == Meets::kEntries) to.at += offset;
        map(Map::kMul, factors, to, rows, index(extent_.columns));
      }
    });
  }
};

class LerpOp final : public ElementwiseOp {
 public:
  using ElementwiseOp::ElementwiseOp;
  bool backward_reads(std::size_t i, std::span<const bool> wanted) const override { return i < 2 && wanted[2]; }
  void backward(const TileArgs& args) const noexcept override {
    lerp_backward(args.g, args.in[0], args.in[1], args.in[2], args.gin[0], args.gin[1], args.gin[2].at,
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
    const std::array<Operand, 2> in{Operand{args.g}, Operand{backward_reads_result() ? args.out : args.in[0]}};
    map(gradient_, in, args.gin[0], args.entries * extent_.rows, index(extent_.columns), factor_);
  }

 private:
  Map gradient_;
};

class NormOp final : public TileOp {
 public:
  explicit NormOp(const TileRequest& request)
      : extent_(request.graph.value(request.node.outputs[0]).type.shape),
        eps_(request.node.operation.as<LayerNorm>()->eps) {}
  bool backward_reads(std::size_t, std::span<const bool> wanted) const override { return wanted[0] || wanted[1]; }
  void forward(const TileArgs& args) const noexcept override {
    norm_forward(args.in[0], args.in[1], args.in[2], args.out, args.entries * extent_.rows, index(extent_.columns),
                 eps_);
  }
  void backward(const TileArgs& args) const noexcept override {
    if (!args.gin[0] && !args.gin[1]) {
      return add_rows(args.g, args.gin[2].at, args.entries * extent_.rows, index(extent_.columns));
    }
    norm_backward(args.g, args.in[0], args.in[1], args.gin[0], args.gin[1].at, args.gin[2].at,
                  args.entries * extent_.rows, index(extent_.columns), eps_);
  }

 private:
  Extent extent_;
  float eps_;
};

class ShiftOp final : public TileOp {
 public:
  explicit ShiftOp(const TileRequest& request)
      : q_(*request.node.operation.as<QShift>()),
        extent_(request.graph.value(request.node.outputs[0]).type.shape),
        cuts_(q_.cuts(extent_.columns)) {}
  bool backward_reads(std::size_t, std::span<const bool>) const override { return false; }
  void forward(const TileArgs& args) const noexcept override { shift(args.in[0], {args.out}, args.entries, q_.pixels); }
  // The transpose of a shift by p is the shift by −p.
  void backward(const TileArgs& args) const noexcept override { shift(args.g, args.gin[0], args.entries, -q_.pixels); }

 private:
  void shift(const float* from, Target to, std::int64_t entries, std::int64_t pixels) const noexcept {
    const std::int64_t c = extent_.columns;
    for (std::int64_t entry = 0; entry < entries; ++entry) {
      for (std::int64_t y = 0; y < q_.height; ++y) {
        for (std::int64_t x = 0; x < q_.width; ++x, to.at += c) {
          const auto group = [&](std::size_t i, std::int64_t from_y, std::int64_t from_x) {
            const std::int64_t begin = cuts_[i];
            const std::int64_t end = i + 1 < cuts_.size() ? cuts_[i + 1] : c;
            const bool inside = from_y >= 0 && from_y < q_.height && from_x >= 0 && from_x < q_.width;
            copy(inside ? from + (from_y * q_.width + from_x) * c + begin : nullptr, {to.at + begin, to.adds},
                 end - begin);
          };
          group(0, y, x - pixels);
          group(1, y, x + pixels);
          group(2, y - pixels, x);
          group(3, y + pixels, x);
          group(4, y, x);
        }
      }
      from += extent_.elements();
    }
  }
  static void copy(const float* from, Target to, std::int64_t count) noexcept {
    if (from && to.adds) {
      for (std::int64_t i = 0; i < count; ++i) to.at[i] += from[i];
    } else if (from) {
      std::copy_n(from, count, to.at);
    } else if (!to.adds) {
      std::fill_n(to.at, count, 0.0F);
    }
  }

  QShift q_;
  Extent extent_;
  std::array<std::int64_t, 5> cuts_;
};

// y = x·Wᵀ + b, gx = gy·W, gW = gyᵀ·x, gb = Σ gy.
class LinearOp final : public TileOp {
 public:
  explicit LinearOp(const TileRequest& request)
      : rows_(Extent(request.graph.value(request.node.outputs[0]).type.shape).rows),
        k_(request.graph.value(request.node.inputs[1]).type.shape[1]),
        n_(request.graph.value(request.node.inputs[1]).type.shape[0]),
        entries_(request.entries),
        bf16_(request.bf16),
        tile_(products(request.entries)) {
    if (request.rest > 0) rest_.emplace(products(request.rest));
    for (const Products* some : {&tile_, rest_ ? &*rest_ : nullptr}) {
      if (!some) continue;
      for (const onednn::Matmul* product : {&some->y, &some->gx, &some->gx_added, &some->gw}) {
        matmul_bytes_ = std::max(matmul_bytes_, product->scratch_bytes());
      }
    }
  }

  bool backward_reads(std::size_t, std::span<const bool> wanted) const override { return wanted[1]; }
  bool is_costly() const override { return true; }
  std::size_t prepared_bytes() const override { return bf16_ ? rounded_bytes(n_ * k_) : 0; }
  void prepare(std::span<const float* const> in, std::byte* prepared) const override {
    if (bf16_) round_to_bf16(in[1], reinterpret_cast<std::uint16_t*>(prepared), index(n_ * k_));
  }
  std::size_t scratch_bytes() const override {
    return matmul_bytes_ + (bf16_ ? rounded_bytes(entries_ * rows_ * k_) + rounded_bytes(entries_ * rows_ * n_) : 0);
  }

  void forward(const TileArgs& args) const noexcept override {
    const std::int64_t rows = args.entries * rows_;
    of(args).y.run(rounded(args.in[0], rows * k_, args.scratch + matmul_bytes_), weight(args), args.out, args.scratch);
    if (args.in.size() < 3) return;
    const std::array<Operand, 2> in{Operand{args.out}, Operand{args.in[2], true}};
    map(Map::kAdd, in, {args.out}, rows, index(n_));
  }

  void backward(const TileArgs& args) const noexcept override {
    const std::int64_t rows = args.entries * rows_;
    std::byte* const pad = args.scratch + matmul_bytes_;
    const Products& products = of(args);
    const void* const g = args.gin[0] || args.gin[1] ? rounded(args.g, rows * n_, pad) : nullptr;
    if (args.gin[0]) {
      (args.gin[0].adds ? products.gx_added : products.gx).run(g, weight(args), args.gin[0].at, args.scratch);
    }
    if (args.gin[1]) {
      const void* const x = rounded(args.in[0], rows * k_, pad + (bf16_ ? rounded_bytes(rows * n_) : 0));
      products.gw.run(g, x, args.gin[1].at, args.scratch);
    }
    if (args.gin.size() > 2 && args.gin[2]) add_rows(args.g, args.gin[2].at, rows, index(n_));
  }

 private:
  struct Products {
    onednn::Matmul y, gx, gx_added, gw;
  };

  Products products(std::int64_t entries) const {
    const std::int64_t m = entries * rows_;
    const DType precision = bf16_ ? DType::kBF16 : DType::kF32;
    const auto gx = [&](bool adds) {
      return onednn::Matmul({.m = m, .n = k_, .k = n_, .precision = precision, .adds = adds});
    };
    return {
        .y = onednn::Matmul({.m = m, .n = n_, .k = k_, .precision = precision, .b_transposed = true}),
        .gx = gx(false),
        .gx_added = gx(true),
        .gw = onednn::Matmul({.m = n_, .n = k_, .k = m, .precision = precision, .a_transposed = true, .adds = true})};
  }
  static std::size_t rounded_bytes(std::int64_t elements) { return (index(elements) * 2 + 63) / 64 * 64; }
  const Products& of(const TileArgs& args) const { return args.entries == entries_ ? tile_ : *rest_; }
  const void* weight(const TileArgs& args) const {
    return bf16_ ? static_cast<const void*>(args.prepared) : static_cast<const void*>(args.in[1]);
  }
  // In what is multiplied.
  const void* rounded(const float* x, std::int64_t elements, std::byte* to) const {
    if (!bf16_) return x;
    round_to_bf16(x, reinterpret_cast<std::uint16_t*>(to), index(elements));
    return to;
  }

  std::int64_t rows_;  // of an entry
  std::int64_t k_, n_;
  std::int64_t entries_;
  bool bf16_;
  Products tile_;
  std::optional<Products> rest_;
  std::size_t matmul_bytes_ = 0;
};

}  // namespace

bool can_tile(const Graph& graph, const Graph::Node& node, std::span<const bool> shared, std::int64_t batch) {
  if (node.outputs.size() != 1) return false;
  const Shape& out = graph.value(node.outputs[0]).type.shape;
  if (out.rank() < 2 || out[0] != batch || out.elements() == 0) return false;
  const auto is_shared = [&](std::size_t i) { return shared[index(node.inputs[i])]; };
  const auto shape = [&](std::size_t i) -> const Shape& { return graph.value(node.inputs[i]).type.shape; };
  if (node.operation.as<QShift>()) return !is_shared(0);
  if (node.operation.as<Linear>() || node.operation.as<LayerNorm>()) {
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
  return std::ranges::find(meets, Meets::kNot) == meets.end() &&
         std::ranges::find(meets, Meets::kEntries) != meets.end();
}

std::unique_ptr<TileOp> make_tile_op(const TileRequest& request) {
  const Operation& operation = request.node.operation;
  if (operation.as<Linear>()) return std::make_unique<LinearOp>(request);
  if (operation.as<LayerNorm>()) return std::make_unique<NormOp>(request);
  if (operation.as<QShift>()) return std::make_unique<ShiftOp>(request);
  if (operation.as<Add>()) return std::make_unique<SumOp>(request);
  if (operation.as<Mul>()) return std::make_unique<ProductOp>(request);
  if (operation.as<Lerp>()) return std::make_unique<LerpOp>(request);
  return std::make_unique<FunctionOp>(request);
}

}  // namespace weft::torch_engine
