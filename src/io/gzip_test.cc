#include "io/gzip.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include <string>
#include <vector>

#include "io/testing/files.h"

namespace weft {
namespace {

using testing::as_file;
using testing::gzip;
using testing::refuses;

// Everything, `step` bytes at a time.
std::string unpack(std::string_view packed, std::size_t step) {
  GzipReader reader(as_file(packed));
  std::string text;
  std::vector<std::byte> piece(step);
  while (const std::size_t got = reader.read(piece)) text.append(reinterpret_cast<const char*>(piece.data()), got);
  return text;
}

std::string long_text() {
  std::string text;
  for (int i = 0; i < 20000; ++i) text += std::to_string(i * i);
  return text;
}

TEST(Gzip, ReadsInPieces) {
  const std::string text = long_text();
  const std::string packed = gzip(text);
  EXPECT_TRUE(is_gzip(as_file(packed).bytes));
  for (const std::size_t step : {1000UL, 4096UL, 1UL << 20}) EXPECT_EQ(unpack(packed, step), text);
  EXPECT_EQ(unpack(gzip(""), 10), "");
}

TEST(Gzip, ReadsMembersAsOne) {
  EXPECT_EQ(unpack(gzip("one") + gzip("") + gzip("two"), 4), "onetwo");
  EXPECT_EQ(unpack(gzip("one") + std::string(512, '\0'), 4), "one") << "padding of tapes";
}

TEST(Gzip, RefusesDamage) {
  const std::string packed = gzip(long_text());
  for (const std::size_t size : {0UL, 1UL, 5UL, 20UL, packed.size() / 2, packed.size() - 1}) {
    EXPECT_TRUE(refuses([&] { unpack(packed.substr(0, size), 1 << 20); }, "truncated")) << size;
  }
  EXPECT_TRUE(refuses([] { unpack("no gzip at all", 10); }, "damaged"));
  std::string sum = packed;
  sum[sum.size() - 6] ^= 1;  // the checksum
  EXPECT_TRUE(refuses([&] { unpack(sum, 1 << 20); }, "damaged"));
  int refused = 0;
  for (std::size_t at = 10; at < packed.size(); at += 97) {
    std::string flipped = packed;
    flipped[at] ^= 0x10;
    refused += refuses([&] { unpack(flipped, 1 << 20); }, "gzip file is") ? 1 : 0;
  }
  EXPECT_EQ(refused, static_cast<int>((packed.size() - 10 + 96) / 97)) << "the checksum finds every flipped bit";
}

}  // namespace
}  // namespace weft
