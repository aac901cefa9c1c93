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
using testing::gzip;
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
  EXPECT_TRUE(refuses([&] { open_dataset(folder.path()); }, "has no sub-folders"));
  write_text(folder / "empty.bin", "");
  EXPECT_TRUE(refuses([&] { open_dataset(folder / "empty.bin"); }, "empty"));
  write_text(folder / "short.bin", cifar_records(2, 0).substr(0, 6000));
  EXPECT_TRUE(refuses([&] { open_dataset(folder / "short.bin"); }, "got a file of 6000 bytes"));
  std::string odd = cifar_records(2, 0);
  odd[3073] = 10;
  write_text(folder / "label.bin", odd);
  EXPECT_TRUE(refuses([&] { open_dataset(folder / "label.bin"); }, "record 1 has label 10"));
}

TEST(Dataset, TellsHowToUnpack) {
  const TemporaryDirectory folder;
  write_text(folder / "a.bin.xz", std::string("\xFD"
                                              "7zXZ\0\0\0",
                                              8));
  EXPECT_TRUE(refuses([&] { open_dataset(folder / "a.bin.xz"); }, "unpack it: `xz -dc"));
  write_text(folder / "a.tar.gz", gzip(std::string(2048, 'x')));
  EXPECT_TRUE(refuses([&] { open_dataset(folder / "a.tar.gz"); }, "tar -xf"));
}

std::string number(std::uint32_t n) {
  std::string text;
  for (int shift = 24; shift >= 0; shift -= 8) text += static_cast<char>(n >> shift & 0xFF);
  return text;
}

std::string idx_pictures(std::uint32_t count, std::uint32_t height, std::uint32_t width) {
  std::string text = number(0x803) + number(count) + number(height) + number(width);
  for (std::uint32_t i = 0; i < count * height * width; ++i) text += static_cast<char>(i * 7);
  return text;
}

std::string idx_labels(const std::string& labels) {
  return number(0x801) + number(static_cast<std::uint32_t>(labels.size())) + labels;
}

TEST(IdxDataset, ReadsPackedAndUnpackedFiles) {
  const std::string labels{2, 0, 5, 1};
  for (const bool packed : {false, true}) {
    for (const bool packed_labels : {false, true}) {
      const TemporaryDirectory folder;
      const std::string images = folder / (packed ? "train-images-idx3-ubyte.gz" : "train-images-idx3-ubyte");
      write_text(images, packed ? gzip(idx_pictures(4, 5, 6)) : idx_pictures(4, 5, 6));
      write_text(folder / (packed_labels ? "train-labels-idx1-ubyte.gz" : "train-labels-idx1-ubyte"),
                 packed_labels ? gzip(idx_labels(labels)) : idx_labels(labels));
      for (const std::filesystem::path& path : {std::filesystem::path(images), folder.path()}) {
        const auto data = open_dataset(path);
        ASSERT_EQ(data->size(), 4);
        EXPECT_EQ(data->class_names(), (std::vector<std::string>{"0", "1", "2", "3", "4", "5"}));
        EXPECT_EQ(data->label(2), 5);
        const Image image = data->image(3);
        EXPECT_EQ(image.height, 5);
        EXPECT_EQ(image.width, 6);
        for (std::size_t p = 0; p < 30; ++p) {
          for (std::size_t c = 0; c < 3; ++c) {
            EXPECT_EQ(image.pixels[3 * p + c], static_cast<std::uint8_t>((3 * 30 + p) * 7));
          }
        }
        EXPECT_EQ(data->picture_name(3), images + "#3");
      }
    }
  }
}

TEST(IdxDataset, FindsTheFilesOfAFolder) {
  const TemporaryDirectory folder;
  write_text(folder / "train-images.idx3-ubyte", idx_pictures(3, 2, 2));
  write_text(folder / "train-labels.idx1-ubyte", idx_labels("\1\1\1"));
  write_text(folder / "t10k-images-idx3-ubyte", idx_pictures(2, 2, 2));
  write_text(folder / "t10k-images-idx3-ubyte.gz", gzip(idx_pictures(2, 2, 2)));
  write_text(folder / "t10k-labels-idx1-ubyte", idx_labels("\2\2"));
  EXPECT_EQ(open_dataset(folder.path())->size(), 3);
  EXPECT_EQ(open_dataset(folder.path(), Split::kTest)->size(), 2);
  write_text(folder / "emnist-train-images-idx3-ubyte", idx_pictures(1, 2, 2));
  EXPECT_TRUE(refuses([&] { open_dataset(folder.path()); }, "several data sets"));
}

