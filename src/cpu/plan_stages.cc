// From steps to stages: neighbouring row kernels run together, and what crosses stages is stored in bf16.
#include <algorithm>

#include "cpu/plan_builder.h"

namespace weft {

void PlanBuilder::group() {
  for (int i = 0; i < static_cast<int>(plan_.steps_.size()); ++i) {
    const std::size_t index = static_cast<std::size_t>(i);
    if (joins_last_stage(i)) {
      plan_.stages_.back().last = index;
    } else {
      RowKernel* const rows = row_kernel(i);
      plan_.stages_.push_back({.first = index, .last = index, .rows = rows ? rows->rows() : 0, .sections = {}});
    }
    step(i).stage = static_cast<int>(plan_.stages_.size()) - 1;
  }
  for (Plan::Stage& s : plan_.stages_) {
    if (s.rows > 0) cut_sections(s);
  }
}

bool PlanBuilder::joins_last_stage(int i) {
  if (step(i).kernel->by_parts()) {
    if (plan_.stages_.empty() || !step(static_cast<int>(plan_.stages_.back().first)).kernel->by_parts()) return false;
    return makes_none_of(i, static_cast<int>(plan_.stages_.back().first));
  }
  RowKernel* const rows = row_kernel(i);
  if (!rows || plan_.stages_.empty() || plan_.stages_.back().rows != rows->rows() || rows->rows() == 0) return false;
  const auto first = static_cast<int>(plan_.stages_.back().first);
  const std::vector<int>& inputs = operands(i).inputs;
  for (std::size_t j = 0; j < inputs.size(); ++j) {
    if (!rows->reads_by_rows(static_cast<int>(j)) && root_of(inputs[j]).maker >= first) return false;
  }
  return true;
}

// Whether no step from `first` on makes what step `i` reads.
bool PlanBuilder::makes_none_of(int i, int first) {
  return std::ranges::none_of(operands(i).inputs, [&](int id) { return root_of(id).maker >= first; });
}

void PlanBuilder::cut_sections(Plan::Stage& s) {
  for (std::size_t i = s.first; i <= s.last; ++i) {
    const bool high = row_kernel(static_cast<int>(i))->wants_high_tiles();
    const bool starts = i == s.first || high || row_kernel(static_cast<int>(i) - 1)->wants_high_tiles();
    if (starts) {
      s.sections.push_back({.first = i, .last = i, .slice_rows = 0});
    } else {
      s.sections.back().last = i;
    }
  }
}

// What is in memory between two stages is rounded to bf16 where its maker and all its readers can: half the bytes to
// write, to keep and to read. Not what a sum makes or reads: a residual stream would lose its small increments, half a
// step and less, one after the other.
void PlanBuilder::narrow() {
  for (int i = 0; i < static_cast<int>(plan_.steps_.size()); ++i) {
    const int id = operands(i).outputs[0];
    const ValueState& value = root_of(id);
    const bool crosses =
        std::ranges::any_of(value.uses, [&](const Use& use) { return stage_of(use.step) != stage_of(i); });
    if (crosses && !is_sum(i) && may_narrow(id) && step(i).kernel->encode_output(DType::kBF16)) give_bf16(id);
  }
}

bool PlanBuilder::may_narrow(int id) {
  const ValueState& value = root_of(id);
  return value.port < 0 && std::ranges::all_of(value.uses, [&](const Use& use) {
           const Kernel& kernel = *step(use.step).kernel;
           return kernel.reads_bf16(use.input) && !is_sum(use.step) &&
                  (!kernel.moves() || may_narrow(operands(use.step).outputs[0]));
         });
}

void PlanBuilder::give_bf16(int id) {
  root_of(id).bytes /= 2;
  for (const Use& use : root_of(id).uses) {
    Kernel& kernel = *step(use.step).kernel;
    kernel.give_bf16(use.input);
    if (kernel.moves()) give_bf16(operands(use.step).outputs[0]);
  }
}

}  // namespace weft
