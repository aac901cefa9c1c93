#include "io/zip_archive.h"

#include <minizip/unzip.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>

#include "core/format.h"

namespace weft {
namespace {

constexpr std::size_t kMaxName = 1024;

// minizip's file operations over bytes in memory.
struct Cursor {
  std::span<const std::byte> bytes;
  ZPOS64_T position = 0;
  bool ended = false;  // a read wanted more than there was: minizip by itself takes missing bytes for zeros
};

Cursor& cursor(voidpf stream) { return *static_cast<Cursor*>(stream); }

uLong read_bytes(voidpf /*opaque*/, voidpf stream, void* out, uLong size) {
  Cursor& c = cursor(stream);
  const ZPOS64_T count = std::min<ZPOS64_T>(size, c.bytes.size() - std::min<ZPOS64_T>(c.position, c.bytes.size()));
  if (count > 0) std::memcpy(out, c.bytes.data() + c.position, count);
  c.position += count;
  c.ended = c.ended || count < size;
  return static_cast<uLong>(count);
}

long seek(voidpf /*opaque*/, voidpf stream, ZPOS64_T offset, int origin) {
  Cursor& c = cursor(stream);
  const ZPOS64_T base = origin == ZLIB_FILEFUNC_SEEK_SET   ? 0
                        : origin == ZLIB_FILEFUNC_SEEK_CUR ? c.position
                                                           : c.bytes.size();
  if (offset > c.bytes.size() || base > c.bytes.size() - offset) return -1;
  c.position = base + offset;
  return 0;
}

zlib_filefunc64_def memory_functions(Cursor& c) {
  return {.zopen64_file = [](voidpf opaque, const void*, int) { return opaque; },
          .zread_file = read_bytes,
          .zwrite_file = [](voidpf, voidpf, const void*, uLong) { return uLong{0}; },
          .ztell64_file = [](voidpf, voidpf stream) { return cursor(stream).position; },
          .zseek64_file = seek,
          .zclose_file = [](voidpf, voidpf) { return 0; },
          .zerror_file = [](voidpf, voidpf stream) { return cursor(stream).ended ? 1 : 0; },
          .opaque = &c};
}

}  // namespace

std::map<std::string, std::span<const std::byte>> read_zip_archive(const FileBytes& file) {
  const std::string_view place = file.name;
  Cursor c{.bytes = file.bytes};
  zlib_filefunc64_def functions = memory_functions(c);
  const std::unique_ptr<void, int (*)(unzFile)> zip(unzOpen2_64("", &functions), unzClose);
  require<IoError>(zip != nullptr, place, "damaged zip archive: it has no directory of entries; the file is cut short");
  std::map<std::string, std::span<const std::byte>> entries;
  int status = unzGoToFirstFile(zip.get());
  for (; status == UNZ_OK; status = unzGoToNextFile(zip.get())) {
    std::array<char, kMaxName + 1> name{};
    unz_file_info64 info{};
    status = unzGetCurrentFileInfo64(zip.get(), &info, name.data(), kMaxName, nullptr, 0, nullptr, 0);
    require<IoError>(status == UNZ_OK, place, "damaged zip archive: its directory of entries is broken");
    require<IoError>(info.size_filename <= kMaxName, place, "damaged zip archive: an entry's name has {} bytes",
                     info.size_filename);
    require<IoError>((info.flag & 1U) == 0, place, "the zip entry {} is encrypted: expected plain entries",
                     printable(name.data()));
    require<IoError>(
        info.compression_method == 0, place,
        "the zip entry {} is compressed: torch.save stores entries uncompressed; save the checkpoint again",
        printable(name.data()));
    status = unzOpenCurrentFile2(zip.get(), nullptr, nullptr, /*raw=*/1);
    require<IoError>(status == UNZ_OK, place, "damaged zip archive: the entry {} contradicts the directory",
                     printable(name.data()));
    const ZPOS64_T start = unzGetCurrentFileZStreamPos64(zip.get());
    unzCloseCurrentFile(zip.get());
    const bool inside = info.compressed_size == info.uncompressed_size && start <= file.bytes.size() &&
                        info.uncompressed_size <= file.bytes.size() - start;
    require<IoError>(inside, place, "damaged zip archive: the entry {} reaches beyond the end of the file",
                     printable(name.data()));
    const bool fresh = entries.emplace(name.data(), file.bytes.subspan(start, info.uncompressed_size)).second;
    require<IoError>(fresh, place, "damaged zip archive: it has two entries {}", printable(name.data()));
  }
  require<IoError>(status == UNZ_END_OF_LIST_OF_FILE, place, "damaged zip archive: its directory of entries is broken");
  return entries;
}

}  // namespace weft
