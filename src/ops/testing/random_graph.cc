#include "ops/testing/random_graph.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <random>

#include "core/format.h"
#include "ops/ops.h"
#include "ops/testing/random.h"

namespace weft::testing {
namespace {

constexpr std::int64_t kMostElements = 4096;
constexpr int kHighestDegree = 4;

// A value and the largest number of others that are multiplied in it.
struct Entry {
  Value value;
  int degree = 1;
  Shape shape() const { return value.shape(); }  // not a reference: the graph grows
};

std::vector<std::int64_t> extents_of(const Shape& shape) { return {shape.extents().begin(), shape.extents().end()}; }

class Maker {
 public:
  explicit Maker(std::uint64_t seed) : random_(seed) { result_.graph = std::make_unique<Graph>("random"); }

  RandomGraph make() {
    result_.inputs.push_back(random_tensor({between(1, 3), tokens(), between(1, 12)}, random_()));
    result_.inputs.push_back(random_tensor({between(1, 3), between(1, 4), between(1, 12), between(1, 12)}, random_()));
    for (std::size_t i = 0; i < result_.inputs.size(); ++i) {
      keep({graph().input(fmt::format("x{}", i), result_.inputs[i].type())});
    }
    const std::int64_t wanted = between(3, 14);
    while (static_cast<std::int64_t>(graph().nodes().size()) < wanted) {
      (this->*kOperations[static_cast<std::size_t>(between(0, std::size(kOperations) - 1))])();
    }
    choose_outputs();
    return std::move(result_);
  }

 private:
  Graph& graph() { return *result_.graph; }

  std::int64_t between(std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(random_);
  }
  bool chance(double probability) { return std::bernoulli_distribution(probability)(random_); }
  std::int64_t one_of(std::initializer_list<std::int64_t> numbers) {
    return numbers.begin()[between(0, static_cast<std::int64_t>(numbers.size()) - 1)];
  }
  std::int64_t tokens() { return one_of({1, 2, 6, 9, 12, 20, 33, 49, 70}); }  // some with more than one token to a run
  std::int64_t divisor(std::int64_t n) {
    std::vector<std::int64_t> all;
    for (std::int64_t d = 1; d <= n; ++d) {
      if (n % d == 0) all.push_back(d);
    }
    return all[static_cast<std::size_t>(between(0, static_cast<std::int64_t>(all.size()) - 1))];
  }

  // A parameter, or a constant, of normal elements.
  Value weight(Shape shape, double scale = 1) {
    const Tensor tensor = random_tensor(std::move(shape), random_(), static_cast<float>(scale));
    if (chance(0.2)) return graph().constant(tensor);
    const std::string name = fmt::format("w{}", result_.weights.size());
    result_.weights.emplace(name, tensor);
    return graph().parameter(name, tensor.type(), init::constant(0));
  }

  void keep(Entry entry) { pool_.push_back(entry); }

  // A value with this property, later ones more often, or else a new one of this shape.
  Entry pick(const std::function<bool(const Entry&)>& fits, const Shape& otherwise) {
    std::vector<Entry> found;
    std::ranges::copy_if(pool_, std::back_inserter(found), fits);
    if (found.empty()) return {weight(otherwise)};
    const auto last = static_cast<std::int64_t>(found.size()) - 1;
    return found[static_cast<std::size_t>(std::max(between(0, last), between(0, last)))];
  }
  Entry any(int lowest_rank = 1, int highest_degree = kHighestDegree) {
    return pick([&](const Entry& e) { return e.shape().rank() >= lowest_rank && e.degree <= highest_degree; },
                {2, 3, 4, 5});
  }
  Entry of_rank(int rank) {
    const std::vector<std::int64_t> extents{2, 6, 5, 3};
    return pick([&](const Entry& e) { return e.shape().rank() == rank; },
                Shape(std::vector<std::int64_t>(extents.begin(), extents.begin() + rank)));
  }
  Entry like(const Shape& shape) {
    return chance(0.3) ? Entry{weight(shape)} : pick([&](const Entry& e) { return e.shape() == shape; }, shape);
  }
  // Broadcasts to `shape`: some axes 1, the first ones may be missing.
  Value stretching(const Shape& shape) {
    std::vector<std::int64_t> extents = extents_of(shape);
    for (std::int64_t& extent : extents) extent = chance(0.4) ? 1 : extent;
    extents.erase(extents.begin(), extents.begin() + between(0, shape.rank()));
    return weight(Shape(extents));
  }
  int axis_of(const Shape& shape, int lowest = 0) {
    const auto axis = static_cast<int>(between(lowest, shape.rank() - 1));
    return chance(0.3) ? axis - shape.rank() : axis;
  }
  static Shape with(const Shape& shape, int axis, std::int64_t extent) {
    std::vector<std::int64_t> extents = extents_of(shape);
    extents[static_cast<std::size_t>(axis < 0 ? axis + shape.rank() : axis)] = extent;
    return Shape(extents);
  }

