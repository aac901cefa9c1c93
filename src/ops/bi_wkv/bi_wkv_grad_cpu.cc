// The gradient of Bi-WKV on the CPU. Its sweeps are in bi_wkv_grad-inl.h, their plan in bi_wkv_grad_plan.h.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/bi_wkv/bi_wkv_grad_cpu.cc"
#include "hwy/foreach_target.h"
// Highway wants foreach_target first.
#include "ops/bi_wkv/bi_wkv_grad-inl.h"
#include "ops/bi_wkv/bi_wkv_grad_log-inl.h"

HWY_BEFORE_NAMESPACE();
namespace weft::bi_wkv_grad {
namespace HWY_NAMESPACE {

void prepare_block(const Job& job, std::int64_t block) { prepare(job, block, job.coefficients[block]); }

void grad_column(const Column& column) {
  if (column.job.form == Wkv::kReleasedKernel) {
    if (!grad_column_of_form<true>(column)) log_column_of_form<true>(column);
  } else {
    if (!grad_column_of_form<false>(column)) log_column_of_form<false>(column);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace weft::bi_wkv_grad
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

#include <array>
#include <vector>

#include "core/format.h"

namespace weft {
namespace bi_wkv_grad {
namespace {

HWY_EXPORT(prepare_block);
HWY_EXPORT(grad_column);

// Elements that a thread takes at once: some ten microseconds' worth.
constexpr std::int64_t kGrain = 4 * 1024;

void check(const Shape& shape, const BiWkvBackwardInput<float>& in, const BiWkvGradients<float>& out) {
  require<ShapeError>(shape.rank() == 3, "bi_wkv_backward", "k must be [B,T,C], got {}", shape);
  const auto has = [&](std::string_view name, std::size_t got, std::int64_t expected, std::string_view axes) {
    require<ShapeError>(got == static_cast<std::size_t>(expected), "bi_wkv_backward",
                        "{}: expected {} elements, {} of {}, got {}", name, expected, axes, shape, got);
  };
  const std::array<std::pair<std::string_view, std::size_t>, 5> whole = {
      {{"k", in.k.size()}, {"v", in.v.size()}, {"gy", in.gy.size()}, {"gk", out.k.size()}, {"gv", out.v.size()}}};
  const std::array<std::pair<std::string_view, std::size_t>, 4> of_channels = {
      {{"w", in.w.size()}, {"u", in.u.size()}, {"gw", out.w.size()}, {"gu", out.u.size()}}};
  for (const auto& [name, size] : whole) has(name, size, shape.elements(), "B·T·C");
  for (const auto& [name, size] : of_channels) has(name, size, shape[2], "C");
}

// Adds the batch entries' parts, always in the same order.
void sum_partials(const Job& job, const BiWkvGradients<float>& out, std::int64_t block) {
  Partial sum = {};
  for (std::int64_t entry = 0; entry < job.batch; ++entry) {
    const Partial& partial = job.partials[entry * job.blocks() + block];
    for (std::size_t i = 0; i < kBlock; ++i) sum.w[i] += partial.w[i], sum.u[i] += partial.u[i];
  }
  const std::int64_t channel = block * kBlock;
  for (std::int64_t i = 0; i < std::min(kBlock, job.channels - channel); ++i) {
    out.w[static_cast<std::size_t>(channel + i)] = static_cast<float>(sum.w[i]);
    out.u[static_cast<std::size_t>(channel + i)] = static_cast<float>(sum.u[i]);
  }
}

}  // namespace
}  // namespace bi_wkv_grad

void bi_wkv_backward(Wkv form, const Shape& shape, const BiWkvBackwardInput<float>& in,
                     const BiWkvGradients<float>& out, const Workers& workers) {
  using namespace bi_wkv_grad;
  check(shape, in, out);
  std::ranges::fill(out.w, 0.0F);
  std::ranges::fill(out.u, 0.0F);
  if (shape.elements() == 0) return;
  const Tiling tiling(shape[1], form);
  Job job{.form = form,
          .k = in.k.data(),
          .v = in.v.data(),
          .w = in.w.data(),
          .u = in.u.data(),
          .gy = in.gy.data(),
          .gk = out.k.data(),
          .gv = out.v.data(),
          .coefficients = nullptr,
          .partials = nullptr,
          .batch = shape[0],
          .channels = shape[2],
          .tiling = tiling};
  const std::int64_t columns = job.batch * job.blocks();
  const std::int64_t bytes = buffer_bytes(form, shape[1]);
  std::vector<Partial> partials(static_cast<std::size_t>(columns));
  job.partials = partials.data();
  std::vector<Coefficients> coefficients(static_cast<std::size_t>(job.blocks()));
  job.coefficients = coefficients.data();
  Tensor buffers(DType::kU8, {workers.count() * bytes});
  std::byte* const first_buffer = buffers.mutable_raw();

  // Left to itself, each call that the first run prepares would look for the instruction set anew.
  if (!hwy::GetChosenTarget().IsInitialized()) hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  for (std::int64_t block = 0; block < job.blocks(); ++block) HWY_DYNAMIC_DISPATCH(prepare_block)(job, block);
  const std::int64_t grain = std::max<std::int64_t>(1, kGrain / (shape[1] * kBlock));
  workers.parallel_for(columns, grain, [&](std::int64_t begin, std::int64_t end) {
    float* const buffer = reinterpret_cast<float*>(first_buffer + workers.index() * bytes);
    for (std::int64_t i = begin; i < end; ++i) {
      HWY_DYNAMIC_DISPATCH(grad_column)
      ({.job = job, .entry = i / job.blocks(), .block = i % job.blocks(), .buffer = buffer});
    }
  });
  for (std::int64_t block = 0; block < job.blocks(); ++block) sum_partials(job, out, block);
}

}  // namespace weft

#endif  // HWY_ONCE
