// Every reader against the files made to break it.
#include <gtest/gtest.h>

#include <fstream>

#include "io/checkpoint.h"
#include "io/npy.h"
#include "io/testing/files.h"
#include "io/testing/hostile_files.h"

namespace weft {
namespace {

// Bytes of memory that the process has had at most since the last reset (Linux); 0 where that is not told.
std::size_t peak_memory() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::stoull(line.substr(6)) * 1024;
  }
  return 0;
}
void reset_peak_memory() { std::ofstream("/proc/self/clear_refs") << "5"; }

// A sanitizer's shadow and its quarantine of freed memory are no part of what weft needs.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kMeasureMemory = false;
#else
constexpr bool kMeasureMemory = true;
#endif

TEST(HostileFiles, GetOneClearLineAndLittleMemory) {
  testing::TemporaryDirectory dir;
  const auto files = testing::write_hostile_files(dir.path());
  EXPECT_GT(files.size(), 100U);
  for (const testing::HostileFile& file : files) {
    SCOPED_TRACE(file.path.filename());
    if (file.kind == testing::HostileFile::Kind::kPicture) continue;  // the picture readers have a test of their own
    reset_peak_memory();
    const std::size_t before = peak_memory();
    EXPECT_TRUE(testing::refuses(
        [&] {
          if (file.kind == testing::HostileFile::Kind::kArray) {
            read_npy(file.path);
          } else {
            read_checkpoint(file.path);
          }
        },
        file.reason));
    // At most some 60 bytes for each of the 2^23 steps that a pickle may have, and 64 MiB of copied views.
    if (kMeasureMemory) {
      EXPECT_LE(peak_memory() - before, std::size_t{640} << 20);
    }
  }
  EXPECT_FALSE(std::filesystem::exists(dir / "code-was-run"));
}

}  // namespace
}  // namespace weft
