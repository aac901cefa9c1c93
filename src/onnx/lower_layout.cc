// What moves elements: layouts, shifts, grids.
#include <cmath>

#include "core/format.h"
#include "onnx/lowering.h"

namespace weft::onnx_export {

void lower(const Reshape&, Lowering& to) { to.result_reshaped(to.in(0)); }

void lower(const Permute& attributes, Lowering& to) {
  to.result("Transpose", {to.in(0)},
            {{"perm", std::vector<std::int64_t>(attributes.order.begin(), attributes.order.end())}});
}

void lower(const Pad& attributes, Lowering& to) {
  const auto rank = static_cast<std::size_t>(to.out_shape().rank());
  std::vector<std::int64_t> pads(2 * rank, 0);  // before each axis, then behind
  pads[(attributes.axis < 0 ? 2 : 1) * rank + static_cast<std::size_t>(attributes.axis)] = attributes.count;
  to.result("Pad", {to.in(0), to.model().integers(pads)});
}

void lower(const Embedding&, Lowering& to) { to.result("Gather", {to.in(1), to.in(0)}); }

void lower(const Slice& attributes, Lowering& to) {
  const auto one = [&](std::int64_t value) { return to.model().integers(std::span(&value, 1)); };
  to.result("Slice", {to.in(0), one(attributes.begin), one(attributes.end), one(attributes.axis)});
}

void lower(const Concat& attributes, Lowering& to) {
  const std::int64_t batch = to.out_shape()[0];
  Names parts;
  for (std::size_t i = 0; i < to.inputs(); ++i) {
    const Shape& shape = to.in_shape(i);
    std::vector<std::int64_t> extents(shape.extents().begin(), shape.extents().end());
    extents[0] = batch;
    parts.push_back(shape[0] == batch ? to.in(i) : to.add("Expand", {to.in(i), to.model().integers(extents)}));
  }
  to.result("Concat", parts, {{"axis", std::int64_t{attributes.axis}}});
}

void lower(const TokenShift&, Lowering& to) {
  const Shape& x = to.in_shape(0);  // [B,T,C]
  const auto one = [&](std::int64_t value) { return to.model().integers(std::span(&value, 1)); };
  const std::string previous = to.reshape(to.in(1), {x[0], 1, x[2]});
  const std::string both = to.add("Concat", {previous, to.in(0)}, {{"axis", std::int64_t{1}}});
  to.result("Slice", {both, one(0), one(x[1]), one(1)});
}

namespace {

// The weights of an interpolation along one axis, [to,from]: what it makes of the unit vectors.
Tensor weights_along(InterpolateMode mode, std::int64_t from, std::int64_t to) {
  Tensor units = Tensor::zeros({DType::kF64, {1, from, 1, from}});
  for (std::int64_t i = 0; i < from; ++i) units.mutable_data<double>()[static_cast<std::size_t>(i * from + i)] = 1;
  Tensor out(DType::kF64, {1, to, 1, from});
  reference({.mode = mode, .out_h = static_cast<int>(to), .out_w = 1}, std::span(&units, 1), std::span(&out, 1));
  return out.to(DType::kF32).reshaped({to, from});
}

}  // namespace

// One product for each axis: Resize knows pictures with channels first only, and ONNX Runtime refuses cubic ones after
// moving transpositions around.
void lower(const Interpolate& attributes, Lowering& to) {
  const Shape& x = to.in_shape(0);    // [B,H,W,C]
  const Shape& out = to.out_shape();  // [B,out_h,out_w,C]
  const auto weights = [&](std::int64_t from, std::int64_t side) {
    return to.model().constant(fmt::format("{}/{}_{}", name_of(attributes.mode), from, side),
                               [&] { return weights_along(attributes.mode, from, side); });
  };
  const std::string columns = to.reshape(to.in(0), {x[0], x[1], x[2] * x[3]});
  const std::string rows = to.add("MatMul", {weights(x[1], out[1]), columns});
  const std::string grids = to.reshape(rows, {x[0] * out[1], x[2], x[3]});
  to.result_reshaped(to.add("MatMul", {weights(x[2], out[2]), grids}));
}

// Each group of channels is padded with zeros on one side of the grid and cut off on the other.
void lower(const QShift& attributes, Lowering& to) {
  const Shape& x = to.in_shape(0);  // [B,T,C]
  const std::int64_t height = attributes.height;
  const std::int64_t width = attributes.width;
  const std::int64_t p = attributes.pixels;
  const auto cuts = attributes.cuts(x[2]);
  std::vector<std::size_t> which;  // groups with channels, 4: those that stay
  std::vector<std::int64_t> extents;
  for (std::size_t i = 0; i < 5; ++i) {
    const std::int64_t extent = (i < 4 ? cuts[i + 1] : x[2]) - cuts[i];
    if (extent == 0) continue;
    which.push_back(i);
    extents.push_back(extent);
  }
  if (extents.empty()) return to.result("Identity", {to.in(0)});
  const std::string grid = to.reshape(to.in(0), {x[0], height, width, x[2]});
  const Names groups =
      to.add_many("Split", {grid, to.model().integers(extents)}, extents.size(), {{"axis", std::int64_t{3}}});
  Names shifted;
  for (std::size_t g = 0; g < extents.size(); ++g) {
    const std::size_t i = which[g];
    if (i == 4 || p == 0) {
      shifted.push_back(groups[g]);
      continue;
    }
    const std::size_t axis = i < 2 ? 2 : 1;
    if (p >= (axis == 2 ? width : height)) {  // nothing of the grid is left
      const Shape empty{x[0], height, width, extents[g]};
      const std::string name = fmt::format("zeros/{}", empty);
      shifted.push_back(to.model().constant(name, [&] { return Tensor::zeros({DType::kF32, empty}); }));
      continue;
    }
    std::vector<std::int64_t> pads(8, 0);  // before each axis, then behind
    const bool from_before = i == 0 || i == 2;
    pads[axis] = from_before ? p : -p;
    pads[4 + axis] = -pads[axis];
    shifted.push_back(to.add("Pad", {groups[g], to.model().integers(pads)}));
  }
  to.result_reshaped(to.add("Concat", shifted, {{"axis", std::int64_t{3}}}));
}

namespace {

// Of t·angle for all tokens, [T,1,D]: a cosine, or a sine that is negative for the first channel of two.
Tensor turns(const Tensor& angles, std::int64_t tokens, bool sine) {
  const Tensor angle = angles.to(DType::kF64);
  const auto channels = static_cast<std::size_t>(angle.elements());
  Tensor values(DType::kF32, {tokens, 1, angle.elements()});
  const auto to = values.mutable_data<float>();
  for (std::size_t i = 0; i < to.size(); ++i) {
    const std::size_t token = i / channels;
    const double turn = static_cast<double>(token) * angle.data<double>()[i % channels];
    to[i] = static_cast<float>(!sine ? std::cos(turn) : i % 2 == 0 ? -std::sin(turn) : std::sin(turn));
  }
  return values;
}

}  // namespace

// x·cos + (the other channel of two)·(±sin).
void lower(const Rotary&, Lowering& to) {
  const Shape& x = to.in_shape(0);  // [B,T,C]
  const Tensor* const angle = to.constant(1);
  require<UnsupportedError>(angle, to.place(), "rotary cannot be told in ONNX where the angle is computed");
  const std::int64_t channels = angle->elements();
  const auto table = [&](std::string_view function, bool sine) {
    return to.model().constant(fmt::format("{}/{}_{}", to.name(1), function, x[1]),
                               [&] { return turns(*angle, x[1], sine); });
  };
  const std::int64_t heads = x[2] / channels;
  const std::string by_head = to.reshape(to.in(0), {x[0], x[1], heads, channels});
  const std::string pairs = to.reshape(to.in(0), {x[0], x[1], heads, channels / 2, 2});
  const auto one = [&](std::int64_t value) { return to.model().integers(std::span(&value, 1)); };
  const std::string swapped = to.add("Slice", {pairs, one(-1), one(-3), one(-1), one(-1)});  // from the last, backwards
  const std::string across = to.reshape(swapped, {x[0], x[1], heads, channels});
  to.result_reshaped(to.add("Add", {to.add("Mul", {by_head, table("cos", false)}),  //
                                    to.add("Mul", {across, table("sin", true)})}));
}

}  // namespace weft::onnx_export
