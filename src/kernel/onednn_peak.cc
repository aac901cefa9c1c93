#include "kernel/onednn_peak.h"

#include <algorithm>
#include <barrier>
#include <chrono>
#include <cmath>
#include <limits>
#include <random>
#include <thread>

#include "core/format.h"
#include "kernel/onednn.h"
#include "kernel/onednn_engine.h"

namespace weft::onednn {
namespace {

using Clock = std::chrono::steady_clock;
using dnnl::memory;

constexpr std::int64_t kRows = 256;
constexpr std::int64_t kDepth = 768;
constexpr std::int64_t kColumns = 768;
constexpr double kOperations = 2.0 * kRows * kDepth * kColumns;

using Tag = memory::format_tag;
using Type = memory::data_type;

struct PeakTypes {
  memory::data_type src, weight, dst;
};

PeakTypes peak_types_of(DType precision) {
  switch (precision) {
    case DType::kF32:
      return {Type::f32, Type::f32, Type::f32};
    case DType::kBF16:
      return {Type::bf16, Type::bf16, Type::bf16};
    case DType::kI8:
      return {Type::u8, Type::s8, Type::f32};
    default:
      fail<UnsupportedError>("matrix_peak", "products are of f32, bf16 or i8, got {}", name_of(precision));
  }
}

// Small numbers that are neither zero nor denormal in any of the types.
void fill(memory& to, std::uint32_t seed) {
  std::mt19937 random(seed);
  const memory::desc desc = to.get_desc();
  auto* const bytes = static_cast<std::uint8_t*>(to.get_data_handle());
  const std::size_t count = desc.get_size();
  if (desc.data_type() == memory::data_type::u8 || desc.data_type() == memory::data_type::s8) {
    for (std::size_t i = 0; i < count; ++i) bytes[i] = static_cast<std::uint8_t>(random() % 100 + 1);
  } else if (desc.data_type() == memory::data_type::bf16) {
    auto* const values = reinterpret_cast<std::uint16_t*>(bytes);
    for (std::size_t i = 0; i < count / 2; ++i) values[i] = static_cast<std::uint16_t>(0x3F00 + random() % 256);
  } else {
    auto* const values = reinterpret_cast<float*>(bytes);
    for (std::size_t i = 0; i < count / 4; ++i) values[i] = 0.5F + static_cast<float>(random() % 256) / 256;
  }
}

}  // namespace

struct MatrixPeak::Lane {
  dnnl::matmul product;
  memory src, weight, dst, scratch;

  void run(int times) const {
    for (int i = 0; i < times; ++i) {
      product.execute(
          stream(),
          {{DNNL_ARG_SRC, src}, {DNNL_ARG_WEIGHTS, weight}, {DNNL_ARG_DST, dst}, {DNNL_ARG_SCRATCHPAD, scratch}});
    }
    stream().wait();
  }
};

MatrixPeak::MatrixPeak(DType precision, int threads) {
  const PeakTypes types = peak_types_of(precision);
  if (!multiplies_natively(precision)) return;
  const SingleThread single;
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  const dnnl::matmul::primitive_desc pd(dnnl::matmul::desc(memory::desc({kRows, kDepth}, types.src, Tag::ab),
                                                           memory::desc({kDepth, kColumns}, types.weight, Tag::any),
                                                           memory::desc({kRows, kColumns}, types.dst, Tag::ab)),
                                        attributes, engine());
  for (int i = 0; i < threads; ++i) {
    lanes_.push_back({dnnl::matmul(pd), memory(pd.src_desc(), engine()), memory(pd.weights_desc(), engine()),
                      memory(pd.dst_desc(), engine()), memory(pd.scratchpad_desc(), engine())});
    Lane& lane = lanes_.back();
    const auto seed = static_cast<std::uint32_t>(i);
    fill(lane.src, seed);
    memory plain(memory::desc({kDepth, kColumns}, types.weight, Tag::ab), engine());
    fill(plain, seed + 1000);
    dnnl::reorder(plain, lane.weight).execute(stream(), plain, lane.weight);
    lane.run(1);
  }
  constexpr double kSeconds = 2e-3;  // of a repetition
  const Clock::time_point start = Clock::now();
  lanes_[0].run(1);
  const double once = std::chrono::duration<double>(Clock::now() - start).count();
  products_ = static_cast<int>(std::clamp(std::ceil(kSeconds / once), 1.0, 100.0));
}

MatrixPeak::~MatrixPeak() = default;
MatrixPeak::MatrixPeak(MatrixPeak&&) noexcept = default;

double MatrixPeak::measure() const {
  if (lanes_.empty()) return 0;
  constexpr int kRepetitions = 5;
  double best = std::numeric_limits<double>::infinity();
  std::barrier together(static_cast<std::ptrdiff_t>(lanes_.size()));
  const auto work = [&](std::size_t lane) {
    const SingleThread single;
    lanes_[lane].run(1);  // this thread's stream, and its data in its caches
    for (int i = 0; i < kRepetitions; ++i) {
      together.arrive_and_wait();
      const Clock::time_point start = Clock::now();
      lanes_[lane].run(products_);
      together.arrive_and_wait();
      if (lane == 0) best = std::min(best, std::chrono::duration<double>(Clock::now() - start).count());
    }
  };
  std::vector<std::thread> others;
  for (std::size_t lane = 1; lane < lanes_.size(); ++lane) others.emplace_back(work, lane);
  work(0);
  for (std::thread& thread : others) thread.join();
  return kOperations * products_ * static_cast<double>(lanes_.size()) / best;
}

}  // namespace weft::onednn