TEST(IdxDataset, ReadsFashionMnist) {
  const std::filesystem::path folder = std::filesystem::path(WEFT_TEST_DATA) / "data/fashion-mnist";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << "no Fashion-MNIST at " << folder;
  const auto data = open_dataset(folder, Split::kTest);
  ASSERT_EQ(data->size(), 10000);
  EXPECT_EQ(data->classes(), 10);
  EXPECT_EQ(data->image(9999).width, 28);
  std::array<int, 10> counts{};
  for (std::int64_t i = 0; i < data->size(); ++i) ++counts[static_cast<std::size_t>(data->label(i))];
  for (const int count : counts) EXPECT_EQ(count, 1000);
  EXPECT_EQ(data->label(0), 9);  // an ankle boot, as is known
}

TEST(IdxDataset, RefusesDamage) {
  const TemporaryDirectory folder;
  const std::string images = folder / "x-images-idx3-ubyte";
  const std::string labels = folder / "x-labels-idx1-ubyte";
  const auto refuses_images = [&](const std::string& text, std::string_view reason) {
    write_text(images, text);
    return refuses([&] { open_dataset(images); }, reason);
  };
  EXPECT_TRUE(refuses_images(idx_pictures(3, 4, 4), "its labels are missing: expected x-labels-idx1-ubyte"));
  write_text(labels, idx_labels("\1\2"));
  EXPECT_TRUE(refuses_images(idx_pictures(3, 4, 4), "has 2 labels, but"));
  write_text(labels, idx_labels("\1\2\3").substr(0, 10));
  EXPECT_TRUE(refuses_images(idx_pictures(3, 4, 4), "expected 3 bytes of IDX labels, got 2"));
  write_text(labels, idx_pictures(3, 1, 1));
  EXPECT_TRUE(refuses_images(idx_pictures(3, 4, 4), "holds no IDX labels"));
  write_text(labels, idx_labels("\1\2\3"));
  EXPECT_EQ((write_text(images, idx_pictures(3, 4, 4)), open_dataset(images)->size()), 3);
  EXPECT_TRUE(refuses([&] { open_dataset(labels); }, "give the file of its pictures"));

  EXPECT_TRUE(refuses_images(idx_pictures(3, 4, 4).substr(0, 11), "header is truncated"));
  EXPECT_TRUE(refuses_images(idx_pictures(3, 4, 4).substr(0, 50), "expected 48 bytes of IDX pictures, got 34"));
  EXPECT_TRUE(refuses_images(idx_pictures(3, 4, 4) + "x", "goes on behind"));
  EXPECT_TRUE(refuses_images(number(0x803) + number(0) + number(4) + number(4), "extent 0"));
  EXPECT_TRUE(refuses_images(number(0x803) + std::string(12, '\xFF'), "at most 4294967296 bytes"));
  EXPECT_TRUE(refuses_images(number(0xD03) + std::string(60, '\0'), "neither"));
  // Packed: what is claimed is not taken from the memory before it is there.
  const std::string claims = number(0x803) + number(1 << 20) + number(64) + number(64);
  EXPECT_TRUE(refuses_images(gzip(claims + "end"), "truncated"));
  EXPECT_TRUE(refuses_images(gzip(idx_pictures(3, 4, 4) + std::string(1 << 22, '\0')), "goes on behind"));
  EXPECT_TRUE(refuses_images(gzip(idx_pictures(3, 4, 4)).substr(0, 40), "truncated"));
  const std::string unnamed = folder / "pictures.gz";
  write_text(unnamed, gzip(idx_pictures(3, 4, 4)));
  EXPECT_TRUE(refuses([&] { open_dataset(unnamed); }, "cannot tell where its labels are"));
}