  void add_bi_wkv() {
    const Entry k = of_rank(3);
    const Entry v = like(k.shape());
    const std::int64_t channels = k.shape()[2];
    const Wkv form = chance(0.5) ? Wkv::kPaper : Wkv::kReleasedKernel;
    keep({bi_wkv(k.value, v.value, weight({channels}, 0.1), weight({channels}), form), v.degree});
  }
  void add_causal_wkv() {
    const Entry k = of_rank(3);
    const Entry v = like(k.shape());
    const std::int64_t channels = k.shape()[2];
    // As after some tokens: the denominator is positive.
    Tensor state = random_tensor({k.shape()[0], 3, channels}, random_());
    const auto values = state.mutable_data<float>();
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (i / static_cast<std::size_t>(channels) % 3 == 1) values[i] = std::abs(values[i]) + 0.5F;
    }
    const Value decay = weight({channels}, 0.5), bonus = weight({channels});
    const auto [y, next] = causal_wkv(k.value, v.value, decay, bonus, graph().constant(state));
    keep({y, v.degree});
    if (chance(0.5)) keep({next, v.degree});
  }
  void add_token_shift() {
    const Entry x = of_rank(3);
    const Entry previous = like({x.shape()[0], x.shape()[2]});
    keep({token_shift(x.value, previous.value), std::max(x.degree, previous.degree)});
  }
  void add_embedding() {
    const Entry table = of_rank(2);
    if (table.shape().elements() == 0) return;
    Tensor tokens(DType::kI64, {between(1, 3), between(1, 6)});
    for (std::int64_t& token : tokens.mutable_data<std::int64_t>()) token = between(0, table.shape()[0] - 1);
    keep({embedding(graph().constant(tokens), table.value), table.degree});
  }
  void add_aft() {
    const Entry v = of_rank(3);
    const Shape shape = v.shape();
    const std::int64_t tokens = shape[1];
    const std::int64_t keys = divisor(shape[2]);
    const Entry k = like(with(shape, 2, keys));
    Aft a{.causal = chance(0.5)};
    std::optional<Value> bias;
    if (chance(0.4)) {
      const std::int64_t side = tokens + between(0, 2);
      a.window = chance(0.5) ? static_cast<int>(between(1, 9)) : 0;
      bias = weight({side, side});
    } else if (chance(0.7)) {
      if (!a.causal && chance(0.7)) {
        a.height = static_cast<int>(divisor(tokens));
        a.width = static_cast<int>(tokens / a.height);
      }
      bias = weight({divisor(keys), a.height > 0 ? between(1, 4) : 1, between(1, 5)});
    }
    keep({aft(k.value, v.value, bias, a), v.degree});
  }
  void add_linear() {
    const Entry x = any();
    const std::int64_t from = x.shape()[-1];
    const std::int64_t to = between(1, 16);
    if (x.shape().elements() / from * to > kMostElements) return;
    const Value w = weight({to, from}, 1 / std::sqrt(static_cast<double>(from)));
    keep({linear(x.value, w, chance(0.5) ? std::optional(weight({to})) : std::nullopt), x.degree});
  }
  void add_attention() {
    const Entry q = of_rank(3);
    const Shape shape = q.shape();
    const Entry k =
        pick([&](const Entry& e) { return e.shape().rank() == 3 && e.shape() == with(shape, 1, e.shape()[1]); }, shape);
    const Entry v = like(k.shape());
    const Attention attributes{.heads = static_cast<int>(divisor(shape[2])), .scale = chance(0.5) ? 0 : 0.6F};
    keep({attention(q.value, k.value, v.value, attributes), v.degree});
  }
  void add_window_attention() {
    const Entry q = of_rank(3);
    const std::int64_t height = divisor(q.shape()[1]);
    const std::int64_t width = q.shape()[1] / height;
    const auto number = [](std::int64_t n) { return static_cast<int>(n); };
    WindowAttention a{.heads = number(divisor(q.shape()[2])),
                      .scale = chance(0.5) ? 0 : 0.6F,
                      .height = number(height),
                      .width = number(width),
                      .window_h = number(divisor(height)),
                      .window_w = number(divisor(width))};
    if (chance(0.5)) {
      a.shift_h = number(between(0, a.window_h - 1));
      a.shift_w = number(between(0, a.window_w - 1));
    }
    const Entry k = like(q.shape());
    const Entry v = like(q.shape());
    const auto bias = chance(0.7) ? std::optional(weight({a.heads, a.bias_entries()})) : std::nullopt;
    keep({window_attention(q.value, k.value, v.value, bias, a), v.degree});
  }
  void add_sliding_attention() {
    const Entry q = of_rank(3);
    const std::int64_t height = divisor(q.shape()[1]);
    const SlidingAttention a{.heads = static_cast<int>(divisor(q.shape()[2])),
                             .kernel_size = static_cast<int>(2 * between(0, 2) + 1),
                             .scale = chance(0.5) ? 0 : 0.6F,
                             .height = static_cast<int>(height),
                             .width = static_cast<int>(q.shape()[1] / height),
                             .border = chance(0.5) ? SlidingBorder::kExcluded : SlidingBorder::kZeroPadding};
    const Entry k = like(q.shape());
    const Entry v = like(q.shape());
    const auto bias =
        chance(0.7) ? std::optional(weight({a.heads, std::int64_t{a.kernel_size} * a.kernel_size})) : std::nullopt;
    keep({sliding_attention(q.value, k.value, v.value, bias, a), v.degree});
  }
  void add_l2_norm() {
    // One channel alone becomes its sign.
    const Entry x = pick([](const Entry& e) { return e.shape().rank() >= 1 && e.shape()[-1] >= 2; }, {2, 6, 6});
    const std::int64_t heads = divisor(x.shape()[-1]);
    keep({l2_norm(x.value, heads == x.shape()[-1] ? 1 : static_cast<int>(heads))});
  }
  void add_exp() { keep({exp(tanh(any().value))}); }
  void add_clamp() {
    const Entry x = any();
    keep({clamp(x.value, chance(0.5) ? -std::numeric_limits<float>::infinity() : -0.4F, 0.9F), x.degree});
  }
  void add_add() {
    const Entry a = any();
    const Entry b = chance(0.5) ? like(a.shape()) : Entry{stretching(a.shape())};
    keep({chance(0.5) ? add(a.value, b.value) : add(b.value, a.value), std::max(a.degree, b.degree)});
  }
  void add_mul() {
    const Entry a = any(1, kHighestDegree - 1);
    const Entry b = chance(0.5) ? like(a.shape()) : Entry{stretching(a.shape())};
    if (a.degree + b.degree > kHighestDegree) return;
    keep({chance(0.5) ? mul(a.value, b.value) : mul(b.value, a.value), a.degree + b.degree});
  }
  void add_scale() {
    const Entry x = any();
    keep({scale(x.value, chance(0.5) ? 0.7F : -1.3F), x.degree});
  }
  void add_lerp() {
    const Entry x = any(1, kHighestDegree - 1);
    const Entry shifted = like(x.shape());
    if (shifted.degree == kHighestDegree) return;
    keep({lerp(x.value, shifted.value, stretching(x.shape())), std::max(x.degree, shifted.degree) + 1});
  }
  void add_sigmoid() { keep({sigmoid(any().value)}); }
  void add_tanh() { keep({tanh(any().value)}); }
  void add_relu() {
    const Entry x = any();
    keep({relu(x.value), x.degree});
  }
  void add_silu() {
    const Entry x = any();
    keep({silu(x.value), x.degree});
  }
  void add_squared_relu() {
    const Entry x = any(1, kHighestDegree / 2);
    keep({squared_relu(x.value), 2 * x.degree});
  }
  void add_gelu() {
    const Entry x = any();
    keep({gelu(x.value), x.degree});
  }
  void add_layer_norm() {
    // The norm of one or two channels is a step function: right, but worth no comparison.
    const Entry x = pick([](const Entry& e) { return e.shape().rank() >= 1 && e.shape()[-1] >= 3; }, {2, 6, 5});
    const std::int64_t channels = x.shape()[-1];
    keep({layer_norm(x.value, weight({channels}), weight({channels}), chance(0.5) ? 1e-5F : 1e-3F)});
  }
  void add_batch_norm() {
    const Entry x = any();
    const std::int64_t channels = x.shape()[-1];
    // Statistics are no parameters.
    const Value mean = graph().constant(random_tensor({channels}, random_()));
    Tensor variances = random_tensor({channels}, random_());
    for (float& v : variances.mutable_data<float>()) v = v * v + 0.1F;
    const Value variance = graph().constant(variances);
    keep({batch_norm(x.value, weight({channels}), weight({channels}), mean, variance, chance(0.5) ? 1e-5F : 1e-3F),
          x.degree});
  }
  void add_q_shift() {
    const Entry x = of_rank(3);
    const std::int64_t height = divisor(x.shape()[1]);
    const QShift attributes{.height = static_cast<int>(height),
                            .width = static_cast<int>(x.shape()[1] / height),
                            .pixels = static_cast<int>(between(0, 2)),
                            .gamma = chance(0.7) ? 0.25 : 0.2};
    keep({q_shift(x.value, attributes), x.degree});
  }
  void add_rotary() {
    const Entry x = pick([](const Entry& e) { return e.shape().rank() == 3 && e.shape()[2] % 2 == 0; }, {2, 6, 4});
    keep({rotary(x.value, weight({2 * divisor(x.shape()[2] / 2)})), x.degree});
  }
  void add_reshape() {
    const Entry x = any();
    std::vector<std::int64_t> extents = extents_of(x.shape());
    const auto axis = extents.begin() + between(0, x.shape().rank() - 1);
    if (chance(0.5) && axis + 1 != extents.end()) {
      axis[1] *= axis[0];
      extents.erase(axis);
    } else if (extents.size() < 5) {
      const std::int64_t part = divisor(*axis);
      *axis /= part;
      extents.insert(axis + 1, part);
    }
    keep({reshape(x.value, Shape(extents)), x.degree});
  }
  void add_permute() {
    const Entry x = any();
    std::vector<int> order(static_cast<std::size_t>(x.shape().rank()));
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int>(i);
    std::ranges::shuffle(order, random_);
    keep({permute(x.value, order), x.degree});
  }
  void add_pad() {
    const Entry x = any();
    const std::int64_t count = between(0, 4);
    const int axis = axis_of(x.shape());
    if (x.shape().elements() / x.shape()[axis] * (x.shape()[axis] + count) > kMostElements) return;
    keep({pad(x.value, axis, count), x.degree});
  }
  void add_slice() {
    const Entry x = any();
    const int axis = axis_of(x.shape());
    const std::int64_t begin = between(0, x.shape()[axis] - 1);
    keep({slice(x.value, axis, begin, between(begin + 1, x.shape()[axis])), x.degree});
  }
  void add_concat() {
    const Entry x = any(2);
    if (2 * x.shape().elements() > kMostElements) return;
    const int axis = axis_of(x.shape(), 1);
    Shape other = with(x.shape(), axis, between(1, x.shape()[axis]));
    if (chance(0.4)) other = with(other, 0, 1);
    std::vector<Value> parts{x.value, weight(other)};
    if (chance(0.3)) parts.push_back(x.value);
    std::ranges::shuffle(parts, random_);
    keep({concat(parts, axis), x.degree});
  }
  void add_mean() {
    const Entry x = any(2);
    keep({mean(x.value, axis_of(x.shape())), x.degree});
  }
  void add_patch_embed() {
    const Entry image = of_rank(4);
    const PatchEmbed patch{.patch_h = static_cast<int>(between(1, 5)), .patch_w = static_cast<int>(between(1, 5))};
    const std::int64_t channels = between(1, 9);
    const Shape shape{channels, image.shape()[1], patch.patch_h, patch.patch_w};
    const double fan_in = static_cast<double>(shape.elements() / channels);
    if (image.shape()[0] * patch.grid_height(image.shape()) * patch.grid_width(image.shape()) * channels >
        kMostElements)
      return;
    const Value w = weight(shape, 1 / std::sqrt(fan_in));
    keep({patch_embed(image.value, w, chance(0.5) ? std::optional(weight({channels})) : std::nullopt, patch),
          image.degree});
  }
  std::optional<Value> maybe_bias(std::int64_t channels) {
    return chance(0.5) ? std::optional(weight({channels})) : std::nullopt;
  }
  void add_conv2d() {
    const Entry x = of_rank(4);
    const Conv2d op{.stride = static_cast<int>(between(1, 3)), .padding = static_cast<int>(between(0, 2))};
    const Shape shape{between(1, 9), x.shape()[3], between(1, std::min<std::int64_t>(4, x.shape()[1])),
                      between(1, std::min<std::int64_t>(4, x.shape()[2]))};
    const std::int64_t places = x.shape()[0] * (x.shape()[1] + 4) * (x.shape()[2] + 4);
    if (places / (op.stride * op.stride) * shape[0] > kMostElements) return;
    const double fan_in = static_cast<double>(shape.elements() / shape[0]);
    keep({conv2d(x.value, weight(shape, 1 / std::sqrt(fan_in)), maybe_bias(shape[0]), op), x.degree});
  }
  void add_depthwise_conv() {
    const Entry x = of_rank(4);
    const DepthwiseConv op{.padding = static_cast<int>(between(0, 3))};
    const std::int64_t channels = x.shape()[3];
    if (x.shape()[0] * (x.shape()[1] + 6) * (x.shape()[2] + 6) * channels > kMostElements) return;
    const std::int64_t kernel_h = between(1, std::min<std::int64_t>(7, x.shape()[1]));
    const std::int64_t kernel_w = between(1, std::min<std::int64_t>(7, x.shape()[2]));
    const Shape one{channels, 1, kernel_h, kernel_w};
    const Shape many{x.shape()[0], channels, kernel_h, kernel_w};
    const Entry kernels = chance(0.5) ? like(many) : Entry{weight(one, 0.3)};
    if (x.degree + kernels.degree > kHighestDegree) return;
    keep({depthwise_conv(x.value, kernels.value, maybe_bias(channels), op), x.degree + kernels.degree});
  }
  void add_involution() {
    const Entry x = of_rank(4);
    const Involution op{.kernel_size = static_cast<int>(one_of({1, 3, 5}))};
    const std::int64_t kernels = divisor(x.shape()[3]) * op.taps();
    if (x.shape().elements() / x.shape()[3] * kernels > kMostElements) return;
    const Entry weights = like(with(x.shape(), 3, kernels));
    if (x.degree + weights.degree > kHighestDegree) return;
    keep({involution(x.value, weights.value, op), x.degree + weights.degree});
  }
  void add_interpolate() {
    const Entry x = of_rank(4);
    const std::array modes{InterpolateMode::kBilinear, InterpolateMode::kBicubic, InterpolateMode::kBicubicAntialias};
    const Interpolate attributes{.mode = modes[static_cast<std::size_t>(between(0, 2))],
                                 .out_h = static_cast<int>(between(1, 9)),
                                 .out_w = static_cast<int>(between(1, 9))};
    if (x.shape()[0] * x.shape()[3] * attributes.out_h * attributes.out_w > kMostElements) return;
    keep({interpolate(x.value, attributes), x.degree});
  }

