#include "torch/lowering.h"

#include <algorithm>
#include <array>

#include "kernel/kernel.h"
#include "torch/cuda/ops.h"

namespace weft::torch_engine {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

std::optional<Tensor> optional_input(Inputs in, std::size_t i) {
  return i < in.size() ? std::optional(in[i]) : std::nullopt;
}

Tensor affine(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias) {
  return bias ? at::linear(x, weight, *bias) : at::linear(x, weight);
}

// Of x [B,H,W,C], the same on each side.
Tensor convolve(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias, std::int64_t stride,
                std::int64_t padding, std::int64_t groups) {
  const std::array<std::int64_t, 2> strides{stride, stride};
  const std::array<std::int64_t, 2> paddings{padding, padding};
  const std::array<std::int64_t, 2> dilations{1, 1};
  return at::conv2d(x.permute({0, 3, 1, 2}), weight, bias.value_or(Tensor()), strides, paddings, dilations, groups)
      .permute({0, 2, 3, 1});
}

// y[…, i, …] = x[…, i − steps, …] along `axis`, nothing outside.
void copy_shifted(const Tensor& x, const Tensor& y, std::int64_t axis, std::int64_t steps) {
  const std::int64_t length = x.size(axis) - std::abs(steps);
  if (length <= 0) return;
  y.narrow(axis, std::max<std::int64_t>(steps, 0), length)
      .copy_(x.narrow(axis, std::max<std::int64_t>(-steps, 0), length));
}

Tensor shifted(const Tensor& x, const weft::QShift& q) {
  if (has_cuda_shift(x, q)) return cuda_shift(x, q);
  const std::int64_t channels = x.size(2);
  const Tensor from = x.reshape({x.size(0), q.height, q.width, channels});
  const Tensor to = at::zeros(from.sizes(), x.options());
  const auto cuts = q.cuts(channels);
  const auto group = [&](std::size_t i, std::int64_t axis, std::int64_t steps) {
    const std::int64_t end = i + 1 < cuts.size() ? cuts[i + 1] : channels;
    copy_shifted(from.slice(3, cuts[i], end), to.slice(3, cuts[i], end), axis, steps);
  };
  group(0, 2, q.pixels);
  group(1, 2, -q.pixels);
  group(2, 1, q.pixels);
  group(3, 1, -q.pixels);
  group(4, 1, 0);
  return to.view(x.sizes());
}

// The transpose of a shift by p is the shift by −p.
struct Shift : public Function<Shift> {
  static Tensor forward(AutogradContext* context, const Tensor& x, const weft::QShift& q) {
    context->saved_data["height"] = q.height;
    context->saved_data["width"] = q.width;
    context->saved_data["pixels"] = q.pixels;
    context->saved_data["gamma"] = q.gamma;
    return shifted(x, q);
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto integer = [&](const char* key) { return static_cast<int>(context->saved_data[key].toInt()); };
    const weft::QShift back{.height = integer("height"),
                            .width = integer("width"),
                            .pixels = -integer("pixels"),
                            .gamma = context->saved_data["gamma"].toDouble()};
    return {Shift::apply(gradients[0], back), Tensor()};
  }
};

}  // namespace

Results lower(const weft::Add&, Inputs in, const Setting&) { return in[0] + in[1]; }
Results lower(const weft::Mul&, Inputs in, const Setting&) { return in[0] * in[1]; }
Results lower(const weft::Scale& scale, Inputs in, const Setting&) { return in[0] * double{scale.factor}; }
Results lower(const weft::Lerp&, Inputs in, const Setting&) { return at::lerp(in[1], in[0], in[2]); }
Results lower(const weft::Sigmoid&, Inputs in, const Setting&) { return at::sigmoid(in[0]); }
Results lower(const weft::Tanh&, Inputs in, const Setting&) { return at::tanh(in[0]); }
Results lower(const weft::Relu&, Inputs in, const Setting&) { return at::relu(in[0]); }
Results lower(const weft::Silu&, Inputs in, const Setting&) { return at::silu(in[0]); }
Results lower(const weft::SquaredRelu&, Inputs in, const Setting&) { return at::square(at::relu(in[0])); }

Results lower(const weft::Gelu&, Inputs in, const Setting&) {
  const Tensor y = at::gelu(in[0].contiguous());  // by erf
  // In f32 on the CPU gelu_backward leaves its result as the allocator gave it where the gradient does not lie as x
  // does: libtorch 1.13 to 2.1, https://github.com/pytorch/pytorch/issues/112006.
  if (y.requires_grad()) y.register_hook([](const Tensor& gradient) { return gradient.contiguous(); });
  return y;
}

