// Pictures in the order of their sources: decoded in parallel, some ahead of their use, and handed out in batches.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/threads.h"
#include "weft/image.h"

namespace weft::cli {

/// A picture still to be read.
struct PictureSource {
  std::string name;
  /// The class it is known to be of; −1 when it is not known.
  int label = -1;
  /// Called once, on any thread. May throw.
  std::function<Image()> decode;
};

/// The next source, nothing at the end. May throw. Called on one thread at a time.
using NextSource = std::function<std::optional<PictureSource>()>;

/// A picture that was read, or why it was not.
struct Picture {
  std::string name;
  int label = -1;
  Image pixels;       // after Preprocess's resize and crop
  std::string error;  // empty for a sound picture
};

/// Consecutive pictures of which all sound ones have equal sizes.
using Batch = std::vector<Picture>;

/// Calls use(images) with the pixels of the sound ones, if any, which are taken out of the batch. Where the model
/// cannot take them (ShapeError, memory) they are not sound any more.
void use_batch(Batch& batch, const std::function<void(std::span<const Image>)>& use);
/// One line on stderr and, for JSON, {"file", "error"} on stdout.
void report_bad_picture(const Picture& picture, bool json);

class PictureStream {
 public:
  struct Options {
    Preprocess preprocess;
    int threads = 0;     // 0: one per core
    int max_batch = 1;   // sound pictures in a batch, ≥ 1
    int read_ahead = 0;  // pictures decoded in one go, at most; 0: chosen from threads and max_batch
  };
  PictureStream(NextSource next, const Options& options);

  /// Empty at the end.
  Batch next();

 private:
  void refill();

  NextSource next_;
  Options options_;
  Workers workers_;
  std::deque<Picture> ready_;
  bool ended_ = false;
};

/// Sources for the arguments of a command: paths, "-" for the standard input, and patterns (glob(7)) where no file has
/// that very name. A pattern without a match is a source that fails.
NextSource pictures_of(std::vector<std::string> arguments);

}  // namespace weft::cli
