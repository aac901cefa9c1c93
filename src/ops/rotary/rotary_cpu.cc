#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/rotary/rotary_cpu.cc"
#include <hwy/foreach_target.h>
// Highway wants foreach_target.h first.
#include <hwy/highway.h>

#include <cmath>

#include "core/format.h"
#include "kernel/encode-inl.h"
#include "kernel/scratch.h"
#include "kernel/simd.h"
#include "ops/rotary/rotary.h"

#ifndef WEFT_ROTARY_TURNS_
#define WEFT_ROTARY_TURNS_
namespace weft {
namespace {

// Tokens whose turns differ by fine ones only.
constexpr std::int64_t kBlock = 64;

// Turns by t·angle as rows [2,D]: D cosines, then D sines, negative for the first channel of two. A turn by
// a·kBlock + b tokens is one by a·kBlock after one by b, so some √T rows say all of them.
struct Turns {
  std::int64_t tokens, channels, head_channels;
  const float* fine;    // of b = 0 … kBlock − 1 tokens
  const float* coarse;  // of 0, kBlock, 2·kBlock, … tokens
};

}  // namespace
}  // namespace weft
#endif

HWY_BEFORE_NAMESPACE();
namespace weft::HWY_NAMESPACE {
namespace {

using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;

#if HWY_TARGET == HWY_SCALAR
// A vector of one channel cannot be turned.
template <DType kEncoding>
HWY_INLINE void turn_head(const float* x, const float* turn, std::size_t channels, RowWriter<kEncoding>& y,
                          std::size_t at) {
  const D d;
  for (std::size_t i = 0; i < channels; i += 2) {
    const float first = x[i], second = x[i + 1];
    y.put(hn::Set(d, first * turn[i] + second * turn[channels + i]), at + i);
    y.put(hn::Set(d, second * turn[i + 1] + first * turn[channels + i + 1]), at + i + 1);
  }
}
#else
template <DType kEncoding>
HWY_INLINE void turn_head(const float* x, const float* turn, std::size_t channels, RowWriter<kEncoding>& y,
                          std::size_t at) {
  const D d;
  const std::size_t lanes = hn::Lanes(d);
  const auto turned = [](V point, V cosine, V sine)
                          HWY_ATTR { return hn::MulAdd(point, cosine, hn::Mul(hn::Shuffle2301(point), sine)); };
  std::size_t i = 0;
  for (; i + lanes <= channels; i += lanes) {
    y.put(turned(hn::LoadU(d, x + i), hn::LoadU(d, turn + i), hn::LoadU(d, turn + channels + i)), at + i);
  }
  if (const std::size_t rest = channels - i; rest > 0) {
    y.put_n(turned(load_n(d, x + i, rest), load_n(d, turn + i, rest), load_n(d, turn + channels + i, rest)), at + i,
            rest);
  }
}
#endif

// The coarse turn and then the fine one.
HWY_INLINE void combine(const float* coarse, const float* fine, float* turn, std::size_t channels) {
  const D d;
  const std::size_t lanes = hn::Lanes(d);
  const auto write = [&](std::size_t i, auto load, auto store) HWY_ATTR {
    const V coarse_cosine = load(coarse + i), coarse_sine = load(coarse + channels + i);
    const V fine_cosine = load(fine + i), fine_sine = load(fine + channels + i);
    store(hn::NegMulAdd(coarse_sine, fine_sine, hn::Mul(coarse_cosine, fine_cosine)), turn + i);
    store(hn::MulAdd(coarse_sine, fine_cosine, hn::Mul(coarse_cosine, fine_sine)), turn + channels + i);
  };
  std::size_t i = 0;
  for (; i + lanes <= channels; i += lanes) {
    write(
        i, [&](const float* from) HWY_ATTR { return hn::LoadU(d, from); },
        [&](V values, float* to) HWY_ATTR { hn::StoreU(values, d, to); });
  }
  if (const std::size_t rest = channels - i; rest > 0) {
    write(
        i, [&](const float* from) HWY_ATTR { return load_n(d, from, rest); },
        [&](V values, float* to) HWY_ATTR { store_n(values, d, to, rest); });
  }
}

// Rows [begin, end) of all batch entries' tokens; x and f32 rows of y may be the same. `turn` has room for 2·D.
void rotate_rows(const Turns& turns, const float* x, const EncodedRows& y, float* turn, std::int64_t begin,
                 std::int64_t end) {
  const auto channels = static_cast<std::size_t>(turns.channels);
  const auto head = static_cast<std::size_t>(turns.head_channels);
  with_row_writer(y, channels, [&](auto writer) HWY_ATTR {
    for (std::int64_t row = begin; row < end; ++row, x += channels) {
      const std::int64_t token = row % turns.tokens;
      const std::int64_t width = 2 * turns.head_channels;
      combine(turns.coarse + token / kBlock * width, turns.fine + token % kBlock * width, turn, head);
      for (std::size_t at = 0; at < channels; at += head) turn_head(x + at, turn, head, writer, at);
      writer.end_row();
    }
  });
}

}  // namespace
}  // namespace weft::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace weft {
namespace {

HWY_EXPORT(rotate_rows);

// [coarse rows + kBlock,2,D], the coarse turns first.
Tensor make_turns(const Tensor& angles, std::int64_t coarse) {
  const auto angle = angles.data<float>();
  Tensor turns(DType::kF32, {coarse + kBlock, 2, angles.elements()});
  float* to = turns.mutable_data<float>().data();
  for (std::int64_t row = 0; row < coarse + kBlock; ++row, to += 2 * angle.size()) {
    const auto token = static_cast<double>(row < coarse ? row * kBlock : row - coarse);
    for (std::size_t i = 0; i < angle.size(); ++i) {
      to[i] = static_cast<float>(std::cos(token * angle[i]));
      to[angle.size() + i] = static_cast<float>(i % 2 == 0 ? -std::sin(token * angle[i]) : std::sin(token * angle[i]));
    }
  }
  return turns;
}

class RotaryKernel final : public RowKernel {
 public:
  RotaryKernel(const KernelRequest& request, const Shape& x)
      : rows_(row_count(x)), tokens_(x[1]), channels_(x[2]), output_(channels_) {
    if (rows_ == 0) return;
    const Tensor& angle = *request.constants[1];
    coarse_ = (tokens_ + kBlock - 1) / kBlock;
    turns_ = request.packs->get(angle, fmt::format("rotary/{}", coarse_), [&] { return make_turns(angle, coarse_); });
  }

