#include "picture_stream.h"

#include <glob.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <filesystem>
#include <iostream>
#include <memory>
#include <new>

#include "common.h"
#include "core/format.h"

namespace weft::cli {
namespace fs = std::filesystem;
namespace {

// More than any picture within DecodeLimits' default takes in a sensible format.
constexpr std::size_t kMaxStdinBytes = std::size_t{1} << 30;

Picture read_picture(const PictureSource& source, const Preprocess& preprocess) {
  Picture picture{.name = source.name, .label = source.label, .pixels = {}, .error = {}};
  try {
    picture.pixels = prepare(source.decode(), preprocess);
  } catch (const std::bad_alloc&) {
    picture.error = fmt::format("{}: out of memory", source.name);
  } catch (const std::exception& error) {
    picture.error = error.what();
    if (picture.error.find(source.name) == std::string::npos) {
      picture.error = fmt::format("{}: {}", source.name, picture.error);
    }
  }
  return picture;
}

Image decode_stdin() {
  std::vector<char> bytes;
  constexpr std::size_t kChunk = std::size_t{1} << 20;
  while (std::cin) {
    const std::size_t size = bytes.size();
    require<IoError>(size <= kMaxStdinBytes, "standard input", "the picture is larger than {} bytes", kMaxStdinBytes);
    bytes.resize(size + kChunk);
    std::cin.read(bytes.data() + size, kChunk);
    bytes.resize(size + static_cast<std::size_t>(std::cin.gcount()));
  }
  require<IoError>(!bytes.empty(), "standard input", "there is nothing to read");
  return decode_image(std::as_bytes(std::span(bytes)), "standard input");
}

Image decode_file(const std::string& path) {
  std::error_code error;
  require<IoError>(!fs::is_directory(path, error), path, "is a folder; name the pictures in it, for example {}",
                   (fs::path(path) / "*.jpg").string());
  return decode_image(path);
}

std::vector<std::string> matches(const std::string& pattern) {
  glob_t found{};
  const std::unique_ptr<glob_t, void (*)(glob_t*)> guard(&found, globfree);
  if (glob(pattern.c_str(), GLOB_TILDE, nullptr, &found) != 0) return {};
  return {found.gl_pathv, found.gl_pathv + found.gl_pathc};
}

bool is_pattern(const std::string& argument) {
  std::error_code error;
  return argument.find_first_of("*?[") != std::string::npos && !fs::exists(argument, error);
}

}  // namespace

void use_batch(Batch& batch, const std::function<void(std::span<const Image>)>& use) {
  std::vector<Image> images;
  for (Picture& picture : batch) {
    if (picture.error.empty()) images.push_back(std::move(picture.pixels));
  }
  if (images.empty()) return;
  std::string problem;
  try {
    return use(images);
  } catch (const std::bad_alloc&) {
    problem = "out of memory";
  } catch (const ShapeError& error) {
    problem = error.what();
  }
  for (Picture& picture : batch) {
    if (picture.error.empty()) picture.error = fmt::format("{}: {}", picture.name, problem);
  }
}

void report_bad_picture(const Picture& picture, bool json) {
  if (json) print_json({{"file", picture.name}, {"error", picture.error}});
  print_error(picture.error);
}

PictureStream::PictureStream(NextSource next, const Options& options)
    : next_(std::move(next)), options_(options), workers_(options.threads) {
  if (options_.read_ahead > 0) return;
  // Whole pictures are large: no more of them at once than threads. Cropped ones are small: enough for all threads to
  // have work although some pictures take longer than others.
  const bool large = options_.preprocess.crop == 0;
  options_.read_ahead = large ? workers_.count() : std::max(options_.max_batch, 4 * workers_.count());
}

void PictureStream::refill() {
  std::vector<PictureSource> sources;
  while (!ended_ && static_cast<int>(sources.size()) < options_.read_ahead) {
    if (auto source = next_()) {
      sources.push_back(std::move(*source));
    } else {
      ended_ = true;
    }
  }
  std::vector<Picture> pictures(sources.size());
  workers_.parallel_for(static_cast<std::int64_t>(sources.size()), 1, [&](std::int64_t begin, std::int64_t end) {
    for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
      pictures[i] = read_picture(sources[i], options_.preprocess);
    }
  });
  std::ranges::move(pictures, std::back_inserter(ready_));
}

Batch PictureStream::next() {
  Batch batch;
  std::optional<std::array<std::int64_t, 2>> size;
  int sound = 0;
  while (true) {
    if (ready_.empty() && !ended_) refill();
    if (ready_.empty()) return batch;
    const Picture& picture = ready_.front();
    if (picture.error.empty()) {
      const std::array its_size = {picture.pixels.height, picture.pixels.width};
      if (sound == options_.max_batch || (size && *size != its_size)) return batch;
      size = its_size;
      ++sound;
    }
    batch.push_back(std::move(ready_.front()));
    ready_.pop_front();
  }
}

NextSource pictures_of(std::vector<std::string> arguments) {
  if (std::ranges::count(arguments, "-") > 1) fail_usage("the standard input (-) can be read only once");
  auto pending = std::make_shared<std::deque<std::string>>(arguments.begin(), arguments.end());
  auto matched = std::make_shared<std::deque<std::string>>();
  const auto file = [](const std::string& path) {
    return PictureSource{.name = path, .decode = [path] { return decode_file(path); }};
  };
  return [=]() -> std::optional<PictureSource> {
    while (true) {
      if (!matched->empty()) {
        const std::string path = std::move(matched->front());
        matched->pop_front();
        return file(path);
      }
      if (pending->empty()) return std::nullopt;
      const std::string argument = std::move(pending->front());
      pending->pop_front();
      if (argument == "-") return PictureSource{.name = "-", .decode = decode_stdin};
      if (!is_pattern(argument)) return file(argument);
      std::ranges::move(matches(argument), std::back_inserter(*matched));
      if (!matched->empty()) continue;
      return PictureSource{.name = argument, .decode = [argument]() -> Image {
                             throw IoError(fmt::format("{}: no file matches this pattern", argument));
                           }};
    }
  };
}

}  // namespace weft::cli
