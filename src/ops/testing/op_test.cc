#include "ops/testing/op_test.h"

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/format.h"
#include "kernel/encode.h"
#include "ops/kernels.h"

namespace weft::testing {
namespace {

constexpr std::size_t kFence = 64;
constexpr std::byte kFenceByte{0xA5};

// Storage for one tensor between two fences, filled with NaN.
class Fenced {
 public:
  explicit Fenced(std::size_t bytes)
      : bytes_(bytes), memory_(DType::kU8, Shape{static_cast<std::int64_t>(bytes + 2 * kFence)}) {
    std::memset(memory_.mutable_raw(), static_cast<int>(kFenceByte), memory_.bytes());
    std::memset(data(), 0xFF, bytes);  // every float in it is a NaN
  }
  std::byte* data() { return memory_.mutable_raw() + kFence; }
  bool intact() const {
    const auto is_fence = [](std::byte b) { return b == kFenceByte; };
    return std::all_of(memory_.raw(), memory_.raw() + kFence, is_fence) &&
           std::all_of(memory_.raw() + kFence + bytes_, memory_.raw() + bytes_ + 2 * kFence, is_fence);
  }

 private:
  std::size_t bytes_;
  Tensor memory_;
};

class Runner {
 public:
  explicit Runner(const OpCase& c) : case_(c) {
    for (const Tensor& input : c.inputs) in_types_.push_back(input.type());
    out_types_ = c.operation.infer(in_types_);
    for (std::size_t i = 0; i < c.inputs.size(); ++i) {
      constants_.push_back(i < c.constant.size() && c.constant[i] ? &c.inputs[i] : nullptr);
    }
  }

  // `overwrite` ≥ 0: output 0 takes the memory of that input.
  std::vector<Tensor> run(int threads, int overwrite = -1) {
    const auto kernel = make(threads);
    std::vector<Fenced> inputs, outputs;
    std::vector<const std::byte*> in;
    std::vector<std::byte*> out;
    for (const Tensor& input : case_.inputs) {
      inputs.emplace_back(input.bytes());
      std::memcpy(inputs.back().data(), input.raw(), input.bytes());
    }
    for (const TensorType& type : out_types_) outputs.emplace_back(type.bytes());
    for (Fenced& input : inputs) in.push_back(input.data());
    for (Fenced& output : outputs) out.push_back(output.data());
    if (overwrite >= 0) out[0] = inputs[static_cast<std::size_t>(overwrite)].data();
    Fenced scratch(kernel->scratch_bytes());
    const Workers workers(threads);
    workers.enter([&] { kernel->run({.in = in, .out = out, .scratch = scratch.data(), .workers = workers}); });

    EXPECT_TRUE(scratch.intact()) << "scratch written out of bounds";
    for (std::size_t i = 0; i < inputs.size(); ++i) {
      EXPECT_TRUE(inputs[i].intact()) << "written around input " << i;
      const bool unchanged = std::memcmp(inputs[i].data(), case_.inputs[i].raw(), case_.inputs[i].bytes()) == 0;
      EXPECT_TRUE(unchanged || static_cast<int>(i) == overwrite) << "input " << i << " was changed";
    }
    std::vector<Tensor> results;
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      EXPECT_TRUE(outputs[i].intact()) << "written around output " << i;
      results.emplace_back(out_types_[i]);
      std::memcpy(results.back().mutable_raw(), out[i], out_types_[i].bytes());
    }
    return results;
  }

  std::unique_ptr<Kernel> make(int threads) { return make_lone_kernel(case_.operation, request(threads)); }

  // The inputs of which the kernel reads bf16.
  std::vector<std::size_t> bf16_inputs() {
    std::vector<std::size_t> found;
    const auto kernel = make(1);
    for (std::size_t i = 0; i < case_.inputs.size(); ++i) {
      if (!constants_[i] && kernel->reads_bf16(static_cast<int>(i))) found.push_back(i);
    }
    return found;
  }

