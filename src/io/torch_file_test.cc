#include "io/torch_file.h"

#include <gtest/gtest.h>

#include <numeric>

#include "io/testing/files.h"
#include "io/testing/torch_writer.h"

namespace weft {
namespace {

using testing::as_file;
using testing::bytes_of;
using testing::refuses;
namespace pickled = testing::pickled;

// The tensor of a file that holds this one view; the file stays in `bytes`.
Tensor only_tensor(const pickled::View& view, const std::string& storage, std::string& bytes) {
  bytes = testing::torch_file(pickled::tensor(view), {storage});
  TorchFile file(as_file(bytes));
  return file.tensor(*std::get<const pickle::TensorRef*>(file.root()), "w");
}

std::vector<std::int64_t> values_of(const Tensor& tensor) {
  const Tensor whole = tensor.to(DType::kI64);
  return {whole.data<std::int64_t>().begin(), whole.data<std::int64_t>().end()};
}

TEST(TorchFile, ReadsEveryElementType) {
  const std::tuple<const char*, DType, std::string> cases[] = {
      {"DoubleStorage", DType::kF64, bytes_of<double>({1, -2})},
      {"FloatStorage", DType::kF32, bytes_of<float>({1, -2})},
      {"HalfStorage", DType::kF16, bytes_of<std::uint16_t>({0x3C00, 0xC000})},
      {"BFloat16Storage", DType::kBF16, bytes_of<std::uint16_t>({0x3F80, 0xC000})},
      {"LongStorage", DType::kI64, bytes_of<std::int64_t>({1, -2})},
      {"IntStorage", DType::kI32, bytes_of<std::int32_t>({1, -2})},
      {"ShortStorage", DType::kI16, bytes_of<std::int16_t>({1, -2})},
      {"CharStorage", DType::kI8, bytes_of<std::int8_t>({1, -2})},
      {"ByteStorage", DType::kU8, bytes_of<std::uint8_t>({1, 254})},
      {"BoolStorage", DType::kBool, bytes_of<std::uint8_t>({1, 0})}};
  for (const auto& [type, dtype, data] : cases) {
    std::string bytes;
    const Tensor t = only_tensor({.type = type, .elements = 2, .sizes = {2}, .strides = {1}}, data, bytes);
    EXPECT_EQ(t.type(), (TensorType{dtype, {2}}));
    const std::int64_t second = dtype == DType::kU8 ? 254 : dtype == DType::kBool ? 0 : -2;
    EXPECT_EQ(values_of(t), (std::vector<std::int64_t>{1, second})) << type;
  }
}

TEST(TorchFile, MaterialisesViewsAndLendsContiguousOnes) {
  std::vector<float> storage(24);
  std::iota(storage.begin(), storage.end(), 0.0F);
  struct Case {
    std::int64_t offset;
    std::vector<std::int64_t> sizes, strides, values;
    bool lent;
  };
  const Case cases[] = {
      {0, {2, 3}, {3, 1}, {0, 1, 2, 3, 4, 5}, true},
      {4, {3}, {1}, {4, 5, 6}, true},
      {5, {}, {}, {5}, true},
      {1, {1, 3, 1}, {77, 1, 99}, {1, 2, 3}, true},  // strides of single elements mean nothing
      {0, {3, 2}, {1, 3}, {0, 3, 1, 4, 2, 5}, false},
      {2, {2, 2}, {8, 2}, {2, 4, 10, 12}, false},
      {7, {2, 3}, {0, 1}, {7, 8, 9, 7, 8, 9}, false},
      {0, {2, 2, 2}, {1, 12, 3}, {0, 3, 12, 15, 1, 4, 13, 16}, false},
      {99, {3, 0}, {1, 1}, {}, false},
  };
  for (const Case& c : cases) {
    std::string bytes;
    const Tensor t = only_tensor({.elements = 24, .offset = c.offset, .sizes = c.sizes, .strides = c.strides},
                                 bytes_of(storage), bytes);
    EXPECT_EQ(t.shape(), Shape(c.sizes));
    EXPECT_EQ(values_of(t), c.values);
    const auto* first = reinterpret_cast<const std::byte*>(bytes.data());
    EXPECT_EQ(t.raw() >= first && t.raw() < first + bytes.size(), c.lent) << t.shape().str();
  }
}

TEST(TorchFile, CopiesWhatIsNotAligned) {
  using namespace pickled;
  for (const std::size_t padding : {0U, 1U, 2U, 3U}) {  // at least three of these leave the storage unaligned
    const std::string bytes = testing::zip(
        {{.name = "a" + std::string(padding, 'a') + "/data.pkl",
          .data = document(tensor({.elements = 3, .sizes = {3}, .strides = {1}})),
          .alignment = 1},
         {.name = "a" + std::string(padding, 'a') + "/data/0", .data = bytes_of<float>({1, 2, 3}), .alignment = 1}});
    TorchFile file(as_file(bytes));
    const Tensor t = file.tensor(*std::get<const pickle::TensorRef*>(file.root()), "w");
    EXPECT_EQ(values_of(t), (std::vector<std::int64_t>{1, 2, 3}));
  }
}

TEST(TorchFile, ReadsStoragesThatTensorsShare) {
  using namespace pickled;
  const std::string bytes =
      testing::torch_file(dict({{"a", tensor({.elements = 4, .sizes = {4}, .strides = {1}})},
                                {"b", tensor({.elements = 4, .offset = 2, .sizes = {2}, .strides = {1}})}}),
                          {bytes_of<float>({1, 2, 3, 4})});
  TorchFile file(as_file(bytes));
  const auto* root = std::get<pickle::Dict*>(file.root());
  const Tensor a = file.tensor(*std::get<const pickle::TensorRef*>(*root->find("a")), "a");
  const Tensor b = file.tensor(*std::get<const pickle::TensorRef*>(*root->find("b")), "b");
  EXPECT_EQ(b.raw(), a.raw() + 8);
  EXPECT_EQ(values_of(b), (std::vector<std::int64_t>{3, 4}));
}

TEST(TorchFile, AcceptsLittleEndianAndNamesWhatIsWrong) {
  using namespace pickled;
  const testing::ZipEntry main = {.name = "m/data.pkl", .data = document("}")};
  EXPECT_NO_THROW(TorchFile(as_file(testing::zip({main, {.name = "m/byteorder", .data = "little"}}))));
  std::string bytes;
  EXPECT_TRUE(refuses([&] { only_tensor({.elements = 9, .sizes = {9}, .strides = {1}}, std::string(32, '\0'), bytes); },
                      "storage 0 of w should have 9 elements of 4 bytes, but the file has 32 bytes"));
  EXPECT_TRUE(refuses(
      [&] {
        only_tensor({.elements = 8, .offset = 1, .sizes = {4, 2}, .strides = {2, 1}}, std::string(32, '\0'), bytes);
      },
      "w (sizes [4,2], strides [2,1], offset 1) reaches beyond its storage of 32 bytes"));
}

}  // namespace
}  // namespace weft
