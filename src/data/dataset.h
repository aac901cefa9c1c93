// Pictures whose class is known, each reachable by its number.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "weft/image.h"

namespace weft {

/// Which pictures of a data set: those to learn from or those to be judged by.
enum class Split { kTrain, kTest };

/// A data set. All functions may be called from several threads at once; pictures are 0 … size() − 1.
class Dataset {
 public:
  virtual ~Dataset() = default;
  Dataset() = default;
  Dataset(const Dataset&) = delete;
  Dataset& operator=(const Dataset&) = delete;

  virtual std::int64_t size() const = 0;
  /// RGB. Throws IoError for a picture that cannot be read.
  virtual Image image(std::int64_t i) const = 0;
  /// 0 … classes() − 1.
  virtual int label(std::int64_t i) const = 0;
  /// What messages call the picture: its path, or the file's and its number.
  virtual std::string picture_name(std::int64_t i) const = 0;
  /// What messages call the data set: the path that it was opened by.
  virtual const std::string& name() const = 0;
  /// One for each class.
  virtual const std::vector<std::string>& class_names() const = 0;

  /// Whether the format numbers the classes (CIFAR-10, IDX), so that a label means the same in every file; otherwise
  /// labels number this data set's class names.
  virtual bool numbered() const = 0;

  int classes() const { return static_cast<int>(class_names().size()); }
};

/// Opens what `path` is, files being told by their content:
/// - a folder with a sub-folder of pictures per class, in torchvision's order (class_folders.h);
/// - a CIFAR-10 binary file (records of 3,073 bytes: label, then the planes of a 32×32 picture), or a folder with
///   data_batch_1.bin … and test_batch.bin;
/// - an IDX file of pictures (the MNIST family), packed by gzip or not, with the file of its labels beside it, or a
/// folder
///   with train-images-idx3-ubyte[.gz] and t10k-images-idx3-ubyte[.gz]; grey becomes RGB;
/// - a folder with nothing but train and val (valid, validation, test), each a folder of class folders.
/// `split` matters only for a folder that holds both. Labels are checked here, all of them; pictures in folders are
/// opened when they are asked for. Throws IoError for what is missing, damaged or of another kind.
std::shared_ptr<const Dataset> open_dataset(const std::filesystem::path& path, Split split = Split::kTrain);

}  // namespace weft
