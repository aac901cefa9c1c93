#include "kernel/onednn.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "core/format.h"
#include "core/half.h"
#include "kernel/matvec.h"
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

// Some columns of a product.
struct Columns {
  Primitive product;
  memory weight, bias;
  std::size_t first_byte = 0;  // in a row of y
};

// Columns [begin, end) of packed weights as weights of their own, and at which byte they begin; nothing where they are
// not laid out as oneDNN would lay out them alone.
std::optional<std::pair<memory::desc, std::size_t>> columns_of(const memory::desc& packed, const memory::desc& alone,
                                                               std::int64_t begin, std::int64_t end) {
  try {
    memory::desc part = packed.submemory_desc({packed.dims()[0], end - begin}, {0, begin});
    const auto first = static_cast<std::size_t>(part.data.offset0) * memory::data_type_size(packed.data_type());
    part.data.offset0 = 0;  // v2: a plain struct
    if (part == alone) return std::pair(part, first);
  } catch (const dnnl::error&) {  // cut within a block
  }
  return std::nullopt;
}

// Packed weights as one row is multiplied by them; nothing where oneDNN lays them out otherwise, or where they are so
// few that they stay in a cache.
std::optional<ColumnBlocks> column_blocks(const memory::desc& layout, const Tensor& values, DType precision,
                                          std::int64_t k, std::int64_t n) {
  constexpr std::size_t kFewBytes = std::size_t{512} << 10;
  const dnnl_blocking_desc_t& blocks = layout.data.format_desc.blocking;  // v2: a plain struct
  const int group = precision == DType::kF32 ? 1 : precision == DType::kBF16 ? 2 : 4;
  const bool grouped = group == 1
                           ? blocks.inner_nblks == 2
                           : blocks.inner_nblks == 3 && blocks.inner_idxs[2] == 0 && blocks.inner_blks[2] == group;
  const bool known =
      layout.data.format_kind == dnnl_blocked && layout.data.offset0 == 0 && grouped && blocks.inner_idxs[0] == 0 &&
      blocks.inner_idxs[1] == 1 && blocks.inner_blks[1] == ColumnBlocks::kColumns &&
      blocks.strides[0] == blocks.inner_blks[0] * ColumnBlocks::kColumns * group && values.bytes() >= kFewBytes;
  if (!known) return std::nullopt;
  return ColumnBlocks{.dtype = precision,
                      .k = k,
                      .n = n,
                      .block_bytes = static_cast<std::size_t>(blocks.strides[1]) * size_of(precision),
                      .data = values.raw()};
}

