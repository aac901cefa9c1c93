#include "kernel/onednn.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/format.h"
#include "kernel/onednn_engine.h"
#include "kernel/scratch.h"

namespace weft::onednn {
namespace {

using dnnl::memory;
using Tag = memory::format_tag;
using Type = memory::data_type;

struct Types {
  Type x, weight;
};

Types types_of(DType precision) {
  if (precision == DType::kBF16) return {Type::bf16, Type::bf16};
  if (precision == DType::kI8) return {Type::u8, Type::s8};
  return {Type::f32, Type::f32};
}

// W [N,K] rounded to 8 bits, and per row its scale and Σ of the rounded row, [2,N].
struct Rounded {
  Tensor values;  // kI8
  Tensor scales_and_sums;
};

Rounded round_weight(const Tensor& weight) {
  const auto n = static_cast<std::size_t>(weight.shape()[0]);
  const auto k = static_cast<std::size_t>(weight.shape()[1]);
  Rounded rounded{Tensor(DType::kI8, weight.shape()), Tensor(DType::kF32, Shape{2, weight.shape()[0]})};
  const float* from = weight.data<float>().data();
  auto* to = reinterpret_cast<std::int8_t*>(rounded.values.mutable_raw());
  const auto columns = rounded.scales_and_sums.mutable_data<float>();
  for (std::size_t row = 0; row < n; ++row, from += k, to += k) {
    float largest = 0;
    bool finite = true;
    for (std::size_t i = 0; i < k; ++i) {
      largest = std::max(largest, std::abs(from[i]));
      finite = finite && std::isfinite(from[i]);
    }
    // A row that is not finite gives NaN, as it would in f32; one of subnormal numbers only is as good as zeros.
    const bool usable = finite && largest >= 127 * std::numeric_limits<float>::min();
    const float scale = usable ? largest / 127 : finite ? 0 : std::numeric_limits<float>::quiet_NaN();
    const float factor = usable ? 1 / scale : 0;
    std::int64_t sum = 0;
    for (std::size_t i = 0; i < k; ++i) {
      to[i] = usable ? static_cast<std::int8_t>(std::clamp(std::nearbyint(from[i] * factor), -127.0F, 127.0F))
                     : std::int8_t{0};
      sum += to[i];
    }
    columns[row] = scale;
    columns[n + row] = scale * static_cast<float>(sum);
  }
  return rounded;
}

// Weights as the products want them.
struct Packed {
  memory::desc layout;
  Tensor values;
  Tensor scales_and_sums;  // kI8 only: [2,N]
};

struct Primitive {
  dnnl::matmul primitive;
  memory::desc x, y, scratch;
};

}  // namespace

struct Product::Impl {
  std::int64_t n, k;
  DType precision;
  Packed packed;
  Tensor bias_values;  // empty: none
  memory weight, bias;
  Activation activation = Activation::kNone;
  DType output = DType::kF32;
  std::int64_t tile_rows = 0;
  Primitive tile, rest;
  std::size_t scratch_bytes = 0;

  bool adds_bias() const { return bias_values.elements() > 0 && precision != DType::kI8; }  // kI8: when decoding

  dnnl::matmul::primitive_desc describe(std::int64_t rows, const memory::desc& w) const {
    const Types types = types_of(precision);
    const memory::desc x({rows, k}, types.x, Tag::ab);
    const memory::desc y({rows, n}, output == DType::kBF16 ? Type::bf16 : Type::f32, Tag::ab);
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    if (precision == DType::kI8) {
      const auto scales = packed.scales_and_sums.data<float>().first(static_cast<std::size_t>(n));
      attributes.set_output_scales(2, {scales.begin(), scales.end()});
    }
    if (activation == Activation::kSquaredRelu) {
      dnnl::post_ops post;
      post.append_eltwise(1, dnnl::algorithm::eltwise_relu, 0, 0);
      post.append_eltwise(1, dnnl::algorithm::eltwise_square, 0, 0);
      attributes.set_post_ops(post);
    }
    const auto description = adds_bias() ? dnnl::matmul::desc(x, w, memory::desc({1, n}, Type::f32, Tag::ab), y)
                                         : dnnl::matmul::desc(x, w, y);
    return {description, attributes, engine()};
  }

  Primitive make(std::int64_t rows) const {
    const auto pd = describe(rows, packed.layout);
    return {dnnl::matmul(pd), pd.src_desc(), pd.dst_desc(), pd.scratchpad_desc()};
  }

