// What the CPU executor asks of an operator: a kernel, prepared once for fixed shapes and run many times.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/threads.h"
#include "weft/tensor.h"

namespace weft {

/// Weights in the layouts that kernels want, made once and shared by all shapes that a session runs.
class PackCache {
 public:
  /// `before_packing`, where there is one, is told about how many bytes each packed form will take, and may throw.
  explicit PackCache(std::function<void(std::int64_t)> before_packing = {})
      : before_packing_(std::move(before_packing)) {}

  /// The packed form `layout` of `source`; made by `pack` at the first call. Safe from several threads.
  Tensor get(const Tensor& source, std::string_view layout, FunctionRef<Tensor()> pack);

 private:
  struct Entry {
    Tensor source;  // keeps the key's address from being reused
    Tensor packed;
  };
  std::function<void(std::int64_t)> before_packing_;
  std::mutex mutex_;
  std::map<std::pair<const std::byte*, std::string>, Entry> entries_;
};

/// What is known when a kernel is made.
struct KernelRequest {
  std::span<const TensorType> in;
  std::span<const TensorType> out;
  /// Per input the tensor when it is constant (a weight), else null. Constant tensors outlive the kernel. They are f32,
  /// but for weights of Linear and tables of Embedding, which may be bf16 or f16.
  std::span<const Tensor* const> constants;
  /// Threads of the session: a hint for the size of tiles.
  int threads = 1;
  PackCache* packs = nullptr;
  /// What matrix products multiply: kF32, kBF16 or kI8. Inputs and outputs are f32 unless the kernel is told otherwise;
  /// what it computes in passing need not be more exact than bf16 where this is not kF32.
  DType precision = DType::kF32;
};

/// Where a kernel finds its data when it runs.
struct KernelArgs {
  std::span<const std::byte* const> in;
  std::span<std::byte* const> out;
  std::byte* scratch = nullptr;  // scratch_bytes() of them, aligned to 64, contents undefined
  const Workers& workers;

  template <class T = float>
  const T* input(int i) const {
    return reinterpret_cast<const T*>(in[static_cast<std::size_t>(i)]);
  }
  template <class T = float>
  T* output(int i = 0) const {
    return reinterpret_cast<T*>(out[static_cast<std::size_t>(i)]);
  }
};

/// What a product may do to its result in passing.
enum class Activation : std::uint8_t { kNone, kSquaredRelu };

/// A prepared computation. Everything is checked and allocated when it is made: run() does not throw, allocates nothing
/// (oneDNN books a few small records of its own for each product) and may be called from several threads at once with
/// different arguments. The result does not depend on which threads run it.
class Kernel {
 public:
  virtual ~Kernel() = default;
  /// "onednn:linear", "hwy:bi_wkv", …
  virtual std::string_view name() const = 0;
  virtual std::size_t scratch_bytes() const { return 0; }
  /// Whether output 0 may be written over input `i` (which has as many bytes).
  virtual bool may_overwrite(int /*i*/) const { return false; }
  /// How input `i` must be stored: kF32 as it is, kBF16 or kI8 in encoded rows (kernel/encode.h).
  virtual DType encoding(int /*i*/) const { return DType::kF32; }
  /// Whether it can read input `i` (which asks for no encoding) in bf16 as well as in f32.
  virtual bool reads_bf16(int /*i*/) const { return false; }
  /// Says that input `i` will come in bf16.
  virtual void give_bf16(int /*i*/) {}
  /// Whether output 0 is elements of the one input, moved: it is stored as that is.
  virtual bool moves() const { return false; }
  /// Asks the kernel to apply this to output 0 in passing (a ReLU may then drop a NaN). False: it cannot, or has one.
  virtual bool absorb(Activation /*activation*/) { return false; }
  /// Asks it to store output 0 in this encoding (in kI8 the scales are then output 1). False: it cannot.
  virtual bool encode_output(DType /*encoding*/) { return false; }
  /// Not null (with an input 0 in kI8 only): output 0 is raw, and the kernel returned makes of it and of the scales of
  /// input 0 what it should be. A step of its own, because it is cheaper in small slices than for a product's tile.
  virtual std::unique_ptr<class RowKernel> make_decoder() { return nullptr; }
  /// Not null when the result can be computed row by row.
  virtual class RowKernel* by_rows() { return nullptr; }
  /// Not null when the result falls into parts that can be computed at the same time.
  virtual class PartedKernel* by_parts() { return nullptr; }
  virtual void run(const KernelArgs& args) const noexcept = 0;
};

/// A kernel whose result falls into parts, columns of few rows for example. Neighbouring ones that do not read each
/// other's results run all their parts at once.
class PartedKernel : public Kernel {
 public:
  /// To be called once, when nothing more is asked of the kernel, before any of what follows.
  virtual void prepare() {}
  virtual std::int64_t parts() const = 0;
  virtual std::size_t part_scratch_bytes() const { return 0; }
  /// `args.scratch` is the part's own.
  virtual void run_part(const KernelArgs& args, std::int64_t part) const noexcept = 0;

