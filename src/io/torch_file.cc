#include "io/torch_file.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "core/format.h"
#include "io/zip_archive.h"

namespace weft {
namespace {

constexpr std::string_view kZipMagic = "PK\x03\x04";
// PROTO 2, then LONG1 0x1950a86a20f9469cfc6c: the first of the several pickles of the format before the zip archives.
constexpr std::string_view kStreamMagic("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19", 14);
constexpr std::size_t kTarMagicAt = 257;
constexpr std::string_view kTarMagic = "ustar";
constexpr std::size_t kFreeCopies = std::size_t{64} << 20;

std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

bool is_old_stream(std::string_view text) { return text.starts_with(kStreamMagic); }
bool is_old_tar(std::string_view text) {
  return text.size() > kTarMagicAt && text.substr(kTarMagicAt).starts_with(kTarMagic);
}
bool is_pickle(std::string_view text) { return text.size() > 1 && text[0] == '\x80' && text[1] >= 2 && text[1] <= 5; }

void refuse_other_formats(const FileBytes& file) {
  const std::string_view text = as_text(file.bytes);
  require<IoError>(!is_old_stream(text) && !is_old_tar(text), file.name,
                   "a checkpoint of PyTorch before 1.6: expected its zip format; save it again with a newer PyTorch: "
                   "torch.save(torch.load(\"old.pth\"), \"new.pth\")");
  require<IoError>(!is_pickle(text), file.name,
                   "a bare pickle: expected a checkpoint of torch.save (PyTorch ≥ 1.6) or a safetensors file");
  require<IoError>(text.starts_with(kZipMagic), file.name,
                   "expected a checkpoint of torch.save (PyTorch ≥ 1.6), got something else");
}

// The folder that all of an archive's entries lie in, told by its one "…/data.pkl".
std::string find_folder(const std::map<std::string, std::span<const std::byte>>& entries, std::string_view place) {
  constexpr std::string_view kPickle = "/data.pkl";
  std::optional<std::string> folder;
  for (const auto& [name, bytes] : entries) {
    if (!name.ends_with(kPickle) || name.find('/') != name.size() - kPickle.size()) continue;
    require<IoError>(!folder, place, "the zip archive holds several data.pkl: expected one checkpoint");
    folder = name.substr(0, name.size() - kPickle.size() + 1);
  }
  require<IoError>(folder.has_value(), place,
                   "a zip archive without data.pkl: expected a checkpoint of torch.save (PyTorch ≥ 1.6)");
  return *folder;
}

// Whether a view is row-major without gaps. Strides of axes of one element mean nothing.
bool is_contiguous(const pickle::TensorRef& ref) {
  std::int64_t expected = 1;
  for (std::size_t axis = ref.sizes.size(); axis-- > 0;) {
    if (ref.sizes[axis] == 1) continue;
    if (ref.strides[axis] != expected) return false;
    expected *= ref.sizes[axis];  // cannot overflow: Shape has counted the elements
  }
  return true;
}

// The last element that a view of at least one element touches; empty when that overflows or a stride is negative.
std::optional<std::int64_t> last_element(const pickle::TensorRef& ref) {
  std::int64_t last = ref.offset;
  if (ref.offset < 0) return std::nullopt;
  for (std::size_t axis = 0; axis < ref.sizes.size(); ++axis) {
    std::int64_t reach = 0;
    if (ref.strides[axis] < 0 || __builtin_mul_overflow(ref.sizes[axis] - 1, ref.strides[axis], &reach) ||
        __builtin_add_overflow(last, reach, &last)) {
      return std::nullopt;
    }
  }
  return last;
}

// Copies a view to row-major order: the innermost axis in one loop, the others counted like an odometer.
void gather(const std::byte* storage, const pickle::TensorRef& ref, Tensor& out) {
  const std::size_t size = size_of(ref.dtype);
  const std::size_t rank = ref.sizes.size();
  const std::int64_t inner = rank > 0 ? ref.sizes[rank - 1] : 1;
  const std::int64_t step = rank > 0 ? ref.strides[rank - 1] : 1;
  std::vector<std::int64_t> index(rank, 0);
  std::int64_t offset = ref.offset;
  std::byte* to = out.mutable_raw();
  for (std::int64_t done = 0; done < out.elements(); done += inner) {
    for (std::int64_t i = 0; i < inner; ++i, to += size) {
      std::memcpy(to, storage + static_cast<std::size_t>(offset + i * step) * size, size);
    }
    for (std::size_t axis = rank > 0 ? rank - 1 : 0; axis-- > 0;) {
      offset += ref.strides[axis];
      if (++index[axis] < ref.sizes[axis]) break;
      offset -= ref.strides[axis] * ref.sizes[axis];
      index[axis] = 0;
    }
  }
}

}  // namespace

bool is_torch_file(std::span<const std::byte> bytes) {
  const std::string_view text = as_text(bytes);
  return text.starts_with(kZipMagic) || is_old_stream(text) || is_old_tar(text) || is_pickle(text);
}

TorchFile::TorchFile(FileBytes file)
    : file_(std::move(file)), copy_budget_(std::max(kFreeCopies, 4 * file_.bytes.size())) {
  refuse_other_formats(file_);
  entries_ = read_zip_archive(file_);
  folder_ = find_folder(entries_, file_.name);
  require<IoError>(!entries_.contains(folder_ + "constants.pkl"), file_.name,
                   "a TorchScript program: expected a checkpoint; save its weights: "
                   "torch.save(torch.jit.load(\"model.pt\").state_dict(), \"weights.pth\")");
  if (const auto order = entries_.find(folder_ + "byteorder"); order != entries_.end()) {
    require<IoError>(as_text(order->second) == "little", file_.name,
                     "the tensors are in byte order \"{}\": expected \"little\"; save the checkpoint again on a "
                     "little-endian machine",
                     printable(as_text(order->second), 20));
  }
  const auto pickle = entries_.at(folder_ + "data.pkl");
  pickle_bytes_ = pickle.size();
  document_ = pickle::read(pickle, file_.name);
}

std::span<const std::byte> TorchFile::bytes_of(const pickle::StorageRef& storage, std::string_view name) const {
  const auto entry = entries_.find(fmt::format("{}data/{}", folder_, storage.key));
  require<IoError>(entry != entries_.end(), file_.name, "damaged checkpoint: the data of {} (storage {}) is missing",
                   printable(name), printable(storage.key, 40));
  std::int64_t bytes = 0;
  const auto size = static_cast<std::int64_t>(storage.dtype ? size_of(*storage.dtype) : 1);
  const bool fits = !__builtin_mul_overflow(storage.elements, size, &bytes) &&
                    static_cast<std::uint64_t>(bytes) <= entry->second.size();
  require<IoError>(
      fits, file_.name,
      "damaged checkpoint: storage {} of {} should have {} elements of {} bytes, but the file has {} bytes",
      printable(storage.key, 40), printable(name), storage.elements, size, entry->second.size());
  return entry->second.first(static_cast<std::size_t>(bytes));
}

Tensor TorchFile::tensor(const pickle::TensorRef& ref, std::string_view name) {
  const auto what = [&] {
    return fmt::format("{} (sizes [{}], strides [{}], offset {})", printable(name), fmt::join(ref.sizes, ","),
                       fmt::join(ref.strides, ","), ref.offset);
  };
  const std::span<const std::byte> storage = bytes_of(*ref.storage, name);
  std::int64_t elements = 1;
  bool sound = true;
  const bool empty = std::ranges::find(ref.sizes, 0) != ref.sizes.end();
  for (const std::int64_t size : ref.sizes) {
    sound = sound && size >= 0 && (empty || !__builtin_mul_overflow(elements, size, &elements));
  }
  require<IoError>(sound, file_.name, "damaged checkpoint: the sizes of {} are absurd", what());
  TensorType type{ref.dtype, Shape(ref.sizes)};
  if (empty) return Tensor(std::move(type));

  const std::size_t size = size_of(ref.dtype);
  const auto last = last_element(ref);
  const bool inside = last && static_cast<std::uint64_t>(*last) < storage.size() / size;
  require<IoError>(inside, file_.name, "damaged checkpoint: {} reaches beyond its storage of {} bytes", what(),
                   storage.size());
  if (is_contiguous(ref)) {
    const std::byte* data = storage.data() + static_cast<std::size_t>(ref.offset) * size;
    if (reinterpret_cast<std::uintptr_t>(data) % size == 0) {
      return Tensor::borrow(std::move(type), data, file_.owner);
    }
  }
  const bool affordable = static_cast<std::uint64_t>(elements) <= copy_budget_ / size;
  require<IoError>(
      affordable, file_.name,
      "{} is a view that would take more memory than the file has reason to (max(64 MiB, 4 × its size) for "
      "all such views); save tensor.contiguous() instead of expanded views",
      what());
  copy_budget_ -= static_cast<std::size_t>(elements) * size;
  Tensor out(std::move(type));
  gather(storage.data(), ref, out);
  return out;
}

}  // namespace weft
