#include "io/safetensors.h"

#include <gtest/gtest.h>

#include "io/testing/files.h"
#include "io/testing/torch_writer.h"

namespace weft {
namespace {

using testing::as_file;
using testing::refuses;
using testing::TemporaryDirectory;

Tensor numbered(TensorType type) {
  Tensor out(std::move(type));
  for (std::size_t i = 0; i < out.bytes(); ++i) out.mutable_raw()[i] = static_cast<std::byte>(i % 2);
  return out;
}

TEST(Safetensors, WritesWhatItReads) {
  TemporaryDirectory dir;
  NamedTensors tensors;
  for (const DType dtype : {DType::kF64, DType::kI64, DType::kF32, DType::kI32, DType::kF16, DType::kBF16, DType::kI16,
                            DType::kI8, DType::kU8, DType::kBool}) {
    for (const Shape& shape : {Shape{}, Shape{3}, Shape{2, 0}, Shape{2, 3, 4}}) {
      tensors.emplace_back(fmt::format("é.{}{}", name_of(dtype), shape.str()), numbered({dtype, shape}));
    }
  }
  const std::map<std::string, std::string> metadata = {{"a", "b\n\"ü\""}, {"", ""}};
  write_safetensors(dir / "t", tensors, metadata);
  const SafetensorsFile back = read_safetensors(map_file(dir / "t"));
  EXPECT_EQ(back.metadata, metadata);
  ASSERT_EQ(back.tensors.size(), tensors.size());
  const std::map<std::string, Tensor> read(back.tensors.begin(), back.tensors.end());
  for (const auto& [name, tensor] : tensors) {
    const auto found = read.find(name);
    ASSERT_NE(found, read.end()) << name;
    EXPECT_EQ(found->second.type(), tensor.type());
    EXPECT_TRUE(std::equal(tensor.raw(), tensor.raw() + tensor.bytes(), found->second.raw())) << name;
  }
}

TEST(Safetensors, WritesTheBytesOfTheFormat) {
  TemporaryDirectory dir;
  const float values[] = {1, 2};
  write_safetensors(dir / "t", {{"w", Tensor::of(values, {2})}}, {{"k", "v"}});
  std::string header = R"({"__metadata__":{"k":"v"},"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  EXPECT_EQ(testing::read_text(dir / "t"), testing::safetensors(header, testing::bytes_of<float>({1, 2})));
}

TEST(Safetensors, LendsAlignedTensorsAndCopiesOthers) {
  TemporaryDirectory dir;
  const Tensor one = numbered({DType::kU8, {1}});
  const Tensor four = numbered({DType::kF32, {4}});
  write_safetensors(dir / "t", {{"four", four}, {"one", one}, {"last", four}});
  const FileBytes file = map_file(dir / "t");
  const SafetensorsFile back = read_safetensors(file);
  const auto lent = [&](const Tensor& t) {
    return t.raw() >= file.bytes.data() && t.raw() < file.bytes.data() + file.bytes.size();
  };
  EXPECT_TRUE(lent(back.tensors[0].second));
  EXPECT_FALSE(lent(back.tensors[2].second));
  EXPECT_TRUE(std::equal(four.raw(), four.raw() + 16, back.tensors[2].second.raw()));
}

TEST(Safetensors, LentTensorsOutliveTheFile) {
  TemporaryDirectory dir;
  const float values[] = {1, 2};
  write_safetensors(dir / "t", {{"w", Tensor::of(values, {2})}});
  const Tensor w = read_safetensors(map_file(dir / "t")).tensors[0].second;
  write_safetensors(dir / "t", {{"other", numbered({DType::kF64, {9}})}});
  std::filesystem::remove(dir / "t");
  EXPECT_EQ(w.data<float>()[1], 2);
}

TEST(Safetensors, ReadsHeadersOfOtherWriters) {
  // Entries out of the data's order, spaces, the padding of the reference implementation.
  const std::string file = testing::safetensors(
      "{ \"b\" : {\"data_offsets\":[4,8],\"shape\":[],\"dtype\":\"F32\"},"
      "\"a\":{\"dtype\":\"I8\",\"shape\":[2,2],\"data_offsets\":[0,4]}}   ",
      "\1\2\3\4" + testing::bytes_of<float>({5}));
  const SafetensorsFile read = read_safetensors(as_file(file));
  ASSERT_EQ(read.tensors.size(), 2U);
  EXPECT_EQ(read.tensors[0].first, "a");
  EXPECT_EQ(read.tensors[1].second.data<float>()[0], 5);
  EXPECT_TRUE(read_safetensors(as_file(testing::safetensors("{}"))).tensors.empty());
}

TEST(Safetensors, RefusesEveryTruncation) {
  TemporaryDirectory dir;
  write_safetensors(dir / "t", {{"w", numbered({DType::kF32, {5}})}}, {{"k", "v"}});
  const std::string whole = testing::read_text(dir / "t");
  for (std::size_t size = 0; size < whole.size(); ++size) {
    const std::string cut = whole.substr(0, size);
    EXPECT_TRUE(refuses([&] { read_safetensors(as_file(cut)); }, "cut short")) << size;
  }
}

TEST(Safetensors, RefusesToWriteWhatCannotBeRead) {
  TemporaryDirectory dir;
  const Tensor t = numbered({DType::kF32, {2}});
  EXPECT_TRUE(refuses([&] { write_safetensors(dir / "t", {{"a", t}, {"a", t}}); }, "cannot be named a"));
  EXPECT_TRUE(refuses([&] { write_safetensors(dir / "t", {{"__metadata__", t}}); }, "cannot be named __metadata__"));
  EXPECT_TRUE(refuses([&] { write_safetensors(dir / "t", {{"\xff", t}}); }, "must be UTF-8"));
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

}  // namespace
}  // namespace weft
