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

template <bool kReleased>
HWY_INLINE void grad_column_of_form(const Column& column) {
  const bool fits =
      column.job.tiling.count() == 1 ? Sweeps<kReleased, false>(column).run() : Sweeps<kReleased, true>(column).run();
  if (!fits) log_column_of_form<kReleased>(column);
}

template <bool kReleased>
HWY_INLINE void sweep_segment_of_form(const Column& column, Round round, std::int64_t segment) {
  Sweeps<kReleased, true> sweeps(column);
  switch (round) {
    case Round::kNoteBehind:
      return sweeps.note_behind(segment);
    case Round::kNoteBefore:
      return sweeps.note_before(segment);
    case Round::kWriteResults:
      sweeps.write_results(segment);
      if (segment == 0 && !sweeps.fits()) log_column_of_form<kReleased>(column);
  }
}

void grad_column(const Column& column) {
  const bool released = column.job.form == Wkv::kReleasedKernel;
  return released ? grad_column_of_form<true>(column) : grad_column_of_form<false>(column);
}

void sweep_segment(const Column& column, Round round, std::int64_t segment) {
  const bool released = column.job.form == Wkv::kReleasedKernel;
  return released ? sweep_segment_of_form<true>(column, round, segment)
                  : sweep_segment_of_form<false>(column, round, segment);
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
HWY_EXPORT(sweep_segment);

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

void backward(Wkv form, const Shape& shape, const BiWkvBackwardInput<float>& in, const BiWkvGradients<float>& out,
              const Workers& workers, std::int64_t largest_kept) {
  check(shape, in, out);
  std::ranges::fill(out.w, 0.0F);
  std::ranges::fill(out.u, 0.0F);
  if (shape.elements() == 0) return;
  const Tiling tiling(shape[1], form);
  const Segments segments(tiling, form, largest_kept);
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
          .tiling = tiling,
          .segments = segments};
  const std::int64_t columns = job.batch * job.blocks(), last = segments.count() - 1;
  std::vector<Coefficients> coefficients(static_cast<std::size_t>(job.blocks()));
  std::vector<Partial> partials(static_cast<std::size_t>(columns));
  job.coefficients = coefficients.data();
  job.partials = partials.data();
  // Notes are a thread's, too, unless a column goes from one to another between its segments.
  Tensor rows(DType::kU8, {workers.count() * row_bytes(form, segments)});
  Tensor notes(DType::kU8, {(last == 0 ? workers.count() : columns) * note_bytes(segments)});
  std::byte* const first_rows = rows.mutable_raw();
  std::byte* const first_notes = notes.mutable_raw();

  // Left to itself, each call that the first run prepares would look for the instruction set anew.
  if (!hwy::GetChosenTarget().IsInitialized()) hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  for (std::int64_t block = 0; block < job.blocks(); ++block) HWY_DYNAMIC_DISPATCH(prepare_block)(job, block);
  const auto for_each_column = [&](auto body) {
    const std::int64_t grain = std::max<std::int64_t>(1, kGrain / (segments.longest() * kBlock));
    workers.parallel_for(columns, grain, [&](std::int64_t begin, std::int64_t end) {
      const std::int64_t thread = workers.index();
      std::byte* const own_rows = first_rows + thread * row_bytes(form, segments);
      for (std::int64_t i = begin; i < end; ++i) {
        body(Column{.job = job,
                    .entry = i / job.blocks(),
                    .block = i % job.blocks(),
                    .rows = reinterpret_cast<float*>(own_rows),
                    .notes = first_notes + (last == 0 ? thread : i) * note_bytes(segments)});
      }
    });
  };
  if (last == 0) {
    for_each_column(HWY_DYNAMIC_DISPATCH(grad_column));
  } else {
    const auto sweep = [&](Round round, std::int64_t segment) {
      for_each_column([&](const Column& column) { HWY_DYNAMIC_DISPATCH(sweep_segment)(column, round, segment); });
    };
    for (std::int64_t i = last; i >= 0; --i) sweep(Round::kNoteBehind, i);
    for (std::int64_t i = 0; i <= last; ++i) sweep(Round::kNoteBefore, i);
    for (std::int64_t i = last; i >= 0; --i) sweep(Round::kWriteResults, i);
  }
  for (std::int64_t block = 0; block < job.blocks(); ++block) sum_partials(job, out, block);
}

}  // namespace bi_wkv_grad

void bi_wkv_backward(Wkv form, const Shape& shape, const BiWkvBackwardInput<float>& in,
                     const BiWkvGradients<float>& out, const Workers& workers) {
  bi_wkv_grad::backward(form, shape, in, out, workers);
}

}  // namespace weft

#endif  // HWY_ONCE
