// How near the kernels come to what the memory of a GPU allows.
#include <array>
#include <cstdio>
#include <exception>

#include "tests/gpu/device.h"
#include "torch/cuda/kernels.h"

namespace weft::cuda {
namespace {

using gpu::Memory;

// Bytes a second that a copy reads and writes, of 1 GiB.
double bandwidth(cudaStream_t stream) {
  constexpr std::size_t kSize = std::size_t{1} << 29;
  const Memory from(kSize), to(kSize);
  const double time = gpu::seconds(
      stream, [&] { gpu::check(cudaMemcpyAsync(to.data(), from.data(), kSize, cudaMemcpyDeviceToDevice, stream)); });
  return 2 * kSize / time;
}

void require_none(Error error) {
  if (error != nullptr) fail<weft::Error>("gpu", "{}", error);
}

void print(std::string_view what, const char* type, const WkvShape& s, double bytes, double time, double most) {
  fmt::print("{:<22} {:<4} ({:>3},{:>5},{:>3})  {:9.1f} us  {:8.1f} MB  {:5.1f} % of the memory's speed\n", what, type,
             s.batch, s.tokens, s.channels, time * 1e6, bytes * 1e-6, 100 * bytes / most / time);
}

void measure(const WkvShape& shape, Element type, double most, cudaStream_t stream) {
  const char* const name = type == Element::kF32 ? "f32" : "bf16";
  const std::size_t count = static_cast<std::size_t>(shape.batch * shape.tokens * shape.channels);
  const std::size_t size = count * (type == Element::kF32 ? 4 : 2);
  const std::vector<std::byte> zeros(size), few(static_cast<std::size_t>(shape.channels) * 4);
  const Memory k(zeros), v(zeros), gy(zeros), w(few), u(few), y(size), gk(size), gv(size), gw(few), gu(few), gx(size);
  const Queue queue{0, stream};
  const Memory first(wkv_forward_scratch(type, shape)), second(wkv_backward_scratch(type, shape));
  const std::string_view form = shape.released_kernel ? "released_kernel" : "paper";
  const auto bytes = [&](int tensors) { return static_cast<double>(size) * tensors; };
  print(fmt::format("{} forward", form), name, shape, bytes(3),
        gpu::seconds(stream,
                     [&] {
                       require_none(wkv_forward(type, shape, {k.data(), v.data(), w.data(), u.data(), y.data()},
                                                first.data(), queue));
                     }),
        most);
  print(fmt::format("{} backward", form), name, shape, bytes(5),
        gpu::seconds(stream,
                     [&] {
                       require_none(wkv_backward(type, shape,
                                                 {k.data(), v.data(), w.data(), u.data(), gy.data(), gk.data(),
                                                  gv.data(), gw.data(), gu.data()},
                                                 second.data(), queue));
                     }),
        most);
  if (shape.released_kernel) return;

  // Three mixes of one shift, as before key, value and receptance.
  ShiftShape s;
  s.batch = shape.batch;
  s.height = s.width = 1;
  while (s.height * s.height < shape.tokens) ++s.height;
  s.width = shape.tokens / s.height;
  s.channels = shape.channels;
  for (int i = 0; i < 5; ++i) s.cuts[i] = s.channels * i / 4;
  const ShiftForward mix{k.data(), 3, {w.data(), w.data(), w.data()}, {y.data(), gk.data(), gv.data()}};
  const ShiftBackward back{k.data(),
                           3,
                           {w.data(), w.data(), w.data()},
                           {gy.data(), v.data(), y.data()},
                           gx.data(),
                           {gw.data(), gu.data(), gw.data()}};
  const Memory scratch(shift_backward_scratch(type, s, 3));
  print("shift, 3 mixes", name, shape, bytes(4),
        gpu::seconds(stream, [&] { require_none(shift_forward(type, s, mix, queue)); }), most);
  print("shift, 3 mixes backward", name, shape, bytes(5),
        gpu::seconds(stream, [&] { require_none(shift_backward(type, s, back, scratch.data(), queue)); }), most);
}

void run() {
  if (const auto why = gpu::missing()) {
    fmt::print("skipped: {}\n", *why);
    return;
  }
  cudaDeviceProp device;
  gpu::check(cudaGetDeviceProperties(&device, 0));
  cudaStream_t stream = nullptr;
  gpu::check(cudaStreamCreate(&stream));
  const double most = bandwidth(stream);
  fmt::print("{}, {} multiprocessors; a copy reads and writes {:.0f} GB/s\n", device.name, device.multiProcessorCount,
             most * 1e-9);
  fmt::print("MB: what must be read and written once. What fits into the cache may be faster than the memory.\n");
  for (const bool released_kernel : {false, true}) {
    for (const auto& [b, t, c] : std::initializer_list<std::array<std::int64_t, 3>>{
             {1, 16384, 192}, {8, 4096, 192}, {64, 196, 192}, {128, 196, 768}}) {
      WkvShape shape;
      shape.batch = b;
      shape.tokens = t;
      shape.channels = c;
      shape.released_kernel = released_kernel;
      for (const Element type : {Element::kF32, Element::kBF16}) measure(shape, type, most, stream);
    }
  }
  gpu::check(cudaStreamDestroy(stream));
}

}  // namespace
}  // namespace weft::cuda

int main() {
  try {
    weft::cuda::run();
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
