// Decoding, with pictures that the tests make themselves through libvips and, where they are, photographs.
#include <gtest/gtest.h>
#include <unistd.h>
#include <vips/vips.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <map>
#include <numeric>
#include <random>
#include <thread>

#include "core/format.h"
#include "weft/image.h"

namespace weft {
namespace {

namespace fs = std::filesystem;
using Bytes = std::vector<std::byte>;

/// A directory of this test alone, removed at the end.
class Decode : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "weft-decode-XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
    // Starts libvips the way the library does.
    EXPECT_THROW((void)decode_image(Bytes(1), "start"), IoError);
  }
  void TearDown() override { fs::remove_all(directory_); }

  fs::path write(const std::string& name, const Bytes& bytes) const {
    std::ofstream(directory_ / name, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    return directory_ / name;
  }

  fs::path directory_;
};

Image noise(std::int64_t height, std::int64_t width, std::int64_t channels = 3) {
  std::mt19937 random(7);
  Image image{height, width, channels, std::vector<std::uint8_t>(static_cast<std::size_t>(height * width * channels))};
  for (std::uint8_t& pixel : image.pixels) pixel = static_cast<std::uint8_t>(random());
  return image;
}

/// How a test picture is stored. `suffix` is that of a file name with libvips' options: ".png[interlace]".
struct Stored {
  std::string suffix;
  int orientation = 0;
  VipsInterpretation interpretation = VIPS_INTERPRETATION_sRGB;
  std::string xmp;
};

template <class Sample>
Bytes encode(std::int64_t height, std::int64_t width, std::int64_t channels, const std::vector<Sample>& samples,
             const Stored& how) {
  constexpr VipsBandFormat kFormat = sizeof(Sample) == 1   ? VIPS_FORMAT_UCHAR
                                     : sizeof(Sample) == 2 ? VIPS_FORMAT_USHORT
                                                           : VIPS_FORMAT_FLOAT;
  VipsImage* raw =
      vips_image_new_from_memory_copy(samples.data(), samples.size() * sizeof(Sample), static_cast<int>(width),
                                      static_cast<int>(height), static_cast<int>(channels), kFormat);
  VipsImage* image = nullptr;
  vips_copy(raw, &image, "interpretation", how.interpretation, nullptr);
  if (how.orientation != 0) vips_image_set_int(image, VIPS_META_ORIENTATION, how.orientation);
  if (!how.xmp.empty()) vips_image_set_blob_copy(image, VIPS_META_XMP_NAME, how.xmp.data(), how.xmp.size());
  void* data = nullptr;
  std::size_t size = 0;
  EXPECT_EQ(vips_image_write_to_buffer(image, how.suffix.c_str(), &data, &size, nullptr), 0) << vips_error_buffer();
  const auto* begin = static_cast<const std::byte*>(data);
  Bytes bytes(begin, begin + size);
  g_free(data);
  g_object_unref(image);
  g_object_unref(raw);
  vips_thread_shutdown();
  return bytes;
}

Bytes encode(const Image& image, const Stored& how) {
  return encode(image.height, image.width, image.channels, image.pixels, how);
}

/// The message of the IoError that decoding must end with.
std::string refusal(const std::function<Image()>& decode) {
  try {
    (void)decode();
  } catch (const IoError& error) {
    return error.what();
  }
  return "decoded";
}

bool is_one_line(const std::string& text) {
  return text.find('\n') == std::string::npos && text.find('\0') == std::string::npos;
}

/// What a picture must be stored as so that `orientation` shows it upright, from the definition in the EXIF standard:
/// which sides of the upright picture the first row and the first column of the file are.
Image stored_for(const Image& upright, int orientation) {
  const bool turned = orientation >= 5;
  Image file{turned ? upright.width : upright.height, turned ? upright.height : upright.width, 3, {}};
  for (std::int64_t y = 0; y < file.height; ++y) {
    for (std::int64_t x = 0; x < file.width; ++x) {
      const std::int64_t bottom = upright.height - 1;
      const std::int64_t right = upright.width - 1;
      const std::array<std::pair<std::int64_t, std::int64_t>, 8> at = {{
          {y, x},                   // 1: row 0 is the top, column 0 the left side
          {y, right - x},           // 2: top, right
          {bottom - y, right - x},  // 3: bottom, right
          {bottom - y, x},          // 4: bottom, left
          {x, y},                   // 5: left, top
          {x, right - y},           // 6: right, top
          {bottom - x, right - y},  // 7: right, bottom
          {bottom - x, y},          // 8: left, bottom
      }};
      const auto [row, column] = at[static_cast<std::size_t>(orientation - 1)];
      const auto from = upright.pixels.begin() + (row * upright.width + column) * 3;
      file.pixels.insert(file.pixels.end(), from, from + 3);
    }
  }
  return file;
}

std::uint32_t crc32_of(std::string_view bytes) {
  std::uint32_t crc = 0xFFFFFFFFU;
  for (const char byte : bytes) {
    crc ^= static_cast<std::uint8_t>(byte);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (0xEDB88320U & (0U - (crc & 1U)));
  }
  return ~crc;
}

std::string big_endian(std::uint32_t value) {
  std::string text;
  for (const int shift : {24, 16, 8, 0}) text.push_back(static_cast<char>(value >> shift));
  return text;
}

std::string png_chunk(const std::string& type, const std::string& data) {
  return big_endian(static_cast<std::uint32_t>(data.size())) + type + data + big_endian(crc32_of(type + data));
}

Bytes bytes_of(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

/// A PNG that claims a size, with next to no data.
Bytes png_header(std::uint32_t width, std::uint32_t height) {
  using std::string_literals::operator""s;
  return bytes_of("\x89PNG\r\n\x1a\n"s + png_chunk("IHDR", big_endian(width) + big_endian(height) + "\x08\x02\0\0\0"s) +
                  png_chunk("IDAT", "\x78\x9c\x63\0\0"s) + png_chunk("IEND", ""));
}

/// The PNG with an eXIf chunk, which libvips reads but does not write.
Bytes with_orientation(const Bytes& png, int orientation) {
  using std::string_literals::operator""s;
  constexpr std::ptrdiff_t kHeader = 8 + 25;  // signature and IHDR
  std::string exif = "MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\0\0\0\0\0\0\0"s;
  exif[19] = static_cast<char>(orientation);
  const Bytes chunk = bytes_of(png_chunk("eXIf", exif));
  Bytes out = png;
  out.insert(out.begin() + kHeader, chunk.begin(), chunk.end());
  return out;
}

TEST_F(Decode, LosslessFormatsKeepEveryPixel) {
  const Image image = noise(37, 53);
  for (const std::string suffix : {".png", ".png[interlace]", ".tif", ".tif[compression=lzw,predictor=horizontal]",
                                   ".tif[tile]", ".tif[compression=deflate,bigtiff]", ".webp[lossless]"}) {
    EXPECT_EQ(decode_image(encode(image, {.suffix = suffix}), suffix), image) << suffix;
  }
}

TEST_F(Decode, FilesAndMemoryGiveTheSame) {
  const Bytes bytes = encode(noise(40, 60), {.suffix = ".jpg"});
  // libvips reads options from brackets in names that it opens itself.
  for (const std::string name : {"plain.jpg", "no suffix", "x.png[page=7]", "wrong.gif"}) {
    EXPECT_EQ(decode_image(write(name, bytes)), decode_image(bytes, "memory")) << name;
  }
}

TEST_F(Decode, TheEightOrientationsGiveOnePictureAndOneInput) {
  const Image upright = noise(45, 61);
  const Preprocess how{.resize = 32, .crop = 24};
  const Tensor expected = to_input(std::span(&upright, 1), how);
  for (const std::string suffix : {".png", ".tif", ".webp[lossless]"}) {
    for (int orientation = 1; orientation <= 8; ++orientation) {
      SCOPED_TRACE(fmt::format("{} {}", suffix, orientation));
      const Bytes stored = encode(stored_for(upright, orientation), {.suffix = suffix, .orientation = orientation});
      const Image image = decode_image(suffix == ".png" ? with_orientation(stored, orientation) : stored, "x");
      EXPECT_EQ(image, upright);
      const Tensor input = to_input(std::span(&image, 1), how);
      EXPECT_TRUE(std::ranges::equal(input.data<float>(), expected.data<float>()));
    }
  }
}

TEST_F(Decode, TheEightOrientationsOfJpegAgree) {
  // A smooth picture of whole 16×16 blocks, so that what JPEG loses is little and alike in every orientation.
  Image upright{48, 64, 3, {}};
  for (int y = 0; y < 48; ++y) {
    for (int x = 0; x < 64; ++x) {
      for (const int value : {4 * x, 5 * y, 2 * (x + y)}) upright.pixels.push_back(static_cast<std::uint8_t>(value));
    }
  }
  for (int orientation = 1; orientation <= 8; ++orientation) {
    const Image image = decode_image(encode(stored_for(upright, orientation),
                                            {.suffix = ".jpg[Q=100,subsample-mode=off]", .orientation = orientation}),
                                     "x");
    ASSERT_EQ(image.height, 48);
    ASSERT_EQ(image.width, 64);
    for (std::size_t i = 0; i < image.pixels.size(); ++i) {
      // Quantisation by 1 in YCbCr and rounding back: at most 3 levels.
      ASSERT_NEAR(image.pixels[i], upright.pixels[i], 3) << "orientation " << orientation;
    }
  }
}

TEST_F(Decode, OrientationsBeyondEightCountAsOne) {
  const Image image = noise(5, 9);
  Bytes bytes = encode(image, {.suffix = ".tif", .orientation = 6});
  // The tag 274, a short, count 1: its value follows, in either byte order.
  const std::array little = {std::byte{0x12}, std::byte{0x01}, std::byte{3}, std::byte{0},
                             std::byte{1},    std::byte{0},    std::byte{0}, std::byte{0}};
  const auto tag = std::ranges::search(bytes, little).begin();
  ASSERT_NE(tag, bytes.end());
  for (const int value : {0, 9, 200}) {
    tag[8] = static_cast<std::byte>(value);
    EXPECT_EQ(decode_image(bytes, "x"), image) << value;
  }
}

TEST_F(Decode, XmpGivesTheOrientationWhereThereIsNoExif) {
  const Image upright = noise(5, 9);
  const auto decoded = [&](const std::string& xmp, int stored) {
    return decode_image(encode(stored_for(upright, stored), {.suffix = ".png", .xmp = xmp}), "x");
  };
  EXPECT_EQ(decoded(R"(<rdf:Description tiff:Orientation="6"/>)", 6), upright);
  EXPECT_EQ(decoded("<tiff:Orientation>3</tiff:Orientation>", 3), upright);
  for (const char* xmp :
       {"tiff:Orientation", "tiff:Orientation=\"", "tiff:Orientation=\"9\"", "tiff:Orientation>x", "?"}) {
    EXPECT_EQ(decoded(xmp, 1), upright) << xmp;
  }
}

TEST_F(Decode, GreyBecomesRgb) {
  const Image grey = noise(11, 7, 1);
  for (const std::string suffix : {".png", ".tif"}) {
    const Image image =
        decode_image(encode(grey, {.suffix = suffix, .interpretation = VIPS_INTERPRETATION_B_W}), suffix);
    ASSERT_EQ(image.pixels.size(), grey.pixels.size() * 3);
    for (std::size_t i = 0; i < image.pixels.size(); ++i) ASSERT_EQ(image.pixels[i], grey.pixels[i / 3]);
  }
}

TEST_F(Decode, FewBitsOfGreyAreScaledUp) {
  const Image checks{1, 4, 1, {0, 255, 255, 0}};
  const Image image =
      decode_image(encode(checks, {.suffix = ".png[bitdepth=1]", .interpretation = VIPS_INTERPRETATION_B_W}), "x");
  EXPECT_EQ(image.pixels, (std::vector<std::uint8_t>{0, 0, 0, 255, 255, 255, 255, 255, 255, 0, 0, 0}));
}

TEST_F(Decode, TransparencyIsDroppedWithoutBlending) {
  const Image rgba = noise(6, 5, 4);
  const Image rgb = decode_image(encode(rgba, {.suffix = ".png"}), "x");
  for (std::size_t i = 0; i < 30 * 3; ++i) ASSERT_EQ(rgb.pixels[i], rgba.pixels[i / 3 * 4 + i % 3]);

  const Image grey_alpha = noise(6, 5, 2);
  const Image grey =
      decode_image(encode(grey_alpha, {.suffix = ".png", .interpretation = VIPS_INTERPRETATION_B_W}), "x");
  for (std::size_t i = 0; i < 30 * 3; ++i) ASSERT_EQ(grey.pixels[i], grey_alpha.pixels[i / 3 * 2]);
}

TEST_F(Decode, PalettesAreLookedUp) {
  // Four colours, which a palette holds exactly.
  const std::array<std::array<std::uint8_t, 3>, 4> colours = {{{255, 0, 0}, {0, 255, 0}, {0, 0, 255}, {8, 16, 32}}};
  Image image{16, 16, 3, {}};
  for (int i = 0; i < 256; ++i) {
    const auto& colour = colours[static_cast<std::size_t>(i * 7 % 4)];
    image.pixels.insert(image.pixels.end(), colour.begin(), colour.end());
  }
  EXPECT_EQ(decode_image(encode(image, {.suffix = ".png[palette,dither=0]"}), "png"), image);
  EXPECT_EQ(decode_image(encode(image, {.suffix = ".gif[dither=0]"}), "gif"), image);
}

TEST_F(Decode, SixteenBitsKeepTheUpperEight) {
  std::vector<std::uint16_t> samples(5 * 4 * 3);
  std::mt19937 random(3);
  for (std::uint16_t& sample : samples) sample = static_cast<std::uint16_t>(random());
  for (const std::string suffix : {".png", ".tif", ".png[interlace]"}) {
    const Image rgb =
        decode_image(encode(5, 4, 3, samples, {.suffix = suffix, .interpretation = VIPS_INTERPRETATION_RGB16}), suffix);
    for (std::size_t i = 0; i < samples.size(); ++i) ASSERT_EQ(rgb.pixels[i], samples[i] >> 8) << suffix;
    const Image grey = decode_image(
        encode(15, 4, 1, samples, {.suffix = suffix, .interpretation = VIPS_INTERPRETATION_GREY16}), suffix);
    for (std::size_t i = 0; i < 3 * samples.size(); ++i) ASSERT_EQ(grey.pixels[i], samples[i / 3] >> 8) << suffix;
  }
}

TEST_F(Decode, CmykBecomesRgb) {
  // Cyan, magenta, yellow, black ink and bare paper, in that order, as big patches.
  const std::vector<std::array<std::uint8_t, 4>> inks = {
      {255, 0, 0, 0}, {0, 255, 0, 0}, {0, 0, 255, 0}, {0, 0, 0, 255}, {0, 0, 0, 0}};
  Image cmyk{16, 80, 4, {}};
  for (int i = 0; i < 16 * 80; ++i) {
    const auto& ink = inks[static_cast<std::size_t>(i % 80 / 16)];
    cmyk.pixels.insert(cmyk.pixels.end(), ink.begin(), ink.end());
  }
  for (const std::string suffix : {".tif", ".jpg[Q=100,subsample-mode=off]"}) {
    SCOPED_TRACE(suffix);
    const Image rgb =
        decode_image(encode(cmyk, {.suffix = suffix, .interpretation = VIPS_INTERPRETATION_CMYK}), suffix);
    const auto patch = [&](std::size_t i) { return rgb.pixels.data() + (8 * 80 + 16 * i + 8) * 3; };
    EXPECT_LT(patch(0)[0] + 80, patch(0)[2]);  // cyan: little red
    EXPECT_LT(patch(1)[1] + 80, patch(1)[0]);  // magenta: little green
    EXPECT_LT(patch(2)[2] + 80, patch(2)[0]);  // yellow: little blue
    for (int c = 0; c < 3; ++c) {
      EXPECT_LT(patch(3)[c], 70);
      EXPECT_GT(patch(4)[c], 240);
    }
  }
}

TEST_F(Decode, HeifIsReadWhereLibvipsHasItsModule) {
  const Bytes fake = bytes_of(std::string_view("\0\0\0\030ftypheic\0\0\0\0mif1heic", 24));
  const std::string message = refusal([&] { return decode_image(fake, "x"); });  // loads the module
  if (message.find("no module") != std::string::npos) GTEST_SKIP() << message;
  if (vips_foreign_find_save_target(".avif") == nullptr) GTEST_SKIP() << "this libvips writes no AVIF";
  Image image{64, 64, 3, {}};
  for (int i = 0; i < 64 * 64; ++i) {
    for (const int value : {i % 64 * 4, i / 64 * 4, 128}) image.pixels.push_back(static_cast<std::uint8_t>(value));
  }
  const Image decoded = decode_image(encode(image, {.suffix = ".avif[Q=100,subsample-mode=off,effort=0]"}), "x");
  ASSERT_EQ(decoded.pixels.size(), image.pixels.size());
  // Near-lossless coding, and rounding to YCbCr and back: a few levels.
  for (std::size_t i = 0; i < image.pixels.size(); ++i) ASSERT_NEAR(decoded.pixels[i], image.pixels[i], 6);
}

TEST_F(Decode, OtherSamplesAreRefused) {
  const std::vector<float> samples(12, 0.5F);
  const Bytes bytes = encode(2, 2, 3, samples, {.suffix = ".tif"});
  EXPECT_EQ(refusal([&] { return decode_image(bytes, "x.tif"); }),
            "[x.tif] expected unsigned samples of 8 or 16 bits, got float");
  const std::vector<std::uint8_t> many(2 * 2 * 7);
  EXPECT_EQ(refusal([&] {
              return decode_image(
                  encode(2, 2, 7, many, {.suffix = ".tif", .interpretation = VIPS_INTERPRETATION_MULTIBAND}), "x.tif");
            }),
            "[x.tif] expected 1 to 4 channels, got 7");
}

TEST_F(Decode, RefusesWhatIsNoPictureInOneLine) {
  const std::map<std::string, Bytes> files = {
      {"empty.jpg", {}},
      {"text.jpg", bytes_of("no picture at all\n")},
      {"zeros.png", Bytes(4096)},
      {"one.gif", Bytes(1)},
      {"matrix.txt", bytes_of("2 2\n1 2\n3 4\n")},
      {"drawing.svg", bytes_of("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"9\" height=\"9\"/>")},
      {"paper.pdf", bytes_of("%PDF-1.4\n1 0 obj\n")},
      {"grey.pgm", bytes_of("P5 2 2 255\nabcd")},
      {"fake.heic", bytes_of(std::string_view("\0\0\0\030"
                                              "ftypheic\0\0\0\0mif1heic",
                                              24))},
      {"signature.png", bytes_of("\x89PNG\r\n\x1a\n")},
      {"signature.jpg", bytes_of("\xff\xd8\xff")},
  };
  for (const auto& [name, bytes] : files) {
    const fs::path path = write(name, bytes);
    const std::string message = refusal([&path = path] { return decode_image(path); });
    EXPECT_TRUE(message.starts_with("[" + path.string() + "] ")) << message;
    EXPECT_TRUE(is_one_line(message)) << message;
  }
  EXPECT_EQ(refusal([&] { return decode_image(directory_ / "none.jpg"); }),
            fmt::format("[{}] cannot open: No such file or directory", (directory_ / "none.jpg").string()));
  EXPECT_EQ(refusal([&] { return decode_image(directory_); }),
            fmt::format("[{}] expected a picture, got a directory", directory_.string()));
  EXPECT_EQ(refusal([&] { return decode_image(Bytes{}, "a\nb"); }), "[a\\x0ab] the file is empty");
}

TEST_F(Decode, TruncatedPicturesAreErrors) {
  const Image image = noise(64, 48);
  for (const std::string suffix : {".jpg", ".jpg[interlace]", ".png", ".png[interlace]", ".webp", ".webp[lossless]",
                                   ".tif", ".tif[compression=lzw]", ".gif"}) {
    const Bytes whole = encode(image, {.suffix = suffix});
    ASSERT_EQ(decode_image(whole, suffix).height, 64);
    for (std::size_t part = 0; part < 16; ++part) {
      const Bytes cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(whole.size() * part / 16));
      const std::string message = refusal([&] { return decode_image(cut, "cut"); });
      EXPECT_TRUE(message.starts_with("[cut] ")) << suffix << " at " << part << "/16: " << message;
      EXPECT_TRUE(is_one_line(message)) << message;
    }
  }
}

TEST_F(Decode, DamagedPicturesNeverCrash) {
  std::mt19937 random(11);
  for (const std::string suffix : {".jpg", ".png", ".webp", ".tif[compression=lzw]", ".gif"}) {
    const Bytes whole = encode(noise(32, 24), {.suffix = suffix});
    for (int round = 0; round < 50; ++round) {
      Bytes bytes = whole;
      for (int i = 0; i < 4; ++i) bytes[random() % bytes.size()] = static_cast<std::byte>(random());
      const std::string message = refusal([&] { return decode_image(bytes, "x", {.max_side = 64}); });
      EXPECT_TRUE(is_one_line(message)) << message;
    }
  }
}

TEST_F(Decode, ChecksTheLimitsBeforeTheData) {
  EXPECT_EQ(
      refusal([] { return decode_image(png_header(100000, 100000), "bomb.png"); }),
      "[bomb.png] picture too large: expected at most 65535 pixels a side and 268435456 in all, got 100000x100000");
  EXPECT_NE(refusal([] { return decode_image(png_header(50000, 50000), "bomb.png"); }).find("too large"),
            std::string::npos);
  const std::string huge = refusal([] { return decode_image(png_header(0xFFFFFFFFU, 0x7FFFFFFFU), "bomb.png"); });
  EXPECT_TRUE(huge.starts_with("[bomb.png] ")) << huge;

  const Bytes bytes = encode(noise(20, 30), {.suffix = ".jpg"});
  EXPECT_EQ(decode_image(bytes, "x", {.max_side = 30, .max_pixels = 600}).width, 30);
  EXPECT_NE(refusal([&] { return decode_image(bytes, "x", {.max_side = 29}); }), "decoded");
  EXPECT_NE(refusal([&] { return decode_image(bytes, "x", {.max_pixels = 599}); }), "decoded");
}

TEST_F(Decode, ManyThreadsDecodeAtOnceAndEachFailureHasItsOwnReason) {
  const std::vector<std::string> suffixes = {".jpg", ".png[interlace]", ".webp", ".tif", ".gif"};
  std::vector<Bytes> good;
  std::vector<Image> expected;
  for (const std::string& suffix : suffixes) {
    good.push_back(encode(noise(50, 70), {.suffix = suffix}));
    expected.push_back(decode_image(good.back(), suffix));
  }
  const Bytes cut_jpeg(good[0].begin(), good[0].begin() + static_cast<std::ptrdiff_t>(good[0].size() / 2));
  const Bytes cut_tiff(good[3].begin(), good[3].begin() + static_cast<std::ptrdiff_t>(good[3].size() / 2));
  const std::string jpeg_reason = refusal([&] { return decode_image(cut_jpeg, "x"); });
  const std::string tiff_reason = refusal([&] { return decode_image(cut_tiff, "x"); });
  ASSERT_NE(jpeg_reason, tiff_reason);

  std::vector<std::string> wrong(8);
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < wrong.size(); ++t) {
    threads.emplace_back([&, t] {
      for (std::size_t round = 0; round < 10; ++round) {
        const std::size_t i = (t + round) % good.size();
        if (decode_image(good[i], "x") != expected[i]) wrong[t] = "pixels of " + suffixes[i];
        const bool jpeg = (t + round) % 2 == 0;
        const std::string reason = refusal([&] { return decode_image(jpeg ? cut_jpeg : cut_tiff, "x"); });
        if (reason != (jpeg ? jpeg_reason : tiff_reason)) wrong[t] = reason;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<std::string>(wrong.size()));
}

TEST_F(Decode, ReadsFromPipes) {
  const Image image = noise(20, 30);
  const Bytes bytes = encode(image, {.suffix = ".png"});
  std::array<int, 2> ends{};
  ASSERT_EQ(pipe(ends.data()), 0);
  std::thread writer([&] {
    EXPECT_EQ(::write(ends[1], bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
    ::close(ends[1]);
  });
  EXPECT_EQ(decode_image(fmt::format("/dev/fd/{}", ends[0])), image);
  writer.join();
  ::close(ends[0]);
}

/// Photographs of many cameras and programs, where they are.
class Photos : public testing::Test {
 protected:
  void SetUp() override {
    if (!fs::exists(kPhotos)) GTEST_SKIP() << "no photographs at " << kPhotos;
  }
  static inline const fs::path kPhotos = WEFT_TEST_DATA "/data/photos";
};

TEST_F(Photos, DecodeUpright) {
  // Name, width and height as shown upright.
  const std::map<std::string, std::pair<std::int64_t, std::int64_t>> photos = {
      {"imagenet_n01443537_goldfish.jpg", {376, 263}},
      {"imagenet_n01871265_tusker.jpg", {75, 56}},
      {"imagenet_n02091032_Italian_greyhound.jpg", {2400, 1600}},
      {"imagenet_n02104029_kuvasz.jpg", {1024, 768}},
      {"imagenet_n02119022_red_fox.jpg", {500, 333}},
      {"imagenet_n02123045_tabby.jpg", {335, 500}},
      {"imagenet_n02356798_fox_squirrel.jpg", {86, 108}},
      {"imagenet_n02504458_African_elephant.jpg", {500, 375}},
      {"imagenet_n02692877_airship.jpg", {350, 156}},
      {"imagenet_n02951585_can_opener.jpg", {294, 392}},
      {"imagenet_n03337140_file.jpg", {1600, 1200}},
      {"imagenet_n03461385_grocery_store.jpg", {800, 1066}},
      {"imagenet_n03804744_nail.jpg", {183, 280}},
      {"imagenet_n04037443_racer.jpg", {500, 333}},
      {"imagenet_n04532670_viaduct.jpg", {500, 334}},
      {"imagenet_n07747607_orange.jpg", {332, 500}},
      {"vitcpp_apple.jpg", {256, 256}},
      {"vitcpp_cheetah.jpg", {1920, 1200}},
      {"vitcpp_image.png", {2212, 1117}},
      {"vitcpp_kiwi.jpg", {1200, 902}},
      {"vitcpp_polars.jpeg", {286, 176}},
      {"vitcpp_tench.jpg", {612, 408}},
      {"large_HMD_Nokia_8.3_5G.jpg", {4608, 1976}},
      {"pillow_cmyk.jpg", {100, 100}},
      {"pillow_rgba_exif3.png", {326, 268}},
      {"skimage_camera.png", {512, 512}},
      {"skimage_chelsea.png", {451, 300}},
      {"vips_indexed.png", {290, 442}},
  };
  for (const auto& [name, size] : photos) {
    SCOPED_TRACE(name);
    const Image image = decode_image(kPhotos / name);
    EXPECT_EQ(image.width, size.first);
    EXPECT_EQ(image.height, size.second);
    ASSERT_EQ(image.pixels.size(), static_cast<std::size_t>(size.first * size.second * 3));
    const auto [least, most] = std::ranges::minmax(image.pixels);
    EXPECT_GT(most - least, 64);
  }
}

TEST_F(Photos, ATruncatedOneIsAnError) {
  const std::string path = (kPhotos / "broken/vips_truncated.jpg").string();
  const std::string message = refusal([&] { return decode_image(path); });
  EXPECT_TRUE(message.starts_with(fmt::format("[{}] cannot decode the picture: ", path))) << message;
  EXPECT_TRUE(is_one_line(message)) << message;
}

/// The picture as 60×60 grey values of zero mean and unit length.
std::vector<double> thumbnail(const Image& image) {
  const Image small = resize(image, 60, 60, Filter::kBicubic);
  std::vector<double> grey(3600);
  for (std::size_t i = 0; i < small.pixels.size(); ++i) grey[i / 3] += small.pixels[i];
  const double mean = std::accumulate(grey.begin(), grey.end(), 0.0) / 3600;
  double square = 0;
  for (double& value : grey) {
    value -= mean;
    square += value * value;
  }
  for (double& value : grey) value /= std::sqrt(square);
  return grey;
}

TEST_F(Photos, TheEightOrientationsLookAlike) {
  const std::vector<double> first = thumbnail(decode_image(kPhotos / "exif-orientation/1.jpg"));
  for (int orientation = 1; orientation <= 8; ++orientation) {
    const Image image = decode_image(kPhotos / fmt::format("exif-orientation/{}.jpg", orientation));
    EXPECT_EQ(image.width, orientation <= 4 ? 308 : 231);
    EXPECT_EQ(image.height, orientation <= 4 ? 410 : 308);
    const std::vector<double> other = thumbnail(image);
    // The scenes differ in a number drawn in: 0.993 with Pillow, and at most 0.62 when an orientation is ignored.
    EXPECT_GE(std::inner_product(first.begin(), first.end(), other.begin(), 0.0), 0.99) << orientation;
  }
}

}  // namespace
}  // namespace weft
