// Pickles, zip archives and safetensors files made by hand, sound and unsound, for the tests of their readers.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace weft::testing {

/// `size` little-endian bytes of a number.
std::string little_endian(std::uint64_t value, std::size_t size);

template <class T>
std::string bytes_of(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

/// Pieces of a pickle, each leaving one value on the stack; document() makes a pickle of one.
namespace pickled {

using Pieces = std::vector<std::string>;

std::string text(std::string_view value);
std::string integer(std::int64_t value);
std::string tuple(const Pieces& items);
std::string integers(const std::vector<std::int64_t>& values);
std::string list(const Pieces& items);
std::string dict(const std::vector<std::pair<std::string, std::string>>& entries);
std::string global(std::string_view module, std::string_view name);
std::string call(const std::string& callable, const Pieces& args);
/// A storage of `elements` elements, as torch.save refers to it.
std::string storage(std::string_view type, std::string_view key, std::int64_t elements);

struct View {
  std::string_view type = "FloatStorage";
  std::string_view key = "0";
  std::int64_t elements = 0;  // of the storage
  std::int64_t offset = 0;
  std::vector<std::int64_t> sizes;
  std::vector<std::int64_t> strides;
};
std::string tensor(const View& view);

std::string document(const std::string& value, int protocol = 2);

}  // namespace pickled

struct ZipEntry {
  std::string name;
  std::string data;
  int method = 0;
  int flags = 0;
  std::size_t alignment = 64;              // torch.save pads entries so
  std::optional<std::uint32_t> size = {};  // what the archive claims, when not the truth
};
std::string zip(const std::vector<ZipEntry>& entries);

/// What torch.save writes: "archive/data.pkl" with document(root), and the storages as "archive/data/0", "…/1", …
std::string torch_file(const std::string& root, const std::vector<std::string>& storages = {});

/// A safetensors file of this header text and data.
std::string safetensors(std::string_view header, std::string_view data = {});

/// An .npy file of this header text and data.
std::string npy(std::string_view header, std::string_view data, int version = 1);

}  // namespace weft::testing