  // What nobody uses, and sometimes a value from the middle, an input or the same value twice.
  void choose_outputs() {
    std::vector<bool> used(graph().values().size());
    for (const Graph::Node& node : graph().nodes()) {
      for (const int id : node.inputs) used[static_cast<std::size_t>(id)] = true;
    }
    int count = 0;
    for (const Entry& entry : pool_) {
      const bool is_result = graph().value(entry.value.id()).kind == Graph::Kind::kResult;
      if ((is_result && !used[static_cast<std::size_t>(entry.value.id())]) || chance(0.1)) {
        graph().output(fmt::format("y{}", count++), entry.value);
      }
    }
    if (chance(0.1)) graph().output(fmt::format("y{}", count), pool_.back().value);
  }

  using Adder = void (Maker::*)();
  static constexpr Adder kOperations[] = {&Maker::add_bi_wkv,
                                          &Maker::add_linear,
                                          &Maker::add_attention,
                                          &Maker::add_add,
                                          &Maker::add_mul,
                                          &Maker::add_scale,
                                          &Maker::add_lerp,
                                          &Maker::add_sigmoid,
                                          &Maker::add_tanh,
                                          &Maker::add_squared_relu,
                                          &Maker::add_gelu,
                                          &Maker::add_layer_norm,
                                          &Maker::add_q_shift,
                                          &Maker::add_reshape,
                                          &Maker::add_permute,
                                          &Maker::add_slice,
                                          &Maker::add_concat,
                                          &Maker::add_mean,
                                          &Maker::add_patch_embed,
                                          &Maker::add_interpolate,
                                          &Maker::add_relu,
                                          &Maker::add_silu,
                                          &Maker::add_pad,
                                          &Maker::add_batch_norm,
                                          &Maker::add_conv2d,
                                          &Maker::add_depthwise_conv,
                                          &Maker::add_involution,
                                          &Maker::add_rotary,
                                          &Maker::add_window_attention,
                                          &Maker::add_sliding_attention,
                                          &Maker::add_l2_norm,
                                          &Maker::add_exp,
                                          &Maker::add_clamp,
                                          &Maker::add_causal_wkv,
                                          &Maker::add_token_shift,
                                          &Maker::add_aft,
                                          &Maker::add_embedding};

  std::mt19937_64 random_;
  RandomGraph result_;
  std::vector<Entry> pool_;
};

}  // namespace

RandomGraph random_graph(std::uint64_t seed) { return Maker(seed).make(); }

}  // namespace weft::testing
