#include "kernel/onednn_matmul.h"

#include "core/format.h"
#include "kernel/onednn_engine.h"

namespace weft::onednn {

using dnnl::memory;

struct Matmul::Impl {
  dnnl::matmul primitive;
  memory::desc a, b, c, scratch;
};

namespace {

dnnl::matmul::primitive_desc describe(const MatmulShape& shape) {
  using Tag = memory::format_tag;
  const auto type = shape.precision == DType::kBF16 ? memory::data_type::bf16 : memory::data_type::f32;
  const memory::desc a({shape.m, shape.k}, type, shape.a_transposed ? Tag::ba : Tag::ab);
  const memory::desc b({shape.k, shape.n}, type, shape.b_transposed ? Tag::ba : Tag::ab);
  const memory::desc c({shape.m, shape.n}, memory::data_type::f32, Tag::ab);
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (shape.adds) {
    dnnl::post_ops post;
    post.append_sum();
    attributes.set_post_ops(post);
  }
  return {dnnl::matmul::desc(a, b, c), attributes, engine()};
}

}  // namespace

Matmul::Matmul(const MatmulShape& shape) {
  const SingleThread single;
  try {
    const auto pd = describe(shape);
    impl_ = std::make_unique<Impl>(
        Impl{dnnl::matmul(pd), pd.src_desc(), pd.weights_desc(), pd.dst_desc(), pd.scratchpad_desc()});
  } catch (const dnnl::error& error) {
    fail<UnsupportedError>("linear", "oneDNN has no {} product of {} × {} × {} on this CPU: {}",
                           name_of(shape.precision), shape.m, shape.k, shape.n, error.what());
  }
}

Matmul::~Matmul() = default;
Matmul::Matmul(Matmul&&) noexcept = default;

std::size_t Matmul::scratch_bytes() const { return (impl_->scratch.get_size() + 63) / 64 * 64; }

void Matmul::run(const void* a, const void* b, float* c, std::byte* scratch) const noexcept {
  const SingleThread single;
  const memory left(impl_->a, engine(), const_cast<void*>(a));
  const memory right(impl_->b, engine(), const_cast<void*>(b));
  const memory result(impl_->c, engine(), c);
  const memory pad(impl_->scratch, engine(), scratch);
  execute(impl_->primitive, {{DNNL_ARG_SRC, left.get()},
                             {DNNL_ARG_WEIGHTS, right.get()},
                             {DNNL_ARG_DST, result.get()},
                             {DNNL_ARG_SCRATCHPAD, pad.get()}});
}

}  // namespace weft::onednn