  // Output 0 as the kernel stores it in `encoding` (and in kI8 the scales), these inputs being in bf16. Nothing when
  // the kernel refuses the encoding.
  std::vector<Tensor> run_encoded(const std::vector<std::size_t>& bf16, DType encoding) {
    const auto kernel = make_kernel(case_.operation, request(1));
    for (const std::size_t i : bf16) kernel->give_bf16(static_cast<int>(i));
    if (kernel->moves() && !bf16.empty()) {
      if (encoding != DType::kBF16) return {};
    } else if (encoding != DType::kF32 && !kernel->encode_output(encoding)) {
      return {};
    }
    const Shape& shape = out_types_[0].shape;
    std::vector<Tensor> inputs, results{Tensor(encoding, shape)};
    if (encoding == DType::kI8) results.emplace_back(DType::kF32, Shape{row_count(shape), 2});
    for (const Tensor& input : case_.inputs) inputs.push_back(input);
    for (const std::size_t i : bf16) inputs[i] = inputs[i].to(DType::kBF16);
    std::vector<const std::byte*> in;
    std::vector<Fenced> outputs;
    std::vector<std::byte*> out;
    for (const Tensor& input : inputs) in.push_back(input.raw());
    for (const Tensor& result : results) outputs.emplace_back(result.bytes());
    for (Fenced& output : outputs) out.push_back(output.data());
    const Workers workers(1);
    if (RowKernel* const rows = kernel->by_rows()) {
      if (rows->rows() == 0) return results;
      rows->set_tile_rows(rows->rows());
      Fenced scratch(rows->row_scratch_bytes());
      rows->run_rows({.in = in, .out = out, .scratch = scratch.data(), .begin = 0, .end = rows->rows()});
      EXPECT_TRUE(scratch.intact()) << "scratch written out of bounds";
    } else {
      Fenced scratch(kernel->scratch_bytes());
      workers.enter([&] { kernel->run({.in = in, .out = out, .scratch = scratch.data(), .workers = workers}); });
      EXPECT_TRUE(scratch.intact()) << "scratch written out of bounds";
    }
    for (std::size_t i = 0; i < results.size(); ++i) {
      EXPECT_TRUE(outputs[i].intact()) << "written around output " << i;
      std::memcpy(results[i].mutable_raw(), out[i], results[i].bytes());
    }
    return results;
  }

  bool may_overwrite(std::size_t input) {
    return case_.inputs[input].bytes() == out_types_[0].bytes() && constants_[input] == nullptr &&
           make(1)->may_overwrite(static_cast<int>(input));
  }

 private:
  KernelRequest request(int threads) {
    return {.in = in_types_, .out = out_types_, .constants = constants_, .threads = threads, .packs = &packs_};
  }

  const OpCase& case_;
  std::vector<TensorType> in_types_, out_types_;
  std::vector<const Tensor*> constants_;
  PackCache packs_;
};

bool same_bits(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  return std::ranges::equal(a, b, [](const Tensor& x, const Tensor& y) {
    return x.type() == y.type() && std::memcmp(x.raw(), y.raw(), x.bytes()) == 0;
  });
}

// Rows of f32 as weft encodes them (kernel/encode.h).
std::vector<Tensor> encoded(const Tensor& x, DType encoding) {
  if (encoding == DType::kF32) return {x};
  const std::int64_t rows = row_count(x.shape());
  std::vector<Tensor> results{Tensor(encoding, x.shape())};
  if (encoding == DType::kI8) results.emplace_back(DType::kF32, Shape{rows, 2});
  std::vector<std::byte*> out;
  for (Tensor& result : results) out.push_back(result.mutable_raw());
  const std::byte* const in = x.raw();
  const std::int64_t k = rows > 0 ? x.shape().elements() / rows : 0;
  make_encoder(encoding, rows, k)->run_rows({.in = {&in, 1}, .out = out, .begin = 0, .end = rows});
  return results;
}

// What a kernel reads in bf16 gives what the same numbers in f32 give, and what it stores encoded is what encoding its
// f32 result gives: to the bit.
void check_encodings(const OpCase& c) {
  OpCase rounded = c;
  for (std::size_t i = 0; i < c.inputs.size(); ++i) {
    if ((i >= c.constant.size() || !c.constant[i]) && c.inputs[i].dtype() == DType::kF32) {
      rounded.inputs[i] = c.inputs[i].to(DType::kBF16).to(DType::kF32);
    }
  }
  Runner runner(rounded);
  // In one tile as well: products of another height may sum in another order.
  const std::vector<Tensor> plain = runner.run_encoded({}, DType::kF32);
  const std::vector<std::size_t> all = runner.bf16_inputs();
  std::vector<std::vector<std::size_t>> choices{{}, all};
  for (const std::size_t one : all) choices.push_back({one});
  for (const auto& choice : choices) {
    for (const DType encoding : {DType::kF32, DType::kBF16, DType::kI8}) {
      SCOPED_TRACE(fmt::format("inputs {} in bf16, output in {}", fmt::join(choice, ", "), name_of(encoding)));
      const std::vector<Tensor> got = runner.run_encoded(choice, encoding);
      if (!got.empty() && plain[0].shape().elements() > 0) {
        EXPECT_TRUE(same_bits(got, encoded(plain[0], encoding)));
      }
    }
  }
}

void expect_close(const std::vector<Tensor>& got, const std::vector<Tensor>& want, double tolerance) {
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    ASSERT_EQ(got[i].shape(), want[i].shape());
    const double error = relative_error(got[i], want[i]);
    EXPECT_LE(error, tolerance) << "output " << i;
    const auto values = want[i].data<double>();
    const auto zeros = std::ranges::count(values, 0.0);
    EXPECT_LE(2 * zeros, static_cast<std::ptrdiff_t>(values.size())) << "mostly zeros: this case proves little";
  }
}

}  // namespace

