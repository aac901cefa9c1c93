#include "io/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "core/format.h"

namespace weft {
namespace {

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

}  // namespace

FileBytes map_file(const std::filesystem::path& path) {
  const std::string name = printable(path.string(), 1000);
  // Opening a pipe would wait for a writer unless asked not to.
  const Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  require<IoError>(fd.get() >= 0, name, "cannot open the file: {}", std::strerror(errno));
  struct stat status {};
  require<IoError>(::fstat(fd.get(), &status) == 0, name, "cannot read the file's size: {}", std::strerror(errno));
  require<IoError>(!S_ISDIR(status.st_mode), name, "expected a file, got a directory");
  require<IoError>(S_ISREG(status.st_mode), name,
                   "expected a regular file, got a pipe, socket or device; save it to a file first");
  require<IoError>(status.st_size > 0, name, "the file is empty");
  const auto size = static_cast<std::size_t>(status.st_size);
  void* const memory = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd.get(), 0);
  require<IoError>(memory != MAP_FAILED, name, "cannot map the file into memory: {}", std::strerror(errno));
  std::shared_ptr<const void> owner(memory, [size](const void* p) { ::munmap(const_cast<void*>(p), size); });
  return {.bytes = {static_cast<const std::byte*>(memory), size}, .name = name, .owner = std::move(owner)};
}

}  // namespace weft
