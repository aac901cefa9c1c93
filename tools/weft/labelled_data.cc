#include "labelled_data.h"

#include <algorithm>
#include <array>
#include <iostream>
#include <memory>
#include <numeric>

#include "core/format.h"
#include "data/cifar.h"
#include "data/dataset.h"

namespace weft::cli {
namespace {

void check_label(const std::string& picture, int label, int classes) {
  require<ConfigError>(label < classes, picture, "has label {}, but the model has {} classes", label, classes);
}

NextSource piped_cifar(int classes, std::int64_t limit) {
  return [=, index = std::int64_t{0}]() mutable -> std::optional<PictureSource> {
    constexpr const char* kName = "standard input";
    if (limit > 0 && index == limit) return std::nullopt;
    auto record = std::make_shared<std::array<std::byte, kCifarRecord>>();
    std::cin.read(reinterpret_cast<char*>(record->data()), kCifarRecord);
    const auto got = static_cast<std::size_t>(std::cin.gcount());
    if (got == 0 && index > 0) return std::nullopt;
    require<IoError>(got == kCifarRecord, kName, "record {} of the CIFAR-10 binary format must be {} bytes, got {}",
                     index, kCifarRecord, got);
    const int label = cifar_label(*record, kName, index);
    const std::string name = fmt::format("{}#{}", kName, index++);
    check_label(name, label, classes);
    return PictureSource{.name = name, .label = label, .decode = [record] { return cifar_image(*record); }};
  };
}

// The model's class for each label of the data set.
std::vector<int> model_classes(const Dataset& data, const std::vector<std::string>& labels, int classes) {
  std::vector<int> numbers;
  std::string unknown;
  for (const std::string& name : data.class_names()) {
    const auto label = std::ranges::find(labels, name);
    if (label != labels.end()) {
      numbers.push_back(static_cast<int>(label - labels.begin()));
    } else if (unknown.size() < 200) {
      unknown += fmt::format(" {}", printable(name, 60));
    }
  }
  if (unknown.empty()) return numbers;
  if (data.numbered()) {
    for (std::int64_t i = 0; i < data.size(); ++i) {
      if (data.label(i) >= classes) check_label(data.picture_name(i), data.label(i), classes);
    }
  } else {
    require<ConfigError>(numbers.empty(), data.name(), "some folders are named as classes of the model, but not:{}",
                         unknown);
    require<ConfigError>(
        data.classes() == classes, data.name(),
        "has {} class folders, which are not named as the model's labels, but the model has {} classes", data.classes(),
        classes);
  }
  numbers.resize(data.class_names().size());
  std::iota(numbers.begin(), numbers.end(), 0);
  return numbers;
}

}  // namespace

LabelledData open_labelled_data(const std::string& path, const std::vector<std::string>& labels, int classes,
                                std::int64_t limit) {
  if (path == "-") return {piped_cifar(classes, limit), limit > 0 ? limit : -1};
  const std::shared_ptr<const Dataset> data = open_dataset(path, Split::kTest);
  const std::int64_t count = limit > 0 ? std::min(limit, data->size()) : data->size();
  return {[=, numbers = model_classes(*data, labels, classes),
           i = std::int64_t{0}]() mutable -> std::optional<PictureSource> {
            if (i == count) return std::nullopt;
            const std::int64_t picture = i++ * data->size() / count;
            return PictureSource{.name = data->picture_name(picture),
                                 .label = numbers[static_cast<std::size_t>(data->label(picture))],
                                 .decode = [=] { return data->image(picture); }};
          },
          count};
}

}  // namespace weft::cli
