#include <algorithm>

#include "core/format.h"
#include "kernel/onednn.h"
#include "ops/linear/linear.h"

namespace weft {
namespace {

// From the raw result of an int8 product, and the scales of the rows that it multiplied, to the result.
class LinearDecoder final : public RowKernel {
 public:
  LinearDecoder(std::shared_ptr<const onednn::Product> product, std::int64_t rows)
      : product_(std::move(product)), decoding_(product_->decoding()), rows_(rows), output_(decoding_.n) {}

  std::string_view name() const override { return "hwy:decode_i8"; }
  bool may_overwrite(int i) const override { return i == 0 && output_.encoding() == DType::kF32; }
  bool absorb(Activation activation) override {
    if (decoding_.activation != Activation::kNone) return false;
    decoding_.activation = activation;
    return true;
  }
  bool encode_output(DType encoding) override { return output_.encode(encoding); }

  std::int64_t rows() const override { return rows_; }
  bool reads_by_rows(int) const override { return true; }
  std::size_t row_scratch_bytes() const override { return output_.scratch_bytes(); }
  void run_rows(const RowArgs& args) const noexcept override {
    decode_rows(decoding_, args.input<RowScale>(1), args.input(0), output_.at(args), args.count());
  }

 private:
  std::shared_ptr<const onednn::Product> product_;  // keeps what decoding_ points to
  Decoding decoding_;
  std::int64_t rows_;
  RowOutput output_;
};

std::shared_ptr<onednn::Product> make_product(const KernelRequest& request) {
  const Tensor* const bias = request.in.size() == 3 ? request.constants[2] : nullptr;
  return std::make_shared<onednn::Product>(*request.constants[1], bias, request.precision, *request.packs);
}

std::unique_ptr<RowKernel> make_decoder_of(const std::shared_ptr<onednn::Product>& product, std::int64_t rows) {
  if (product->precision() != DType::kI8) return nullptr;
  return std::make_unique<LinearDecoder>(product, rows);
}

// What a product does to its result in passing.
class ProductOutput {
 public:
  bool absorb(onednn::Product& product, Activation activation) {
    if (product.precision() == DType::kI8 || activation_ != Activation::kNone) return false;
    product.set_activation(activation_ = activation);
    return true;
  }
  static bool encode(onednn::Product& product, DType encoding) {
    if (encoding != DType::kBF16 || product.precision() != encoding) return false;
    product.set_output(encoding);
    return true;
  }

 private:
  Activation activation_ = Activation::kNone;
};

class LinearKernel final : public RowKernel {
 public:
  LinearKernel(const KernelRequest& request, std::int64_t rows) : rows_(rows), product_(make_product(request)) {}

  std::string_view name() const override { return "onednn:linear"; }
  DType encoding(int i) const override { return i == 0 ? product_->precision() : DType::kF32; }
  bool absorb(Activation activation) override { return output_.absorb(*product_, activation); }
  bool encode_output(DType encoding) override { return output_.encode(*product_, encoding); }
  std::unique_ptr<RowKernel> make_decoder() override { return make_decoder_of(product_, rows_); }

  std::int64_t rows() const override { return rows_; }
  bool reads_by_rows(int i) const override { return i == 0; }
  bool wants_high_tiles() const override { return true; }
  void set_tile_rows(std::int64_t rows) override { product_->set_rows(rows_, rows); }
  std::size_t row_scratch_bytes() const override { return product_->scratch_bytes(); }

  void run_rows(const RowArgs& args) const noexcept override {
    product_->run(args.input<std::byte>(0), args.output<std::byte>(), args.count(), args.scratch);
  }

 private:
  std::int64_t rows_;
  std::shared_ptr<onednn::Product> product_;
  ProductOutput output_;
};

// Bytes of weights that are worth another thread: waking one takes as long as it takes to read some MiB.
constexpr std::int64_t kPartBytes = std::int64_t{2} << 20;

std::int64_t weight_bytes(const KernelRequest& request) {
  return static_cast<std::int64_t>(size_of(request.precision)) * request.in[1].shape.elements();
}

// Few rows: columns on several threads, since what takes time is to read the weights.
class FewRowsKernel final : public PartedKernel {
 public:
  FewRowsKernel(const KernelRequest& request, std::int64_t rows)
      : rows_(rows),
        most_parts_(std::min<std::int64_t>(request.threads, weight_bytes(request) / kPartBytes)),
        product_(make_product(request)) {}

  std::string_view name() const override { return "onednn:linear_columns"; }
  DType encoding(int i) const override { return i == 0 ? product_->precision() : DType::kF32; }
  bool absorb(Activation activation) override { return output_.absorb(*product_, activation); }
  bool encode_output(DType encoding) override { return output_.encode(*product_, encoding); }
  std::unique_ptr<RowKernel> make_decoder() override { return make_decoder_of(product_, rows_); }

  void prepare() override { parts_ = product_->set_parts(rows_, most_parts_); }
  std::int64_t parts() const override { return parts_; }
  std::size_t part_scratch_bytes() const override { return product_->scratch_bytes(); }
  void run_part(const KernelArgs& args, std::int64_t part) const noexcept override {
    product_->run_part(args.input<std::byte>(0), args.output<std::byte>(), part, args.scratch);
  }

 private:
  std::int64_t rows_, most_parts_;
  std::shared_ptr<onednn::Product> product_;
  ProductOutput output_;
  std::int64_t parts_ = 0;
};

// Whether columns rather than rows are to be shared out: fewer rows than a product is at its best rate with.
bool has_few_rows(const KernelRequest& request, std::int64_t rows) {
  constexpr std::int64_t kFewRows = 16;
  return request.threads > 1 && rows <= kFewRows && weight_bytes(request) >= 2 * kPartBytes;
}

// Nothing to multiply: no rows, or no columns to sum over.
class EmptyLinearKernel final : public Kernel {
 public:
  explicit EmptyLinearKernel(const KernelRequest& request)
      : columns_(request.in[1].shape[0]),
        elements_(request.out[0].shape.elements()),
        with_bias_(request.in.size() == 3) {}
  std::string_view name() const override { return "empty:linear"; }
  void run(const KernelArgs& args) const noexcept override {
    for (std::int64_t i = 0; i < elements_; ++i) args.output()[i] = with_bias_ ? args.input(2)[i % columns_] : 0.0F;
  }

 private:
  std::int64_t columns_, elements_;
  bool with_bias_;
};

}  // namespace

std::unique_ptr<Kernel> make_kernel(const Linear&, const KernelRequest& request) {
  const bool constant = request.constants[1] && (request.in.size() == 2 || request.constants[2]);
  require<UnsupportedError>(constant, "linear", "the CPU engine wants weight and bias to be constants");
  if (request.in[0].shape.elements() == 0 || request.out[0].shape.elements() == 0) {
    return std::make_unique<EmptyLinearKernel>(request);
  }
  const std::int64_t rows = row_count(request.in[0].shape);
  if (has_few_rows(request, rows)) return std::make_unique<FewRowsKernel>(request, rows);
  return std::make_unique<LinearKernel>(request, rows);
}

}  // namespace weft
