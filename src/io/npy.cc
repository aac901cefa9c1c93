#include "io/npy.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/format.h"
#include "io/output_file.h"

namespace weft {
namespace {

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr std::size_t kMaxNpyHeader = 1 << 16;
constexpr std::size_t kMaxNpyRank = 64;  // NumPy's own bound

constexpr std::array<std::pair<std::string_view, DType>, 9> kNpyElements = {{{"f8", DType::kF64},
                                                                             {"f4", DType::kF32},
                                                                             {"f2", DType::kF16},
                                                                             {"i8", DType::kI64},
                                                                             {"i4", DType::kI32},
                                                                             {"i2", DType::kI16},
                                                                             {"i1", DType::kI8},
                                                                             {"u1", DType::kU8},
                                                                             {"b1", DType::kBool}}};

struct Header {
  std::string_view element;
  std::optional<bool> fortran_order;
  std::optional<std::vector<std::int64_t>> shape;
};

// The header is a Python dictionary literal: {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }
class HeaderParser {
 public:
  HeaderParser(std::string_view text, std::string_view place) : text_(text), place_(place) {}

  Header parse() {
    Header header;
    expect('{');
    while (!accept('}')) {
      const std::string_view key = string();
      expect(':');
      if (key == "descr") {
        require<IoError>(peek() == '\'' || peek() == '"', place_, "records are not supported: expected plain numbers");
        header.element = string();
      } else if (key == "fortran_order") {
        header.fortran_order = boolean();
      } else if (key == "shape") {
        header.shape = extents();
      } else {
        fail<IoError>(place_, "the npy header has an unknown key '{}'", printable(key));
      }
      if (!accept(',')) {
        expect('}');
        break;
      }
    }
    require<IoError>(peek() == '\0', place_, "the npy header goes on after its closing brace");
    const bool complete = !header.element.empty() && header.fortran_order && header.shape;
    require<IoError>(complete, place_, "the npy header must have descr, fortran_order and shape");
    return header;
  }

 private:
  // The next character that is no space; '\0' at the end.
  char peek() {
    while (!text_.empty() && (text_[0] == ' ' || text_[0] == '\n')) text_.remove_prefix(1);
    return text_.empty() ? '\0' : text_[0];
  }
  bool accept(char c) {
    if (text_.empty() || peek() != c) return false;
    text_.remove_prefix(1);
    return true;
  }
  void expect(char c) {
    if (!accept(c)) fail<IoError>(place_, "damaged npy header: expected '{}' before '{}'", c, printable(text_, 20));
  }
  std::string_view string() {
    const char quote = peek();
    const auto end = quote == '\'' || quote == '"' ? text_.find(quote, 1) : std::string_view::npos;
    require<IoError>(end != std::string_view::npos, place_, "damaged npy header: expected a string at '{}'",
                     printable(text_, 20));
    const std::string_view out = text_.substr(1, end - 1);
    text_.remove_prefix(end + 1);
    return out;
  }
  bool boolean() {
    peek();
    for (const std::string_view word : {"True", "False"}) {
      if (!text_.starts_with(word)) continue;
      text_.remove_prefix(word.size());
      return word == "True";
    }
    fail<IoError>(place_, "damaged npy header: expected True or False, got '{}'", printable(text_, 20));
  }
  std::vector<std::int64_t> extents() {
    std::vector<std::int64_t> out;
    expect('(');
    while (!accept(')')) {
      peek();
      std::int64_t extent = 0;
      const auto [end, error] = std::from_chars(text_.data(), text_.data() + text_.size(), extent);
      require<IoError>(error == std::errc{} && extent >= 0, place_, "damaged npy header: expected an extent, got '{}'",
                       printable(text_, 20));
      text_.remove_prefix(static_cast<std::size_t>(end - text_.data()));
      accept('L');  // written by Python 2
      out.push_back(extent);
      require<IoError>(out.size() <= kMaxNpyRank, place_, "the array has more than {} axes", kMaxNpyRank);
      if (!accept(',')) {
        expect(')');
        break;
      }
    }
    return out;
  }

