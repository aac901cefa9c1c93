#include "torch/tile_ops.h"

#include <algorithm>
#include <array>
#include <optional>

#include "kernel/onednn_matmul.h"
#include "ops/ops.h"
#include "torch/mix_kernels.h"

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

float* scratch_of(const TileArgs& args) { return reinterpret_cast<float*>(args.scratch); }

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

// y = x·Wᵀ + b, gx = gy·W, gW = gyᵀ·x, gb = Σ gy.
class LinearOp final : public TileOp {
 public:
  explicit LinearOp(const TileRequest& request)
      : rows_(Extent(request.graph.value(request.node.outputs[0]).type.shape).rows),
        n_(request.graph.value(request.node.inputs[1]).type.shape[0]),
        k_(request.graph.value(request.node.inputs[1]).type.shape.elements() / n_),
        entries_(request.entries),
        bf16_(request.bf16),
        x_is_bf16_(request.bf16_values.contains(request.node.inputs[0])),
        g_is_bf16_(request.bf16_gradients.contains(request.node.outputs[0])),
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
    of(args).y.run(rounded(args.in[0], x_is_bf16_, rows * k_, args.scratch + matmul_bytes_), weight(args),
                   args.out[0].at, args.scratch);
    if (args.in.size() < 3) return;
    const std::array<Operand, 2> in{Operand{args.out[0].at}, Operand{args.in[2], true}};
    map(Map::kAdd, in, args.out[0], rows, index(n_));
  }

  void backward(const TileArgs& args) const noexcept override {
    const std::int64_t rows = args.entries * rows_;
    std::byte* const pad = args.scratch + matmul_bytes_;
    const Products& products = of(args);
    const void* const g = args.gin[0] || args.gin[1] ? rounded(args.g[0], g_is_bf16_, rows * n_, pad) : nullptr;
    if (args.gin[0]) {
      (args.gin[0].adds ? products.gx_added : products.gx).run(g, weight(args), args.gin[0].at, args.scratch);
    }
    if (args.gin[1]) {
      const void* const x = rounded(args.in[0], x_is_bf16_, rows * k_, pad + (bf16_ ? rounded_bytes(rows * n_) : 0));
      products.gw.run(g, x, args.gin[1].at, args.scratch);
    }
    if (args.gin.size() > 2 && args.gin[2]) add_rows(args.g[0], args.gin[2].at, rows, index(n_));
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
  const void* rounded(const float* x, bool is_bf16, std::int64_t elements, std::byte* to) const {
    if (!bf16_ || is_bf16) return x;
    round_to_bf16(x, reinterpret_cast<std::uint16_t*>(to), index(elements));
    return to;
  }

  std::int64_t rows_;  // of an entry
  std::int64_t n_, k_;
  std::int64_t entries_;
  bool bf16_;
  bool x_is_bf16_, g_is_bf16_;  // as they come
  Products tile_;
  std::optional<Products> rest_;
  std::size_t matmul_bytes_ = 0;
};

// A product of patches.
class PatchOp final : public TileOp {
 public:
  explicit PatchOp(const TileRequest& request)
      : product_(request),
        patch_(*request.node.nodes[0]->operation.as<PatchEmbed>()),
        image_(request.graph.value(request.node.inputs[0]).type.shape),
        grid_h_(patch_.grid_height(image_)),
        grid_w_(patch_.grid_width(image_)),
        patch_bytes_((index(request.entries * grid_h_ * grid_w_ * patch_elements()) * sizeof(float) + 63) / 64 * 64) {}

  bool backward_reads(std::size_t, std::span<const bool> wanted) const override { return wanted[1]; }
  bool is_costly() const override { return true; }
  std::size_t prepared_bytes() const override { return product_.prepared_bytes(); }
  void prepare(std::span<const float* const> in, std::byte* prepared) const override { product_.prepare(in, prepared); }
  std::size_t scratch_bytes() const override { return 2 * patch_bytes_ + product_.scratch_bytes(); }

