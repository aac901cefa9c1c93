#include "io/mapped_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "io/output_file.h"
#include "io/testing/files.h"
#include "weft/error.h"

namespace weft {
namespace {

namespace fs = std::filesystem;
using testing::refuses;
using testing::TemporaryDirectory;

TEST(MappedFile, OutlivesItsNameAndItsDirectoryEntry) {
  TemporaryDirectory dir;
  testing::write_text(dir / "a", "woven");
  const FileBytes file = map_file(dir / "a");
  fs::remove(dir / "a");
  ASSERT_EQ(file.bytes.size(), 5U);
  EXPECT_EQ(static_cast<char>(file.bytes[4]), 'n');
  EXPECT_EQ(file.name, (dir / "a").string());
}

TEST(MappedFile, RefusesWhatIsNoFileWithBytes) {
  TemporaryDirectory dir;
  testing::write_text(dir / "empty", "");
  ASSERT_EQ(::mkfifo((dir / "pipe").c_str(), 0600), 0);
  EXPECT_TRUE(refuses([&] { map_file(dir / "none"); }, "none] cannot open the file: No such file"));
  EXPECT_TRUE(refuses([&] { map_file(dir.path()); }, "expected a file, got a directory"));
  EXPECT_TRUE(refuses([&] { map_file(dir / "empty"); }, "the file is empty"));
  EXPECT_TRUE(refuses([&] { map_file(dir / "pipe"); }, "expected a regular file, got a pipe"));
  EXPECT_TRUE(refuses([&] { map_file(dir / "a\nb"); }, "a\\x0ab] cannot open"));
}

TEST(OutputFile, ReplacesOnlyWhenCommitted) {
  TemporaryDirectory dir;
  testing::write_text(dir / "a", "old");
  {
    OutputFile file(dir / "a");
    file.write("half of the n");
  }
  EXPECT_EQ(testing::read_text(dir / "a"), "old");
  fs::permissions(dir / "a", fs::perms::owner_read | fs::perms::owner_write | fs::perms::others_read);
  const auto permissions = fs::status(dir / "a").permissions();
  OutputFile file(dir / "a");
  file.write("new");
  file.commit();
  EXPECT_EQ(testing::read_text(dir / "a"), "new");
  EXPECT_EQ(fs::status(dir / "a").permissions(), permissions);
  EXPECT_EQ(std::distance(fs::directory_iterator(dir.path()), {}), 1) << "a temporary file was left behind";
}

TEST(OutputFile, FollowsLinksAndWritesToDevices) {
  TemporaryDirectory dir;
  testing::write_text(dir / "a", "old");
  fs::create_symlink("a", dir / "link");
  OutputFile file(dir / "link");
  file.write("new");
  file.commit();
  EXPECT_TRUE(fs::is_symlink(dir / "link"));
  EXPECT_EQ(testing::read_text(dir / "a"), "new");

  OutputFile null("/dev/null");
  null.write("gone");
  null.commit();
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
}

TEST(OutputFile, SaysWhyItCannotWrite) {
  TemporaryDirectory dir;
  EXPECT_TRUE(refuses([&] { OutputFile(dir.path()); }, "it is a directory"));
  EXPECT_TRUE(refuses([&] { OutputFile(dir / "none/a"); }, "none/a] cannot write the file: No such file"));
  if (fs::exists("/dev/full")) {
    EXPECT_TRUE(refuses(
        [] {
          OutputFile full("/dev/full");
          full.write("x");
        },
        "[/dev/full] cannot write the file: No space left"));
  }
}

}  // namespace
}  // namespace weft
