#include "kernel/onednn_attention.h"

#include <algorithm>
#include <array>
#include <initializer_list>

#include "core/format.h"
#include "kernel/onednn_engine.h"
#include "kernel/scratch.h"

namespace weft::onednn {
namespace {

using dnnl::memory;

// y = a·w or y += a·w; a is [m,k], w packed from [k,n], y is [m,n].
struct TileProduct {
  dnnl::matmul primitive;
  memory::desc a, y, packed, scratch;
};

TileProduct make_tile_product(std::int64_t m, std::int64_t k, std::int64_t n, memory::data_type type,
                              const memory::desc* packed, bool accumulates) {
  const memory::desc a({m, k}, type, memory::format_tag::ab);
  const memory::desc any({k, n}, type, memory::format_tag::any);
  const memory::desc y({m, n}, memory::data_type::f32, memory::format_tag::ab);
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (accumulates) {
    dnnl::post_ops sum;
    sum.append_sum();
    attributes.set_post_ops(sum);
  }
  const dnnl::matmul::primitive_desc pd(dnnl::matmul::desc(a, packed ? *packed : any, y), attributes, engine());
  return {dnnl::matmul(pd), a, y, pd.weights_desc(), pd.scratchpad_desc()};
}

// From rows of f32 in the input to packed weights.
struct Packing {
  dnnl::reorder primitive;
  memory::desc from;
};

Packing make_packing(const memory::dims& extents, const memory::dims& strides, const memory::desc& packed) {
  const memory::desc from(extents, memory::data_type::f32, strides);
  return {dnnl::reorder(dnnl::reorder::primitive_desc(engine(), from, engine(), packed)), from};
}

void pack(const Packing& packing, const float* from, const memory::desc& to_desc, std::byte* to) {
  const memory source(packing.from, engine(), const_cast<float*>(from));
  const memory target(to_desc, engine(), to);
  execute(packing.primitive, {{DNNL_ARG_FROM, source.get()}, {DNNL_ARG_TO, target.get()}});
}

}  // namespace

struct AttentionProducts::Impl {
  // What a block of one length needs: products for full tiles and for the last one.
  struct Block {
    std::int64_t keys;
    std::array<TileProduct, 2> scores, values;
    Packing pack_keys, pack_values;
    std::size_t keys_bytes, values_bytes;
  };

  explicit Impl(const Sizes& s) : sizes(s), blocks((s.keys + s.block - 1) / s.block) {
    const std::int64_t last = s.keys - (blocks - 1) * s.block;
    full = make_block(std::min(s.block, s.keys));
    rest = last == full.keys ? full : make_block(last);
    for (const Block* block : {&full, &rest}) {
      for (const auto& products : {block->scores, block->values}) {
        for (const TileProduct& product : products)
          scratch = std::max(scratch, whole_lines(product.scratch.get_size()));
      }
    }
  }

  Block make_block(std::int64_t keys) const {
    const memory::data_type type = sizes.precision == DType::kBF16 ? memory::data_type::bf16 : memory::data_type::f32;
    const std::int64_t d = sizes.channels;
    const std::int64_t tile = std::min(sizes.tile, sizes.queries);
    const std::int64_t last = sizes.queries - (sizes.queries - 1) / tile * tile;
    const TileProduct scores = make_tile_product(tile, d, keys, type, nullptr, sizes.biased);
    const TileProduct values = make_tile_product(tile, keys, d, type, nullptr, true);
    const TileProduct last_scores =
        last == tile ? scores : make_tile_product(last, d, keys, type, &scores.packed, sizes.biased);
    const TileProduct last_values =
        last == tile ? values : make_tile_product(last, keys, d, type, &values.packed, true);
    return {.keys = keys,
            .scores = {scores, last_scores},
            .values = {values, last_values},
            .pack_keys = make_packing({d, keys}, {1, sizes.row_step}, scores.packed),
            .pack_values = make_packing({keys, d}, {sizes.row_step, 1}, values.packed),
            .keys_bytes = whole_lines(scores.packed.get_size()),
            .values_bytes = whole_lines(values.packed.get_size())};
  }