  std::string_view name() const override { return "hwy:rotary"; }
  bool may_overwrite(int i) const override { return i == 0 && output_.encoding() == DType::kF32; }
  bool encode_output(DType encoding) override { return output_.encode(encoding); }
  std::int64_t rows() const override { return rows_; }
  bool reads_by_rows(int i) const override { return i == 0; }
  std::size_t row_scratch_bytes() const override { return turn_offset() + 2 * head_bytes(); }

  void run_rows(const RowArgs& args) const noexcept override {
    const float* const turns = turns_.data<float>().data();
    const std::int64_t head = turns_.shape()[2];
    const Turns all{.tokens = tokens_,
                    .channels = channels_,
                    .head_channels = head,
                    .fine = turns + coarse_ * 2 * head,
                    .coarse = turns};
    HWY_DYNAMIC_DISPATCH(rotate_rows)
    (all, args.input(0), output_.at(args), reinterpret_cast<float*>(args.scratch + turn_offset()), args.begin,
     args.end);
  }

 private:
  // Behind what the output wants for itself.
  std::size_t turn_offset() const { return whole_lines(output_.scratch_bytes()); }
  std::size_t head_bytes() const {
    return rows_ == 0 ? 0 : static_cast<std::size_t>(turns_.shape()[2]) * sizeof(float);
  }

  std::int64_t rows_, tokens_, channels_;
  std::int64_t coarse_ = 0;  // rows of coarse turns
  Tensor turns_;
  RowOutput output_;
};

}  // namespace

std::unique_ptr<Kernel> make_kernel(const Rotary&, const KernelRequest& request) {
  require<UnsupportedError>(request.constants[1], "rotary", "the CPU engine wants the angle to be a constant");
  return std::make_unique<RotaryKernel>(request, request.in[0].shape);
}

}  // namespace weft
#endif