std::vector<Tensor> run_kernel(const OpCase& c) { return Runner(c).run(1); }

std::vector<Tensor> run_reference(const OpCase& c) {
  std::vector<Tensor> in, out;
  std::vector<TensorType> types;
  for (const Tensor& input : c.inputs) {
    in.push_back(input.to(DType::kF64));
    types.push_back(input.type());
  }
  for (const TensorType& type : c.operation.infer(types)) out.emplace_back(DType::kF64, type.shape);
  c.operation.reference(in, out);
  return out;
}

double relative_error(const Tensor& got, const Tensor& want) {
  const Tensor got64 = got.to(DType::kF64);
  const Tensor want64 = want.to(DType::kF64);
  const auto g = got64.data<double>();
  const auto w = want64.data<double>();
  double worst = 0;
  double largest = 0;
  for (std::size_t i = 0; i < g.size(); ++i) {
    const double difference = std::abs(g[i] - w[i]);
    worst = std::isnan(difference) ? std::numeric_limits<double>::infinity() : std::max(worst, difference);
    largest = std::max(largest, std::abs(w[i]));
  }
  return worst / (largest + 1e-6);
}

void check_kernel(const OpCase& c) {
  SCOPED_TRACE(fmt::format("{} {{{}}} case {}", c.operation.name(), c.operation.attributes(), c.name));
  const std::vector<Tensor> want = run_reference(c);
  for (const std::int64_t target : hwy::SupportedAndGeneratedTargets()) {
    SCOPED_TRACE(hwy::TargetName(target));
    hwy::SetSupportedTargetsForTest(target);
    Runner runner(c);
    const std::vector<Tensor> got = runner.run(1);
    expect_close(got, want, c.tolerance);
    for (const int threads : {2, 7}) {
      SCOPED_TRACE(fmt::format("{} threads", threads));
      // Tiles, and with them the order of sums, may depend on the number of threads asked for, not on who runs them.
      const std::vector<Tensor> threaded = runner.run(threads);
      expect_close(threaded, want, c.tolerance);
      EXPECT_TRUE(same_bits(threaded, runner.run(threads))) << "two runs differ";
    }
    for (std::size_t i = 0; i < c.inputs.size(); ++i) {
      if (!runner.may_overwrite(i)) continue;
      SCOPED_TRACE(fmt::format("overwriting input {}", i));
      EXPECT_TRUE(same_bits(runner.run(1, static_cast<int>(i)), got));
    }
    if (want.size() == 1) check_encodings(c);
  }
  hwy::SetSupportedTargetsForTest(0);
}

}  // namespace weft::testing
