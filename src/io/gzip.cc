#include "io/gzip.h"

#include <zlib.h>

#include <algorithm>
#include <limits>

#include "core/format.h"

namespace weft {
namespace {

// zlib counts in 32 bits.
uInt count_of(std::size_t bytes) {
  return static_cast<uInt>(std::min<std::size_t>(bytes, std::numeric_limits<uInt>::max()));
}

}  // namespace

bool is_gzip(std::span<const std::byte> bytes) {
  return bytes.size() >= 2 && bytes[0] == std::byte{0x1F} && bytes[1] == std::byte{0x8B};
}

struct GzipReader::Impl {
  FileBytes file;
  std::span<const std::byte> left;
  z_stream stream{};
  bool ended = false;
};

GzipReader::GzipReader(FileBytes file) : impl_(std::make_unique<Impl>()) {
  impl_->left = file.bytes;
  impl_->file = std::move(file);
  constexpr int kGzipOnly = 16;
  require<IoError>(inflateInit2(&impl_->stream, MAX_WBITS + kGzipOnly) == Z_OK, impl_->file.name,
                   "zlib does not start");
}

GzipReader::~GzipReader() { inflateEnd(&impl_->stream); }

std::size_t GzipReader::read(std::span<std::byte> out) {
  Impl& z = *impl_;
  std::size_t done = 0;
  while (done < out.size() && !z.ended) {
    const uInt given = count_of(z.left.size());
    const uInt room = count_of(out.size() - done);
    z.stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(z.left.data()));
    z.stream.avail_in = given;
    z.stream.next_out = reinterpret_cast<Bytef*>(out.data() + done);
    z.stream.avail_out = room;
    const int status = inflate(&z.stream, Z_NO_FLUSH);
    z.left = z.left.subspan(given - z.stream.avail_in);
    done += room - z.stream.avail_out;
    if (status == Z_STREAM_END) {
      z.ended = !is_gzip(z.left);
      if (!z.ended) inflateReset(&z.stream);
      continue;
    }
    require<IoError>(status != Z_MEM_ERROR, z.file.name, "out of memory");
    require<IoError>(status != Z_BUF_ERROR || !z.left.empty(), z.file.name, "the gzip file is truncated");
    require<IoError>(status == Z_OK, z.file.name, "the gzip file is damaged: {}",
                     z.stream.msg != nullptr ? z.stream.msg : "zlib can say no more");
  }
  return done;
}

}  // namespace weft