  std::size_t scratch_bytes() const final { return part_scratch_bytes() * static_cast<std::size_t>(parts()); }
  void run(const KernelArgs& args) const noexcept final;
  PartedKernel* by_parts() final { return this; }
};

/// Some rows of a result. Pointers to what is read or written row by row are those of row `begin`, the others those of
/// the whole.
struct RowArgs {
  std::span<const std::byte* const> in;
  std::span<std::byte* const> out;
  std::byte* scratch = nullptr;  // row_scratch_bytes() of them, aligned to 64, this thread's own, contents undefined
  std::int64_t begin = 0;
  std::int64_t end = 0;

  template <class T = float>
  const T* input(int i) const {
    return reinterpret_cast<const T*>(in[static_cast<std::size_t>(i)]);
  }
  template <class T = float>
  T* output(int i = 0) const {
    return reinterpret_cast<T*>(out[static_cast<std::size_t>(i)]);
  }
  std::int64_t count() const { return end - begin; }
};

/// Inputs, and outputs, that a RowKernel may have.
constexpr std::size_t kMaxOperands = 8;

/// Rows of a tensor: all axes but the last, together.
inline std::int64_t row_count(const Shape& shape) {
  if (shape.rank() == 0) return 1;
  return shape[-1] == 0 ? 0 : shape.elements() / shape[-1];
}

/// A kernel whose rows do not depend on each other, so that a chain of them can run tile by tile, its intermediate
/// results in the cache of one thread. A tile is some neighbouring rows.
class RowKernel : public Kernel {
 public:
  /// Rows of every output; 0 when there is nothing to compute.
  virtual std::int64_t rows() const = 0;
  /// Whether row r of the result depends on no other row of input `i` than r. If not, the whole input must be there.
  virtual bool reads_by_rows(int i) const = 0;
  /// Whether tiles should be high (products), rather than small enough for the first-level cache.
  virtual bool wants_high_tiles() const { return false; }
  /// Prepares for tiles of this height (a multiple of which the first rows of all tiles are). To be called before the
  /// first run.
  virtual void set_tile_rows(std::int64_t /*rows*/) {}
  virtual std::size_t row_scratch_bytes() const { return 0; }
  /// At most as many rows as set_tile_rows said; fewer only in the last tile, unless wants_high_tiles() is false.
  virtual void run_rows(const RowArgs& args) const noexcept = 0;

  /// Makes run() possible: the kernel on its own, tile by tile, on all threads. Plans run tiles themselves instead.
  void prepare_to_run_alone(const KernelRequest& request);
  std::size_t scratch_bytes() const final { return row_scratch_bytes() * static_cast<std::size_t>(threads_); }
  void run(const KernelArgs& args) const noexcept final;
  RowKernel* by_rows() final { return this; }

 private:
  std::int64_t tile_rows_ = 1;  // when it runs alone
  int threads_ = 1;
  std::vector<std::size_t> in_row_bytes_, out_row_bytes_;  // 0: whole
};

/// Equal tiles of at most `largest` rows, as many for each thread.
std::int64_t choose_tile_rows(std::int64_t rows, std::int64_t largest, int threads);

}  // namespace weft