Results lower(const weft::Exp&, Inputs in, const Setting&) { return at::exp(in[0]); }
Results lower(const weft::Clamp& clamp, Inputs in, const Setting&) {
  return at::clamp(in[0], double{clamp.low}, double{clamp.high});
}

Results lower(const weft::Linear&, Inputs in, const Setting&) { return affine(in[0], in[1], optional_input(in, 2)); }

Results lower(const weft::LayerNorm& norm, Inputs in, const Setting&) {
  return at::layer_norm(in[0], in[1].sizes(), in[1], in[2], double{norm.eps});
}

Results lower(const weft::BatchNorm& norm, Inputs in, const Setting& setting) {
  const std::int64_t channels = setting.out[-1];
  const Tensor rows = in[0].reshape({row_count(setting.out), channels});
  const bool of_batch = in.size() == 3;
  return at::batch_norm(rows, in[1], in[2], of_batch ? Tensor() : in[3], of_batch ? Tensor() : in[4], of_batch,
                        /*momentum=*/0, double{norm.eps}, /*cudnn_enabled=*/false)
      .reshape(extents(setting.out));
}

// Nothing is differentiated by them.
Results lower(const weft::BatchMoments&, Inputs in, const Setting&) {
  const torch::NoGradGuard no_gradients;
  const auto [variance, mean] =
      at::var_mean(in[0].reshape({-1, in[0].size(-1)}), at::IntArrayRef{0}, /*unbiased=*/true);
  return at::stack({mean, variance});
}

Results lower(const weft::Conv2d& conv, Inputs in, const Setting&) {
  return convolve(in[0], in[1], optional_input(in, 2), conv.stride, conv.padding, 1);
}

// Where each picture has kernels of its own, channels of all pictures are those of one.
Results lower(const weft::DepthwiseConv& conv, Inputs in, const Setting& setting) {
  const std::int64_t groups = in[0].size(3);
  if (in[1].size(0) == groups && in[1].size(1) == 1) {
    return convolve(in[0], in[1], optional_input(in, 2), 1, conv.padding, groups);
  }
  const std::int64_t all = in[0].size(0) * groups;
  const Tensor x = in[0].permute({1, 2, 0, 3}).reshape({1, in[0].size(1), in[0].size(2), all});
  const Tensor kernels = in[1].reshape({all, 1, in[1].size(2), in[1].size(3)});
  const Tensor y = convolve(x, kernels, std::nullopt, 1, conv.padding, all)
                       .reshape({setting.out[1], setting.out[2], in[0].size(0), groups})
                       .permute({2, 0, 1, 3});
  return in.size() == 3 ? y + in[2] : y;
}

// Tap by tap: the grid, shifted, times the weights of that tap. Autograd keeps views only.
Results lower(const weft::Involution& op, Inputs in, const Setting& setting) {
  const Tensor& x = in[0];
  const std::int64_t k = op.kernel_size;
  const std::int64_t groups = in[1].size(3) / op.taps();
  const Tensor padded = at::constant_pad_nd(x, {0, 0, k / 2, k / 2, k / 2, k / 2})
                            .reshape({x.size(0), x.size(1) + k - 1, x.size(2) + k - 1, groups, x.size(3) / groups});
  const Tensor weights = in[1].reshape({x.size(0), x.size(1), x.size(2), groups, op.taps(), 1});
  Tensor sum;
  for (std::int64_t i = 0; i < k; ++i) {
    for (std::int64_t j = 0; j < k; ++j) {
      const Tensor shifted = padded.narrow(1, i, x.size(1)).narrow(2, j, x.size(2));
      const Tensor term = shifted * weights.select(4, i * k + j);
      sum = sum.defined() ? sum + term : term;
    }
  }
  return sum.reshape(extents(setting.out));
}

Results lower(const weft::Attention& attention, Inputs in, const Setting& setting) {
  const std::int64_t head_channels = setting.out[2] / attention.heads;
  const auto by_head = [&](const Tensor& x) {  // [B,T,C] → [B,heads,T,D]
    return x.reshape({x.size(0), x.size(1), attention.heads, head_channels}).transpose(1, 2);
  };
  const Tensor scores = at::matmul(by_head(in[0]) * attention.factor(head_channels), by_head(in[1]).transpose(2, 3));
  const bool wide = scores.scalar_type() == at::kFloat || scores.scalar_type() == at::kDouble;
  const Tensor weights = at::softmax(scores, -1, wide ? scores.scalar_type() : at::kFloat).to(scores.scalar_type());
  return at::matmul(weights, by_head(in[2])).transpose(1, 2).reshape(extents(setting.out));
}