  void pack(const Tensor& source, PackCache& packs, const Arrangement& arrangement) {
    // One layout for tiles of all heights, so that all shapes share one packed copy.
    constexpr std::int64_t kUsualRows = 64;
    const Types types = types_of(precision);
    const auto matrix = [&] { return arrangement.apply ? arrangement.apply(source) : source; };
    const auto key = [&](const std::string& form) {  // the same elements may lie in several shapes
      return arrangement.apply ? fmt::format("{} of {}: {}", arrangement.name, source.shape(), form) : form;
    };
    Tensor rounded;
    if (precision == DType::kI8) {
      const auto round = [&] {
        Rounded both = round_weight(matrix());
        rounded = both.values;
        return both.scales_and_sums;
      };
      packed.scales_and_sums = packs.get(source, key(fmt::format("i8 scales of {}", source.shape())), round);
    }
    packed.layout = describe(kUsualRows, memory::desc({k, n}, types.weight, Tag::any)).weights_desc();
    packed.values = packs.get(source, key(layout_key(packed.layout)), [&] {
      if (precision == DType::kI8 && rounded.elements() == 0) rounded = round_weight(matrix()).values;
      const Tensor plain = precision == DType::kI8 ? rounded : matrix();
      const Type plain_type = precision == DType::kI8 ? Type::s8 : Type::f32;
      Tensor out(DType::kU8, Shape{static_cast<std::int64_t>(packed.layout.get_size())});
      memory from(memory::desc({k, n}, plain_type, Tag::ba), engine(), const_cast<std::byte*>(plain.raw()));
      memory to(packed.layout, engine(), out.mutable_raw());
      dnnl::reorder(from, to).execute(stream(), from, to);
      stream().wait();
      return out;
    });
    weight = memory(packed.layout, engine(), const_cast<std::byte*>(packed.values.raw()));
    if (adds_bias()) {
      bias = memory(memory::desc({1, n}, Type::f32, Tag::ab), engine(), const_cast<std::byte*>(bias_values.raw()));
    }
  }
};

bool multiplies_natively(DType precision) {
  // An order of instruction sets in which each has what those before it have.
  const dnnl::cpu_isa isa = dnnl::get_effective_cpu_isa();
  switch (precision) {
    case DType::kBF16:
      return isa == dnnl::cpu_isa::avx512_core_bf16 || isa == dnnl::cpu_isa::avx512_core_amx;
    case DType::kI8:
      return isa == dnnl::cpu_isa::avx2_vnni || isa == dnnl::cpu_isa::avx512_core_vnni ||
             isa == dnnl::cpu_isa::avx512_core_bf16 || isa == dnnl::cpu_isa::avx512_core_amx;
    default:
      return precision == DType::kF32;
  }
}

Product::Product(const Tensor& weight, const Tensor* bias, DType precision, PackCache& packs,
                 const Arrangement& arrangement)
    : impl_(std::make_unique<Impl>(Impl{
          .n = weight.shape()[0], .k = weight.elements() / weight.shape()[0], .precision = precision, .packed = {}})) {
  const SingleThread single;
  require<UnsupportedError>(
      precision != DType::kI8 || multiplies_natively(precision), "linear",
      "int8 products need a CPU with VNNI: without, sums of two products overflow 16 bits; use f32");
  if (bias) impl_->bias_values = *bias;
  try {
    impl_->pack(weight, packs, arrangement);
  } catch (const dnnl::error& error) {
    fail<UnsupportedError>("linear", "oneDNN has no {} product of K={} and N={} on this CPU: {}", name_of(precision),
                           impl_->k, impl_->n, error.what());
  }
}

Product::~Product() = default;
Product::Product(Product&&) noexcept = default;

DType Product::precision() const { return impl_->precision; }

void Product::set_activation(Activation activation) { impl_->activation = activation; }
void Product::set_output(DType encoding) { impl_->output = encoding; }

void Product::set_rows(std::int64_t rows, std::int64_t tile_rows) {
  const SingleThread single;
  Impl& self = *impl_;
  self.tile_rows = std::min(tile_rows, rows);
  try {
    self.tile = self.make(self.tile_rows);
    const std::int64_t rest = rows % self.tile_rows;
    self.rest = rest == 0 ? self.tile : self.make(rest);
  } catch (const dnnl::error& error) {
    fail<UnsupportedError>("linear", "oneDNN has no {} product of {} rows, K={} and N={} on this CPU: {}",
                           name_of(self.precision), tile_rows, self.k, self.n, error.what());
  }
  self.scratch_bytes = whole_lines(std::max(self.tile.scratch.get_size(), self.rest.scratch.get_size()));
}

std::size_t Product::scratch_bytes() const { return impl_->scratch_bytes; }

void Product::run(const std::byte* x, std::byte* y, std::int64_t rows, std::byte* scratch) const noexcept {
  const SingleThread single;
  const Impl& self = *impl_;
  const Primitive& product = rows == self.tile_rows ? self.tile : self.rest;
  const memory from(product.x, engine(), const_cast<std::byte*>(x));
  const memory to(product.y, engine(), y);
  const memory pad(product.scratch, engine(), scratch);
  if (self.adds_bias()) {
    execute(product.primitive, {{DNNL_ARG_SRC, from.get()},
                                {DNNL_ARG_WEIGHTS, self.weight.get()},
                                {DNNL_ARG_BIAS, self.bias.get()},
                                {DNNL_ARG_DST, to.get()},
                                {DNNL_ARG_SCRATCHPAD, pad.get()}});
  } else {
    execute(product.primitive, {{DNNL_ARG_SRC, from.get()},
                                {DNNL_ARG_WEIGHTS, self.weight.get()},
                                {DNNL_ARG_DST, to.get()},
                                {DNNL_ARG_SCRATCHPAD, pad.get()}});
  }
}

Decoding Product::decoding() const {
  const Tensor& bias = impl_->bias_values;
  return {.n = impl_->n,
          .sums = impl_->packed.scales_and_sums.data<float>().data() + impl_->n,
          .bias = bias.elements() > 0 ? bias.data<float>().data() : nullptr};
}

}  // namespace weft::onednn
