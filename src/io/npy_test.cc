#include "io/npy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <numeric>

#include "io/testing/files.h"
#include "io/testing/torch_writer.h"

namespace weft {
namespace {

using testing::as_file;
using testing::bytes_of;
using testing::npy;
using testing::refuses;

const std::string kHeader = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }";

TEST(Npy, ReadsTheThreeVersionsAndHeadersOfOtherWriters) {
  const std::string data = bytes_of<float>({1, 2, 3, 4, 5, 6});
  for (const int version : {1, 2, 3}) {
    const std::string file = npy(kHeader, data, version);
    const Tensor t = read_npy(as_file(file));
    EXPECT_EQ(t.type().str(), "f32[2,3]");
    EXPECT_TRUE(std::ranges::equal(t.data<float>(), std::array{1, 2, 3, 4, 5, 6}));
  }
  for (const char* header : {"{\"shape\":(2,3),\"fortran_order\":False,\"descr\":\"<f4\"}   \n",
                             "{'descr':'=f4','fortran_order':False,'shape':(2L,3L)}"}) {
    const std::string file = npy(header, data);
    EXPECT_EQ(read_npy(as_file(file)).type().str(), "f32[2,3]") << header;
  }
}

TEST(Npy, ReadsEveryElementType) {
  const std::pair<const char*, DType> cases[] = {{"<f8", DType::kF64}, {"<f4", DType::kF32}, {"<f2", DType::kF16},
                                                 {"<i8", DType::kI64}, {"<i4", DType::kI32}, {"<i2", DType::kI16},
                                                 {"|i1", DType::kI8},  {"|u1", DType::kU8},  {"|b1", DType::kBool}};
  for (const auto& [descr, dtype] : cases) {
    const std::string header = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': (2,), }}", descr);
    const std::string file = npy(header, std::string(2 * size_of(dtype), '\1'));
    const Tensor t = read_npy(as_file(file));
    EXPECT_EQ(t.type(), (TensorType{dtype, {2}}));
    EXPECT_EQ(static_cast<int>(t.raw()[t.bytes() - 1]), 1);
  }
}

TEST(Npy, TransposesFortranOrder) {
  std::vector<std::int64_t> values(24);
  std::iota(values.begin(), values.end(), 0);
  const std::string file = npy("{'descr': '<i8', 'fortran_order': True, 'shape': (2, 3, 4), }", bytes_of(values));
  const Tensor t = read_npy(as_file(file));
  for (std::int64_t i = 0; i < 2; ++i) {
    for (std::int64_t j = 0; j < 3; ++j) {
      for (std::int64_t k = 0; k < 4; ++k) {
        EXPECT_EQ(t.data<std::int64_t>()[static_cast<std::size_t>((i * 3 + j) * 4 + k)], i + 2 * j + 6 * k);
      }
    }
  }
}

TEST(Npy, ReadsScalarsAndEmptyArrays) {
  const std::string scalar = npy("{'descr': '<f8', 'fortran_order': False, 'shape': (), }", bytes_of<double>({2.5}));
  EXPECT_EQ(read_npy(as_file(scalar)).data<double>()[0], 2.5);
  const std::string empty =
      npy("{'descr': '<f8', 'fortran_order': True, 'shape': (9000000000000000000, 0, 9000000000000000000), }", "");
  EXPECT_EQ(read_npy(as_file(empty)).elements(), 0);
}

TEST(Npy, WritesWhatItReads) {
  testing::TemporaryDirectory dir;
  for (const DType dtype : {DType::kF64, DType::kF32, DType::kF16, DType::kI64, DType::kI32, DType::kI16, DType::kI8,
                            DType::kU8, DType::kBool}) {
    for (const Shape& shape : {Shape{}, Shape{0, 3}, Shape{5}, Shape{2, 3, 4}}) {
      Tensor t(dtype, shape);
      for (std::size_t i = 0; i < t.bytes(); ++i) t.mutable_raw()[i] = static_cast<std::byte>(i % 2);
      write_npy(dir / "t.npy", t);
      const Tensor back = read_npy(dir / "t.npy");
      EXPECT_EQ(back.type(), t.type());
      EXPECT_TRUE(std::equal(t.raw(), t.raw() + t.bytes(), back.raw()));
    }
  }
  EXPECT_THROW(write_npy(dir / "t.npy", Tensor(DType::kBF16, {2})), UnsupportedError);
}

TEST(Npy, WritesTheBytesThatNumPyWrites) {
  testing::TemporaryDirectory dir;
  const float values[] = {1, 2, 3};
  write_npy(dir / "t.npy", Tensor::of(values, {3}));
  // numpy.save of numpy.array([1, 2, 3], "<f4"): a header of 118 bytes, data at 128
  std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }";
  header.resize(117, ' ');
  EXPECT_EQ(testing::read_text(dir / "t.npy"), npy(header + '\n', bytes_of<float>({1, 2, 3})));
}

TEST(Npy, RefusesDamagedFilesWithOneLine) {
  const auto check = [](std::string_view text, std::string_view why) {
    EXPECT_TRUE(refuses([&] { read_npy(as_file(text)); }, why)) << text;
  };
  const std::string data(24, '\0');
  check("plain text, no array", "expected a NumPy .npy file, got something else");
  check("PK\x03\x04 and so on ....", "npz");
  check(npy(kHeader, data, 4), "npy format 4 is unknown");
  check(npy(kHeader, data.substr(1)), "f32[2,3] does not fit the 23 bytes");
  check(npy(kHeader, data + "x"), "f32[2,3] does not fit the 25 bytes");
  check(npy("{'descr': '>f4', 'fortran_order': False, 'shape': (6,), }", data), "big-endian");
  check(npy("{'descr': '<c8', 'fortran_order': False, 'shape': (3,), }", data), "got '<c8'");
  check(npy("{'descr': '|O', 'fortran_order': False, 'shape': (3,), }", data), "got '|O'");
  check(npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (6,), }", data), "records are not supported");
  check(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-6,), }", data), "expected an extent");
  check(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4), }", data), "does not fit");
  check(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }", data),
        "expected an extent");
  check(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (6,), 'x': 1}", data), "unknown key 'x'");
  check(npy("{'descr': '<f4', 'shape': (6,), }", data), "must have descr, fortran_order and shape");
  check(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (6,), } __import__('os')", data), "closing brace");
  std::string ones = "1";
  for (int i = 0; i < 64; ++i) ones += ",1";
  check(npy(fmt::format("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}), }}", ones), "1234"), "64 axes");
  for (std::size_t size = 0; size < npy(kHeader, data).size(); ++size) {
    const std::string cut = npy(kHeader, data).substr(0, size);
    EXPECT_TRUE(refuses([&] { read_npy(as_file(cut)); }, "[x] ")) << size;
  }
}

TEST(Npy, ReadsAGoldenCase) {
  const Tensor y = read_npy(WEFT_SOURCE_DIR "/tests/golden/vrwkv-plain/y0.npy");
  EXPECT_EQ(y.type().str(), "f32[2,7]");
}

}  // namespace
}  // namespace weft
