#include "torch/by_entries.h"

#include <algorithm>
#include <exception>
#include <mutex>

#include "core/format.h"

namespace weft::torch_engine {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

struct Record : torch::CustomClassHolder {
  explicit Record(ByEntries recorded) : by_entries(std::move(recorded)) {}

  // Calls f(part) for parts of the batch, part(x) being those entries of x. Rethrows what one of them throws.
  template <class F>
  void for_each_part(F&& f) const {
    std::mutex mutex;
    std::exception_ptr error;
    by_entries.workers->parallel_for(by_entries.out[0], by_entries.entries, [&](std::int64_t begin, std::int64_t end) {
      try {
        f([=](const Tensor& x) { return x.narrow(0, begin, end - begin); });
      } catch (...) {
        const std::scoped_lock lock(mutex);
        error = std::current_exception();
      }
    });
    if (error) std::rethrow_exception(error);
  }

  ByEntries by_entries;
};

struct OnThreads : public Function<OnThreads> {
  static Tensor forward(AutogradContext* context, const c10::intrusive_ptr<Record>& record, at::TensorList inputs) {
    context->save_for_backward(inputs.vec());
    context->saved_data["record"] = c10::IValue::make_capsule(record);
    const Tensor y = at::empty(extents(record->by_entries.out), inputs[0].options());
    record->for_each_part([&](const auto& part) {
      const torch::NoGradGuard no_gradients;  // each thread's own
      variable_list in;
      for (const Tensor& input : inputs) in.push_back(part(input));
      part(y).copy_(record->by_entries.run(in));
    });
    return y;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    require<UnsupportedError>(!at::GradMode::is_enabled(), "torch", "a fused step can be differentiated once only");
    const auto capsule = context->saved_data["record"].toCapsule();
    const Record& record = static_cast<const Record&>(*capsule);
    const variable_list inputs = context->get_saved_variables();
    variable_list made;
    for (const Tensor& input : inputs) made.push_back(input.requires_grad() ? at::empty_like(input) : Tensor());
    record.for_each_part([&](const auto& part) {
      const torch::AutoGradMode recorded(true);
      variable_list leaves, wanted;
      for (const Tensor& input : inputs) {
        leaves.push_back(part(input.detach()).requires_grad_(input.requires_grad()));
        if (input.requires_grad()) wanted.push_back(leaves.back());
      }
      const Tensor y = record.by_entries.run(leaves);
      const variable_list shares = torch::autograd::grad({y}, wanted, {part(gradients[0])});
      const torch::NoGradGuard no_gradients;
      auto share = shares.begin();
      for (const Tensor& whole : made) {
        if (whole.defined()) part(whole).copy_(*share++);
      }
    });
    made.insert(made.begin(), Tensor());  // nothing for the record
    return made;
  }
};

}  // namespace

Tensor run_by_entries(ByEntries by_entries, const std::vector<Tensor>& inputs) {
  return OnThreads::apply(c10::make_intrusive<Record>(std::move(by_entries)), at::TensorList(inputs));
}

}  // namespace weft::torch_engine