Results lower(const weft::PatchEmbed& patch, Inputs in, const Setting& setting) {
  const std::int64_t rows = patch.patch_h;
  const std::int64_t columns = patch.patch_w;
  const auto up = [](std::int64_t extent, std::int64_t side) { return (extent + side - 1) / side; };
  const Tensor& image = in[0];
  const std::int64_t grid_h = up(image.size(2), rows);
  const std::int64_t grid_w = up(image.size(3), columns);
  const std::int64_t pixels = image.size(1) * rows * columns;
  const Tensor patches =
      at::constant_pad_nd(image, {0, grid_w * columns - image.size(3), 0, grid_h * rows - image.size(2)})
          .reshape({image.size(0), image.size(1), grid_h, rows, grid_w, columns})
          .permute({0, 2, 4, 1, 3, 5})
          .reshape({setting.out[0], setting.out[1], pixels});
  return affine(patches, in[1].reshape({setting.out[2], pixels}), optional_input(in, 2));
}

Results lower(const weft::QShift& q, Inputs in, const Setting&) { return Shift::apply(in[0], q); }

Results lower(const weft::TokenShift&, Inputs in, const Setting& setting) {
  return at::cat({in[1].unsqueeze(1), in[0]}, 1).narrow(1, 0, setting.out[1]);
}

Results lower(const weft::Rotary&, Inputs in, const Setting& setting) {
  const Tensor& x = in[0];
  const std::int64_t head_channels = in[1].size(0);
  const Tensor positions = at::arange(x.size(1), in[1].options().dtype(at::kDouble));
  const Tensor turn = at::outer(positions, in[1].to(at::kDouble)).unsqueeze(1);  // [T,1,D]
  const Tensor heads = x.reshape({x.size(0), x.size(1), x.size(2) / head_channels, head_channels});
  const Tensor pairs = heads.unflatten(3, {head_channels / 2, 2});
  const Tensor across = at::stack({-pairs.select(4, 1), pairs.select(4, 0)}, 4).flatten(3);
  return (heads * turn.cos().to(x.scalar_type()) + across * turn.sin().to(x.scalar_type()))
      .reshape(extents(setting.out));
}

Results lower(const weft::Reshape&, Inputs in, const Setting& setting) { return in[0].reshape(extents(setting.out)); }

Results lower(const weft::Permute& permute, Inputs in, const Setting&) {
  return in[0].permute(std::vector<std::int64_t>(permute.order.begin(), permute.order.end()));
}

Results lower(const weft::Pad& pad, Inputs in, const Setting& setting) {
  std::vector<std::int64_t> sizes = in[0].sizes().vec();
  sizes[static_cast<std::size_t>(pad.axis < 0 ? pad.axis + setting.out.rank() : pad.axis)] = pad.count;
  return at::cat({in[0], at::zeros(sizes, in[0].options())}, pad.axis);
}

Results lower(const weft::Slice& slice, Inputs in, const Setting&) {
  return in[0].slice(slice.axis, slice.begin, slice.end);
}

Results lower(const weft::Concat& concat, Inputs in, const Setting& setting) {
  std::vector<Tensor> parts;
  for (const Tensor& part : in) {
    std::vector<std::int64_t> sizes = part.sizes().vec();
    sizes[0] = setting.out[0];
    parts.push_back(part.expand(sizes));
  }
  return at::cat(parts, concat.axis);
}

Results lower(const weft::Embedding&, Inputs in, const Setting&) { return at::embedding(in[1], in[0]); }

Results lower(const weft::Mean& mean, Inputs in, const Setting&) { return in[0].mean(mean.axis); }

Results lower(const weft::Interpolate& interpolate, Inputs in, const Setting& setting) {
  if (setting.out.elements() == 0) return at::zeros(extents(setting.out), in[0].options());  // refused by libtorch
  const Tensor x = in[0].permute({0, 3, 1, 2});
  const std::array<std::int64_t, 2> size{interpolate.out_h, interpolate.out_w};
  const auto resized = [&] {
    switch (interpolate.mode) {
      case InterpolateMode::kBilinear:
        return at::upsample_bilinear2d(x, size, /*align_corners=*/false);
      case InterpolateMode::kBicubic:
        return at::upsample_bicubic2d(x, size, /*align_corners=*/false);
      case InterpolateMode::kBicubicAntialias:
        break;
    }
    return at::_upsample_bicubic2d_aa(x, size, /*align_corners=*/false);
  };
  return resized().permute({0, 2, 3, 1});
}

}  // namespace weft::torch_engine
