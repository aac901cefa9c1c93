#include "kernel/onednn_matmul.h"

#include <mutex>
#include <vector>

#include "core/format.h"
#include "kernel/onednn_engine.h"
#include "kernel/scratch.h"

namespace weft::onednn {

using dnnl::memory;

namespace {

using Tag = memory::format_tag;

// Where a product finds its matrices. Making these takes oneDNN as long as a small product does.
struct Arguments {
  memory a, b, c, scratch;
};

dnnl::matmul::primitive_desc describe(const MatmulShape& shape) {
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

struct Matmul::Impl {
  explicit Impl(const dnnl::matmul::primitive_desc& described) : description(described), primitive(described) {}

  std::unique_ptr<Arguments> take() {
    const std::scoped_lock lock(mutex);
    if (idle.empty()) return nullptr;
    auto arguments = std::move(idle.back());
    idle.pop_back();
    return arguments;
  }
  void give_back(std::unique_ptr<Arguments> arguments) {
    const std::scoped_lock lock(mutex);
    idle.push_back(std::move(arguments));
  }

  dnnl::matmul::primitive_desc description;
  dnnl::matmul primitive;
  std::mutex mutex;
  std::vector<std::unique_ptr<Arguments>> idle;  // one for each thread that was at work at once
};

Matmul::Matmul(const MatmulShape& shape) {
  const SingleThread single;
  try {
    impl_ = std::make_unique<Impl>(describe(shape));
  } catch (const dnnl::error& error) {
    fail<UnsupportedError>("linear", "oneDNN has no {} product of {} × {} × {} on this CPU: {}",
                           name_of(shape.precision), shape.m, shape.k, shape.n, error.what());
  }
}

Matmul::~Matmul() = default;
Matmul::Matmul(Matmul&&) noexcept = default;

std::size_t Matmul::scratch_bytes() const { return whole_lines(impl_->description.scratchpad_desc().get_size()); }

void Matmul::run(const void* a, const void* b, float* c, std::byte* scratch) const noexcept {
  const SingleThread single;
  Impl& self = *impl_;
  std::unique_ptr<Arguments> arguments = self.take();
  if (arguments) {
    arguments->a.set_data_handle(const_cast<void*>(a));
    arguments->b.set_data_handle(const_cast<void*>(b));
    arguments->c.set_data_handle(c);
    arguments->scratch.set_data_handle(scratch);
  } else {
    const auto& of = self.description;
    arguments = std::make_unique<Arguments>(Arguments{memory(of.src_desc(), engine(), const_cast<void*>(a)),
                                                      memory(of.weights_desc(), engine(), const_cast<void*>(b)),
                                                      memory(of.dst_desc(), engine(), c),
                                                      memory(of.scratchpad_desc(), engine(), scratch)});
  }
  execute(self.primitive, {{DNNL_ARG_SRC, arguments->a.get()},
                           {DNNL_ARG_WEIGHTS, arguments->b.get()},
                           {DNNL_ARG_DST, arguments->c.get()},
                           {DNNL_ARG_SCRATCHPAD, arguments->scratch.get()}});
  self.give_back(std::move(arguments));
}

}  // namespace weft::onednn