  void forward(const TileArgs& args) const noexcept override {
    std::array<const float*, 3> in;
    product_.forward(of_patches(args, in));
  }
  void backward(const TileArgs& args) const noexcept override {
    std::array<const float*, 3> in;
    TileArgs of = of_patches(args, in);
    std::array<Target, 3> gin;
    std::ranges::copy(args.gin, gin.begin());
    of.gin = {gin.data(), args.gin.size()};
    auto* const gradient = reinterpret_cast<float*>(args.scratch + patch_bytes_);
    if (gin[0]) gin[0] = {gradient};
    product_.backward(of);
    if (!args.gin[0]) return;
    const Target& to = args.gin[0];
    if (!to.adds) std::fill_n(to.at, args.entries * image_.elements() / image_[0], 0.0F);
    for_each_run(args.entries, [&](std::int64_t pixel, std::int64_t at, std::int64_t count) {
      for (std::int64_t i = 0; pixel >= 0 && i < count; ++i) to.at[pixel + i] += gradient[at + i];
    });
  }

 private:
  std::int64_t patch_elements() const { return image_[1] * patch_.patch_h * patch_.patch_w; }

  // The product's arguments, with the patches, when there is an image, in the place of the image.
  TileArgs of_patches(const TileArgs& args, std::array<const float*, 3>& in) const {
    auto* const patches = reinterpret_cast<float*>(args.scratch);
    std::ranges::copy(args.in, in.begin());
    TileArgs of = args;
    of.in = {in.data(), args.in.size()};
    of.scratch = args.scratch + 2 * patch_bytes_;
    if (!in[0]) return of;
    in[0] = patches;
    for_each_run(args.entries, [&](std::int64_t pixel, std::int64_t at, std::int64_t count) {
      if (pixel >= 0) {
        std::copy_n(args.in[0] + pixel, count, patches + at);
      } else {
        std::fill_n(patches + at, count, 0.0F);
      }
    });
    return of;
  }

  // Calls f(pixel, at, count) for `count` neighbouring elements of a patch from `at` on: pixels from `pixel` on, or,
  // with −1, zeros beyond the image. Patches are [C,patch_h,patch_w].
  template <class F>
  void for_each_run(std::int64_t entries, F&& f) const {
    const std::int64_t channels = image_[1], height = image_[2], width = image_[3];
    std::int64_t at = 0;
    for (std::int64_t token = 0; token < entries * grid_h_ * grid_w_; ++token) {
      const std::int64_t entry = token / (grid_h_ * grid_w_);
      const std::int64_t top = token / grid_w_ % grid_h_ * patch_.patch_h;
      const std::int64_t left = token % grid_w_ * patch_.patch_w;
      const std::int64_t inside = std::min<std::int64_t>(patch_.patch_w, width - left);
      for (std::int64_t plane = entry * channels; plane < (entry + 1) * channels; ++plane) {
        for (std::int64_t y = top; y < top + patch_.patch_h; ++y, at += patch_.patch_w) {
          if (y >= height) {
            f(-1, at, patch_.patch_w);
            continue;
          }
          f((plane * height + y) * width + left, at, inside);
          if (inside < patch_.patch_w) f(-1, at + inside, patch_.patch_w - inside);
        }
      }
    }
  }

  LinearOp product_;
  PatchEmbed patch_;
  Shape image_;
  std::int64_t grid_h_, grid_w_;
  std::size_t patch_bytes_;
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
  if (operation.as<Linear>()) return std::make_unique<LinearOp>(request);
  if (operation.as<PatchEmbed>()) return std::make_unique<PatchOp>(request);
  if (operation.as<Mean>()) return std::make_unique<MeanOp>(request);
  if (operation.as<LayerNorm>()) return std::make_unique<NormOp>(request);
  if (operation.as<QShift>()) return std::make_unique<ShiftOp>(request);
  if (operation.as<Add>()) return std::make_unique<SumOp>(request);
  if (operation.as<Mul>()) return std::make_unique<ProductOp>(request);
  if (operation.as<Lerp>()) return std::make_unique<LerpOp>(request);
  return std::make_unique<FunctionOp>(request);
}

}  // namespace weft::torch_engine