// A picture of one colour: PPM is not read, PNG needs no writer where libvips reads TIFF of a few bytes.
std::string tiny_tiff(std::uint8_t grey) {
  const auto entry = [](std::uint8_t tag_low, std::uint8_t tag_high, std::uint8_t type, std::uint8_t count,
                        std::uint8_t value) {
    return std::string{static_cast<char>(tag_low),
                       static_cast<char>(tag_high),
                       static_cast<char>(type),
                       0,
                       static_cast<char>(count),
                       0,
                       0,
                       0,
                       static_cast<char>(value),
                       0,
                       0,
                       0};
  };
  std::string text("II*\0\x09\0\0\0", 8);  // little endian, the directory at 9
  text += static_cast<char>(grey);
  text += std::string("\x08\0", 2);
  text += entry(0x00, 1, 3, 1, 1) + entry(0x01, 1, 3, 1, 1) + entry(0x02, 1, 3, 1, 8) + entry(0x03, 1, 3, 1, 1);
  text += entry(0x06, 1, 3, 1, 1) + entry(0x11, 1, 4, 1, 8) + entry(0x16, 1, 3, 1, 1) + entry(0x17, 1, 4, 1, 1);
  return text + std::string(4, '\0');
}

void write_picture(const std::filesystem::path& path, std::uint8_t grey) {
  std::filesystem::create_directories(path.parent_path());
  write_text(path, tiny_tiff(grey));
}

TEST(ClassFolders, AreReadInTorchvisionsOrder) {
  const TemporaryDirectory folder;
  write_picture(folder / "dog/b.tif", 1);
  write_picture(folder / "dog/a.TIFF", 2);
  write_picture(folder / "dog/deep/a.tif", 3);
  write_picture(folder / "dog/deep-er/0.tif", 4);
  write_picture(folder / "Cat/z.jpg", 5);  // content, not name, tells the format
  write_picture(folder / "Cat/.hidden.tif", 6);
  write_picture(folder / ".cache/x.tif", 7);
  write_text(folder / "Cat/list.txt", "no picture");
  write_text(folder / "readme.md", "no picture");
  std::filesystem::create_directories(folder / "empty");
  const auto data = open_dataset(folder.path());
  EXPECT_EQ(data->class_names(), (std::vector<std::string>{"Cat", "dog", "empty"}));
  ASSERT_EQ(data->size(), 5);
  const std::array<std::pair<int, int>, 5> expected = {{{0, 5}, {1, 2}, {1, 1}, {1, 3}, {1, 4}}};
  for (std::int64_t i = 0; i < 5; ++i) {
    const auto& [label, grey] = expected[static_cast<std::size_t>(i)];
    EXPECT_EQ(data->label(i), label);
    EXPECT_EQ(data->image(i).pixels, std::vector<std::uint8_t>(3, static_cast<std::uint8_t>(grey))) << i;
  }
  EXPECT_EQ(data->picture_name(3), (folder / "dog/deep/a.tif").string());
}

TEST(ClassFolders, MayLieInTrainAndVal) {
  const TemporaryDirectory folder;
  write_picture(folder / "train/a/1.tif", 1);
  EXPECT_TRUE(refuses([&] { open_dataset(folder.path(), Split::kTest); }, "no sub-folder val or test"));
  write_picture(folder / "test/a/1.tif", 1);
  write_picture(folder / "test/a/2.tif", 1);
  EXPECT_EQ(open_dataset(folder.path())->size(), 1);
  EXPECT_EQ(open_dataset(folder.path(), Split::kTest)->size(), 2);
  write_picture(folder / "val/a/1.tif", 1);
  EXPECT_EQ(open_dataset(folder.path(), Split::kTest)->size(), 1);
  write_picture(folder / "bus/1.tif", 1);
  EXPECT_EQ(open_dataset(folder.path())->classes(), 4) << "a class among others";
}

TEST(ClassFolders, RefuseWhatHoldsNoPictures) {
  const TemporaryDirectory folder;
  std::filesystem::create_directories(folder / "a");
  EXPECT_TRUE(refuses([&] { open_dataset(folder.path()); },
                      "has no pictures in its class folders: expected files named *.jpg"));
  write_text(folder / "a/broken.jpg", "no picture");
  const auto data = open_dataset(folder.path());
  EXPECT_TRUE(refuses([&] { data->image(0); }, "broken.jpg"));
}

}  // namespace
}  // namespace weft