  std::string_view text_;
  std::string_view place_;
};

DType element_type(std::string_view descr, std::string_view place) {
  require<IoError>(!descr.starts_with('>'), place,
                   "big-endian elements ('{}') are not supported; save array.astype(array.dtype.newbyteorder('<'))",
                   printable(descr));
  std::string_view element = descr;
  if (element.starts_with('<') || element.starts_with('|') || element.starts_with('=')) element.remove_prefix(1);
  const auto* const known = std::ranges::find(kNpyElements, element, &std::pair<std::string_view, DType>::first);
  require<IoError>(known != kNpyElements.end(), place,
                   "elements must be f8, f4, f2, i8, i4, i2, i1, u1 or b1, got '{}'; convert the array before saving",
                   printable(descr));
  return known->second;
}

// `from` in column-major order of `to`'s shape.
void transpose_into(const std::byte* from, Tensor& to) {
  const auto extents = to.shape().extents();
  const std::size_t size = size_of(to.dtype());
  std::vector<std::int64_t> strides(extents.size(), 1);
  for (std::size_t i = 1; i < extents.size(); ++i) strides[i] = strides[i - 1] * extents[i - 1];
  std::vector<std::int64_t> index(extents.size(), 0);
  std::byte* out = to.mutable_raw();
  std::int64_t offset = 0;
  for (std::int64_t n = 0; n < to.elements(); ++n, out += size) {
    std::memcpy(out, from + static_cast<std::size_t>(offset) * size, size);
    for (std::size_t axis = extents.size(); axis-- > 0;) {
      offset += strides[axis];
      if (++index[axis] < extents[axis]) break;
      offset -= strides[axis] * extents[axis];
      index[axis] = 0;
    }
  }
}

}  // namespace

Tensor read_npy(const FileBytes& file) {
  const std::string_view place = file.name;
  const std::string_view text(reinterpret_cast<const char*>(file.bytes.data()), file.bytes.size());
  require<IoError>(text.size() >= 12 && text.starts_with(kMagic), place, "expected a NumPy .npy file, got {}",
                   text.starts_with("PK") ? "a zip archive (npz): extract one array" : "something else");
  const auto byte = [&](std::size_t i) { return static_cast<std::size_t>(file.bytes[i]); };
  const std::size_t version = byte(6);
  require<IoError>(version >= 1 && version <= 3, place, "npy format {} is unknown: expected 1, 2 or 3", version);
  const std::size_t start = version == 1 ? 10 : 12;
  std::size_t length = byte(8) | byte(9) << 8;
  if (version > 1) length |= byte(10) << 16 | byte(11) << 24;
  require<IoError>(length <= kMaxNpyHeader, place, "the npy header says it has {} bytes: expected at most {}", length,
                   kMaxNpyHeader);
  require<IoError>(length <= text.size() - start, place, "the file is cut short inside its npy header");
  const Header header = HeaderParser(text.substr(start, length), place).parse();
  const DType dtype = element_type(header.element, place);

  // The size is compared before anything of it is allocated.
  const auto data = file.bytes.subspan(start + length);
  std::int64_t bytes = static_cast<std::int64_t>(size_of(dtype));
  bool overflow = false;
  const bool empty = std::ranges::find(*header.shape, 0) != header.shape->end();
  for (const std::int64_t extent : *header.shape) overflow |= __builtin_mul_overflow(bytes, extent, &bytes);
  const bool fits = empty ? data.empty() : !overflow && static_cast<std::uint64_t>(bytes) == data.size();
  require<IoError>(fits, place, "{}[{}] does not fit the {} bytes of data that the file has", name_of(dtype),
                   fmt::join(*header.shape, ","), data.size());

  Tensor out(dtype, Shape(*header.shape));
  if (*header.fortran_order && out.elements() > 1) {
    transpose_into(data.data(), out);
  } else if (!data.empty()) {
    std::memcpy(out.mutable_raw(), data.data(), data.size());
  }
  return out;
}

Tensor read_npy(const std::filesystem::path& path) { return read_npy(map_file(path)); }

void write_npy(const std::filesystem::path& path, const Tensor& tensor) {
  const auto* const element =
      std::ranges::find(kNpyElements, tensor.dtype(), &std::pair<std::string_view, DType>::second);
  require<UnsupportedError>(element != kNpyElements.end(), path.string(), "NumPy has no {} elements; convert to f32",
                            name_of(tensor.dtype()));
  const auto extents = tensor.shape().extents();
  std::string header = fmt::format("{{'descr': '{}{}', 'fortran_order': False, 'shape': ({}{}), }}",
                                   size_of(tensor.dtype()) == 1 ? '|' : '<', element->first, fmt::join(extents, ", "),
                                   extents.size() == 1 ? "," : "");
  // NumPy aligns the data to 64 bytes; magic, version and length take the first ten.
  header.append(63 - (10 + header.size()) % 64, ' ');
  header += '\n';
  const char length[2] = {static_cast<char>(header.size() & 0xFFU), static_cast<char>(header.size() >> 8)};
  OutputFile file(path);
  file.write(kMagic);
  file.write(std::string_view("\x01\x00", 2));
  file.write(std::string_view(length, 2));
  file.write(header);
  file.write(std::span(tensor.raw(), tensor.bytes()));
  file.commit();
}

}  // namespace weft