  const Block& block(std::int64_t index) const { return index == blocks - 1 ? rest : full; }
  // Where a block's keys are; its values follow.
  std::size_t offset(std::int64_t index) const {
    return static_cast<std::size_t>(index) * (full.keys_bytes + full.values_bytes);
  }

  Sizes sizes;
  std::int64_t blocks;
  Block full, rest;
  std::size_t scratch = 0;
};

AttentionProducts::AttentionProducts(const Sizes& sizes) {
  const SingleThread single;
  try {
    impl_ = std::make_unique<Impl>(sizes);
  } catch (const dnnl::error& error) {
    fail<UnsupportedError>("attention", "oneDNN has no {} products of {} channels for {} queries and {} keys: {}",
                           name_of(sizes.precision), sizes.channels, sizes.queries, sizes.keys, error.what());
  }
}

AttentionProducts::~AttentionProducts() = default;
AttentionProducts::AttentionProducts(AttentionProducts&&) noexcept = default;

std::int64_t AttentionProducts::blocks() const { return impl_->blocks; }
std::size_t AttentionProducts::packed_bytes() const {
  return impl_->offset(impl_->blocks - 1) + impl_->rest.keys_bytes + impl_->rest.values_bytes;
}
std::size_t AttentionProducts::scratch_bytes() const { return impl_->scratch; }

void AttentionProducts::pack_keys(const float* k, std::int64_t block, std::byte* packed) const noexcept {
  const SingleThread single;
  const Impl::Block& b = impl_->block(block);
  pack(b.pack_keys, k, b.scores[0].packed, packed + impl_->offset(block));
}

void AttentionProducts::pack_values(const float* v, std::int64_t block, std::byte* packed) const noexcept {
  const SingleThread single;
  const Impl::Block& b = impl_->block(block);
  pack(b.pack_values, v, b.values[0].packed, packed + impl_->offset(block) + b.keys_bytes);
}

void AttentionProducts::run(const Tile& tile, FunctionRef<void(std::int64_t, std::int64_t)> prepare,
                            FunctionRef<void(std::int64_t)> softmax) const noexcept {
  const SingleThread single;
  const std::size_t shape = tile.rows == std::min(impl_->sizes.tile, impl_->sizes.queries) ? 0 : 1;
  const auto at = [](const memory::desc& desc, const void* data) {
    return memory(desc, engine(), const_cast<void*>(data));
  };
  std::int64_t index = 0;
  // The blocks from `index` to `end`, all of one length: oneDNN's records of where things are serve them all.
  const auto run_blocks = [&](const Impl::Block& block, std::int64_t end) {
    if (index == end) return;
    const TileProduct& scores_product = block.scores[shape];
    const TileProduct& values_product = block.values[shape];
    const memory queries = at(scores_product.a, tile.queries);
    const memory scores = at(scores_product.y, tile.scores);
    const memory probabilities = at(values_product.a, tile.probabilities);
    const memory sums = at(values_product.y, tile.sums);
    const memory scores_pad = at(scores_product.scratch, tile.scratch);
    const memory values_pad = at(values_product.scratch, tile.scratch);
    for (; index < end; ++index) {
      const std::byte* const packed = tile.packed + impl_->offset(index);
      const memory keys = at(scores_product.packed, packed);
      const memory values = at(values_product.packed, packed + block.keys_bytes);
      prepare(index * impl_->sizes.block, block.keys);
      execute(scores_product.primitive, {{DNNL_ARG_SRC, queries.get()},
                                         {DNNL_ARG_WEIGHTS, keys.get()},
                                         {DNNL_ARG_DST, scores.get()},
                                         {DNNL_ARG_SCRATCHPAD, scores_pad.get()}});
      softmax(block.keys);
      execute(values_product.primitive, {{DNNL_ARG_SRC, probabilities.get()},
                                         {DNNL_ARG_WEIGHTS, values.get()},
                                         {DNNL_ARG_DST, sums.get()},
                                         {DNNL_ARG_SCRATCHPAD, values_pad.get()}});
    }
  };
  run_blocks(impl_->full, impl_->blocks - 1);
  run_blocks(impl_->rest, impl_->blocks);
}

}  // namespace weft::onednn
