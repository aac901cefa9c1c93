#include "kernel/onednn.h"

#include <algorithm>
#include <string>

#include "core/format.h"
#include "kernel/onednn_engine.h"

namespace weft::onednn {
namespace {

using dnnl::memory;

struct Product {
  dnnl::matmul primitive;
  memory::desc src, dst, bias, weight, scratch;
};

Product make_product(std::int64_t rows, std::int64_t k, std::int64_t n, bool with_bias, const memory::desc& weight) {
  using Tag = memory::format_tag;
  const auto f32 = memory::data_type::f32;
  const memory::desc src({rows, k}, f32, Tag::ab);
  const memory::desc dst({rows, n}, f32, Tag::ab);
  const memory::desc bias = with_bias ? memory::desc({1, n}, f32, Tag::ab) : memory::desc();
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  const auto description =
      with_bias ? dnnl::matmul::desc(src, weight, bias, dst) : dnnl::matmul::desc(src, weight, dst);
  const dnnl::matmul::primitive_desc pd(description, attributes, engine());
  return {dnnl::matmul(pd), src, dst, bias, pd.weights_desc(), pd.scratchpad_desc()};
}

// Equal tiles, several for each thread, so that a slowed core just takes fewer; large enough to reuse the packed
// weights from cache, small enough that the activations stay there.
std::int64_t choose_tile_rows(std::int64_t rows, int threads) {
  constexpr std::int64_t kSmallest = 32;
  constexpr std::int64_t kLargest = 256;
  const std::int64_t enough = std::max<std::int64_t>((rows + kLargest - 1) / kLargest, 2 * threads);
  const std::int64_t tiles = std::clamp<std::int64_t>(enough, 1, std::max<std::int64_t>(rows / kSmallest, 1));
  return std::max<std::int64_t>((rows + tiles - 1) / tiles, 1);
}

}  // namespace

struct TiledLinear::Impl {
  std::int64_t tile_rows;
  Product tile;
  Product rest;
  memory weight;
  memory bias;
  std::size_t scratch_bytes;
  Tensor packed;  // owns the weights' memory
  Tensor bias_values;
};

TiledLinear::TiledLinear(const Tensor& weight, const Tensor* bias, std::int64_t rows, int threads, PackCache& packs) {
  const SingleThread single;
  const std::int64_t n = weight.shape()[0];
  const std::int64_t k = weight.shape()[1];
  const std::int64_t tile_rows = choose_tile_rows(rows, threads);
  try {
    const memory::desc any({k, n}, memory::data_type::f32, memory::format_tag::any);
    Product tile = make_product(tile_rows, k, n, bias != nullptr, any);
    const std::int64_t rest_rows = rows % tile_rows;
    Product rest = rest_rows == 0 ? tile : make_product(rest_rows, k, n, bias != nullptr, tile.weight);
    const Tensor packed = packs.get(weight, layout_key(tile.weight), [&] {
      const memory::desc plain({k, n}, memory::data_type::f32, memory::format_tag::ba);
      Tensor out(DType::kU8, Shape{static_cast<std::int64_t>(tile.weight.get_size())});
      memory from(plain, engine(), const_cast<std::byte*>(weight.raw()));
      memory to(tile.weight, engine(), out.mutable_raw());
      dnnl::reorder(from, to).execute(stream(), from, to);
      stream().wait();
      return out;
    });
    impl_ = std::make_unique<Impl>(Impl{
        .tile_rows = tile_rows,
        .tile = tile,
        .rest = rest,
        .weight = memory(tile.weight, engine(), const_cast<std::byte*>(packed.raw())),
        .bias = bias ? memory(tile.bias, engine(), const_cast<std::byte*>(bias->raw())) : memory(),
        .scratch_bytes = (std::max(tile.scratch.get_size(), rest.scratch.get_size()) + 63) / 64 * 64,
        .packed = packed,
        .bias_values = bias ? *bias : Tensor(),
    });
  } catch (const dnnl::error& error) {
    fail<UnsupportedError>("linear", "oneDNN has no product for [{},{}] x [{},{}]: {}", rows, k, k, n, error.what());
  }
}

TiledLinear::~TiledLinear() = default;
TiledLinear::TiledLinear(TiledLinear&&) noexcept = default;

std::int64_t TiledLinear::tile_rows() const { return impl_->tile_rows; }
std::size_t TiledLinear::scratch_bytes() const { return impl_->scratch_bytes; }

void TiledLinear::run(const float* x, float* y, std::int64_t rows, std::byte* scratch) const noexcept {
  const SingleThread single;
  const Product& product = rows == impl_->tile_rows ? impl_->tile : impl_->rest;
  const memory src(product.src, engine(), const_cast<float*>(x));
  const memory dst(product.dst, engine(), y);
  const memory pad(product.scratch, engine(), scratch);
  if (impl_->bias) {
    product.primitive.execute(stream(), {{DNNL_ARG_SRC, src},
                                         {DNNL_ARG_WEIGHTS, impl_->weight},
                                         {DNNL_ARG_BIAS, impl_->bias},
                                         {DNNL_ARG_DST, dst},
                                         {DNNL_ARG_SCRATCHPAD, pad}});
  } else {
    product.primitive.execute(
        stream(),
        {{DNNL_ARG_SRC, src}, {DNNL_ARG_WEIGHTS, impl_->weight}, {DNNL_ARG_DST, dst}, {DNNL_ARG_SCRATCHPAD, pad}});
  }
}

}  // namespace weft::onednn
