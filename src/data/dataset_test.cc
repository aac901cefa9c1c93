#include "data/dataset.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdlib>

#include "data/testing/pictures.h"
#include "io/testing/files.h"

namespace weft {
namespace {

using testing::cifar_record;
using testing::noise_picture;
using testing::refuses;
using testing::TemporaryDirectory;
using testing::write_text;

std::string cifar_records(int count, int first_label) {
  std::string text;
  for (int i = 0; i < count; ++i) {
    text +=
        cifar_record(noise_picture(32, 32, static_cast<std::uint64_t>(100 * first_label + i)), (first_label + i) % 10);
  }
  return text;
}

TEST(CifarDataset, ReadsAFile) {
  const TemporaryDirectory folder;
  write_text(folder / "a.bin", cifar_records(12, 3));
  const auto data = open_dataset(folder / "a.bin");
  ASSERT_EQ(data->size(), 12);
  EXPECT_EQ(data->classes(), 10);
  EXPECT_EQ(data->class_names()[9], "truck");
  EXPECT_EQ(data->name(), (folder / "a.bin").string());
  for (std::int64_t i = 0; i < 12; ++i) {
    EXPECT_EQ(data->label(i), (3 + i) % 10);
    EXPECT_EQ(data->image(i), noise_picture(32, 32, static_cast<std::uint64_t>(300 + i)));
  }
  EXPECT_EQ(data->picture_name(11), (folder / "a.bin").string() + "#11");
}

TEST(CifarDataset, ReadsAFolderOfBatches) {
  const TemporaryDirectory folder;
  write_text(folder / "data_batch_2.bin", cifar_records(3, 2));
  write_text(folder / "data_batch_1.bin", cifar_records(2, 1));
  write_text(folder / "test_batch.bin", cifar_records(4, 5));
  write_text(folder / "batches.meta.txt", "airplane\n");
  const auto train = open_dataset(folder.path());
  ASSERT_EQ(train->size(), 5);
  EXPECT_EQ(train->image(1), noise_picture(32, 32, 101));
  EXPECT_EQ(train->image(2), noise_picture(32, 32, 200));
  EXPECT_EQ(train->label(4), 4);
  EXPECT_EQ(train->picture_name(4), (folder / "data_batch_2.bin").string() + "#2");
  const auto test = open_dataset(folder.path(), Split::kTest);
  ASSERT_EQ(test->size(), 4);
  EXPECT_EQ(test->label(0), 5);
}

TEST(CifarDataset, ReadsCifar) {
  const std::filesystem::path packed = std::filesystem::path(WEFT_TEST_DATA) / "data/cifar10/cifar10_test.bin.xz";
  if (!std::filesystem::exists(packed)) GTEST_SKIP() << "no CIFAR-10 at " << packed;
  const TemporaryDirectory folder;
  const std::string file = folder / "test.bin";
  if (std::system(fmt::format("xz -dc '{}' > '{}'", packed.string(), file).c_str()) != 0) {
    GTEST_SKIP() << "xz cannot unpack " << packed;
  }
  const auto data = open_dataset(file);
  ASSERT_EQ(data->size(), 10000);
  std::array<int, 10> counts{};
  std::array<double, 3> sums{};
  for (std::int64_t i = 0; i < data->size(); ++i) {
    ++counts[static_cast<std::size_t>(data->label(i))];
    const Image image = data->image(i);
    for (std::size_t p = 0; p < image.pixels.size(); ++p) sums[p % 3] += image.pixels[p];
  }
  for (const int count : counts) EXPECT_EQ(count, 1000);
  // The published channel means, to all their digits.
  const std::array expected = {0.49421428, 0.48513139, 0.45040909};
  for (std::size_t c = 0; c < 3; ++c) EXPECT_NEAR(sums[c] / (255.0 * 1024 * 10000), expected[c], 5e-9);
}

TEST(CifarDataset, RefusesWhatIsNone) {
  const TemporaryDirectory folder;
  EXPECT_TRUE(refuses([&] { open_dataset(folder / "gone"); }, "no such file or folder"));
  EXPECT_TRUE(refuses([&] { open_dataset(folder.path()); }, "holds no data set"));
  write_text(folder / "empty.bin", "");
  EXPECT_TRUE(refuses([&] { open_dataset(folder / "empty.bin"); }, "empty"));
  write_text(folder / "short.bin", cifar_records(2, 0).substr(0, 6000));
  EXPECT_TRUE(refuses([&] { open_dataset(folder / "short.bin"); }, "a multiple of 3073 bytes), got 6000 bytes"));
  std::string odd = cifar_records(2, 0);
  odd[3073] = 10;
  write_text(folder / "label.bin", odd);
  EXPECT_TRUE(refuses([&] { open_dataset(folder / "label.bin"); }, "record 1 has label 10"));
}

}  // namespace
}  // namespace weft
