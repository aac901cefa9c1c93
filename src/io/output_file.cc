#include "io/output_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>

#include "core/format.h"

namespace weft {
namespace {

namespace fs = std::filesystem;

// A name beside the target that no other writer of this or another process uses.
std::string temporary_name(const fs::path& target) {
  static std::atomic<unsigned> count{0};
  return fmt::format("{}.{}-{}.tmp", target.string(), ::getpid(), count++);
}

}  // namespace

OutputFile::OutputFile(const fs::path& target) : target_(target), name_(printable(target.string(), 1000)) {
  std::error_code error;
  if (fs::is_symlink(target, error)) {
    const fs::path resolved = fs::weakly_canonical(target, error);
    if (!error) target_ = resolved;
  }
  const fs::file_status status = fs::status(target_, error);
  require<IoError>(!fs::is_directory(status), name_, "cannot write the file: it is a directory");
  if (fs::exists(status) && !fs::is_regular_file(status)) {
    fd_ = ::open(target_.c_str(), O_WRONLY | O_CLOEXEC);
  } else {
    std::string name = temporary_name(target_);
    fd_ = ::open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd_ >= 0) temporary_ = std::move(name);
  }
  require<IoError>(fd_ >= 0, name_, "cannot write the file: {}", std::strerror(errno));
}

OutputFile::~OutputFile() {
  if (fd_ >= 0) ::close(fd_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void OutputFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd_, bytes.data(), std::min(bytes.size(), std::size_t{1} << 30));
    if (written < 0 && errno == EINTR) continue;
    require<IoError>(written >= 0, name_, "cannot write the file: {}", std::strerror(errno));
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

void OutputFile::commit() {
  const auto check = [&](bool ok) { require<IoError>(ok, name_, "cannot write the file: {}", std::strerror(errno)); };
  if (!temporary_.empty()) {
    struct stat replaced {};
    if (::stat(target_.c_str(), &replaced) == 0) check(::fchmod(fd_, replaced.st_mode & 0777U) == 0);
    check(::fsync(fd_) == 0);
  }
  check(::close(std::exchange(fd_, -1)) == 0);
  if (!temporary_.empty()) check(::rename(temporary_.c_str(), target_.c_str()) == 0);
  temporary_.clear();
}

}  // namespace weft