// One layout for tiles of all heights, so that all shapes share one packed copy.
constexpr std::int64_t kUsualRows = 64;

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
  std::vector<Columns> parts;
  std::optional<ColumnBlocks> blocks;  // for a single row
  std::int64_t part_columns = 0;       // of those
  std::size_t scratch_bytes = 0;

  bool is_row(std::int64_t rows) const { return rows == 1 && blocks.has_value(); }
  bool adds_bias() const { return bias_values.elements() > 0 && precision != DType::kI8; }  // kI8: when decoding

  Type output_type() const { return output == DType::kBF16 ? Type::bf16 : Type::f32; }

  // Of the columns from `begin` on that `w` has.
  dnnl::matmul::primitive_desc describe(std::int64_t rows, const memory::desc& w, std::int64_t begin = 0) const {
    const Types types = types_of(precision);
    const std::int64_t columns = w.dims()[1];
    const memory::desc x({rows, k}, types.x, Tag::ab);
    const memory::desc y({rows, columns}, output_type(), {n, 1});
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    if (precision == DType::kI8) {
      const auto scales = packed.scales_and_sums.data<float>().subspan(static_cast<std::size_t>(begin),
                                                                       static_cast<std::size_t>(columns));
      attributes.set_output_scales(2, {scales.begin(), scales.end()});
    }
    if (activation == Activation::kSquaredRelu) {
      dnnl::post_ops post;
      post.append_eltwise(1, dnnl::algorithm::eltwise_relu, 0, 0);
      post.append_eltwise(1, dnnl::algorithm::eltwise_square, 0, 0);
      attributes.set_post_ops(post);
    }
    const auto description = adds_bias() ? dnnl::matmul::desc(x, w, memory::desc({1, columns}, Type::f32, Tag::ab), y)
                                         : dnnl::matmul::desc(x, w, y);
    return {description, attributes, engine()};
  }

  Primitive make(std::int64_t rows) const { return make(describe(rows, packed.layout)); }
  static Primitive make(const dnnl::matmul::primitive_desc& pd) {
    return {dnnl::matmul(pd), pd.src_desc(), pd.dst_desc(), pd.scratchpad_desc()};
  }

  // `x` and `y` are where the product's are, its columns of y.
  void run(const Primitive& product, const memory& w, const memory& b, const std::byte* x, std::byte* y,
           std::byte* scratch) const {
    const memory from(product.x, engine(), const_cast<std::byte*>(x));
    const memory to(product.y, engine(), y);
    const memory pad(product.scratch, engine(), scratch);
    if (adds_bias()) {
      execute(product.primitive, {{DNNL_ARG_SRC, from.get()},
                                  {DNNL_ARG_WEIGHTS, w.get()},
                                  {DNNL_ARG_BIAS, b.get()},
                                  {DNNL_ARG_DST, to.get()},
                                  {DNNL_ARG_SCRATCHPAD, pad.get()}});
    } else {
      execute(product.primitive, {{DNNL_ARG_SRC, from.get()},
                                  {DNNL_ARG_WEIGHTS, w.get()},
                                  {DNNL_ARG_DST, to.get()},
                                  {DNNL_ARG_SCRATCHPAD, pad.get()}});
    }
  }

  // Columns [begin, end) of one row, without oneDNN.
  void run_row(const std::byte* x, std::byte* y, std::int64_t begin, std::int64_t end, std::byte* scratch) const {
    constexpr std::int64_t kStep = 4 * ColumnBlocks::kColumns;
    std::array<float, kStep> sums;
    prepare_row(*blocks, x, scratch);
    for (std::int64_t from = begin; from < end; from += kStep) {
      const std::int64_t to = std::min(from + kStep, end);
      multiply_row(*blocks, scratch, from, to, sums.data());
      finish(std::span(sums).first(static_cast<std::size_t>(to - from)), from, y);
    }
  }

  // From sums to results, in loops that the compiler makes vectors of.
  void finish(std::span<float> sums, std::int64_t column, std::byte* y) const {
    if (precision == DType::kI8) {
      const float* const scales = packed.scales_and_sums.data<float>().data() + column;
      for (std::size_t i = 0; i < sums.size(); ++i) sums[i] *= scales[i];
    }
    if (adds_bias()) {
      const float* const its = bias_values.data<float>().data() + column;
      for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += its[i];
    }
    if (activation == Activation::kSquaredRelu) {
      for (float& sum : sums) sum = sum > 0 ? sum * sum : 0;
    }
    if (output == DType::kBF16) {
      std::ranges::transform(sums, reinterpret_cast<BFloat16*>(y) + column, [](float sum) { return to_bfloat16(sum); });
    } else {
      std::ranges::copy(sums, reinterpret_cast<float*>(y) + column);
    }
  }

  std::optional<Columns> make_columns(std::int64_t rows, std::int64_t begin, std::int64_t end) const {
    const memory::desc any({k, end - begin}, types_of(precision).weight, Tag::any);
    const auto found = columns_of(packed.layout, describe(kUsualRows, any, begin).weights_desc(), begin, end);
    if (!found) return std::nullopt;
    const auto& [desc, first] = *found;
    Columns columns{.product = make(describe(rows, desc, begin)), .weight = {}, .bias = {}};
    columns.weight = memory(desc, engine(), const_cast<std::byte*>(packed.values.raw()) + first);
    if (adds_bias()) {
      const auto* const from = bias_values.data<float>().data() + begin;
      columns.bias = memory(memory::desc({1, end - begin}, Type::f32, Tag::ab), engine(), const_cast<float*>(from));
    }
    columns.first_byte = static_cast<std::size_t>(begin) * memory::data_type_size(output_type());
    return columns;
  }

  void pack(const Tensor& source, PackCache& packs, const Arrangement& arrangement) {
    const Types types = types_of(precision);
    const auto matrix = [&] {
      const Tensor wide = source.to(DType::kF32);
      return arrangement.apply ? arrangement.apply(wide) : wide;
    };
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
    blocks = column_blocks(packed.layout, packed.values, precision, k, n);
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
  if (self.is_row(self.tile_rows)) {
    self.scratch_bytes = matvec_row_bytes(self.k);
    return;
  }
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
  const Impl& self = *impl_;
  if (self.is_row(self.tile_rows)) return self.run_row(x, y, 0, self.n, scratch);
  const SingleThread single;
  self.run(rows == self.tile_rows ? self.tile : self.rest, self.weight, self.bias, x, y, scratch);
}

std::int64_t Product::set_parts(std::int64_t rows, std::int64_t parts) {
  constexpr std::int64_t kBlock = ColumnBlocks::kColumns;  // that oneDNN lays out together, at most
  const SingleThread single;
  Impl& self = *impl_;
  const std::int64_t width = ((self.n + parts - 1) / parts + kBlock - 1) / kBlock * kBlock;
  if (self.is_row(rows)) {
    self.part_columns = width;
    self.scratch_bytes = matvec_row_bytes(self.k);
    return (self.n + width - 1) / width;
  }
  self.parts.clear();
  try {
    for (std::int64_t begin = 0; begin < self.n; begin += width) {
      auto columns = self.make_columns(rows, begin, std::min(begin + width, self.n));
      if (!columns) {
        self.parts = {{.product = self.make(rows), .weight = self.weight, .bias = self.bias}};
        break;
      }
      self.parts.push_back(*std::move(columns));
    }
  } catch (const dnnl::error& error) {
    fail<UnsupportedError>("linear", "oneDNN has no {} product of {} rows, K={} and N={} on this CPU: {}",
                           name_of(self.precision), rows, self.k, self.n, error.what());
  }
  std::size_t bytes = 0;
  for (const Columns& part : self.parts) bytes = std::max(bytes, part.product.scratch.get_size());
  self.scratch_bytes = whole_lines(bytes);
  return static_cast<std::int64_t>(self.parts.size());
}

void Product::run_part(const std::byte* x, std::byte* y, std::int64_t part, std::byte* scratch) const noexcept {
  if (impl_->part_columns > 0) {
    const std::int64_t begin = part * impl_->part_columns;
    return impl_->run_row(x, y, begin, std::min(begin + impl_->part_columns, impl_->n), scratch);
  }
  const SingleThread single;
  const Columns& columns = impl_->parts[static_cast<std::size_t>(part)];
  impl_->run(columns.product, columns.weight, columns.bias, x, y + columns.first_byte, scratch);
}

Decoding Product::decoding() const {
  const Tensor& bias = impl_->bias_values;
  return {.n = impl_->n,
          .sums = impl_->packed.scales_and_sums.data<float>().data() + impl_->n,
          .bias = bias.elements() > 0 ? bias.data<float>().data() : nullptr};
}

}  // namespace weft::onednn
