#include "data/loader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <numeric>
#include <set>

#include "data/testing/pictures.h"
#include "io/testing/files.h"

namespace weft {
namespace {

using testing::NoiseDataset;
using testing::refuses;

const Preprocess kSmall{.resize = 0, .crop = 8, .mean = {125, 120, 110}, .std = {60, 61, 62}};
const Augment kVaried{.crop = Crop::kPad,
                      .padding = 2,
                      .hflip = 0.5,
                      .ra_ops = 2,
                      .reprob = 0.25,
                      .mixup = 0.8,
                      .cutmix = 1,
                      .smoothing = 0.1};

struct Flat {
  std::vector<float> images, targets;
  std::vector<int> labels;
  std::int64_t epoch = 0, step = 0;
  bool operator==(const Flat&) const = default;
};

Flat flat(const TrainBatch& batch) {
  const auto images = batch.images.data<float>();
  const auto targets = batch.targets.data<float>();
  return {{images.begin(), images.end()}, {targets.begin(), targets.end()}, batch.labels, batch.epoch, batch.step};
}

std::vector<Flat> take(Loader& loader, int count) {
  std::vector<Flat> batches;
  for (int i = 0; i < count; ++i) batches.push_back(flat(loader.next()));
  return batches;
}

TEST(Loader, DoesNotDependOnTheNumberOfWorkers) {
  const auto data = std::make_shared<NoiseDataset>(50, 7, 8);
  LoaderOptions options{.preprocess = kSmall, .augment = kVaried, .seed = 3, .batch = 12, .workers = 0};
  Loader alone(data, options);
  EXPECT_EQ(alone.steps_per_epoch(), 4);
  const std::vector<Flat> expected = take(alone, 10);
  for (const int workers : {1, 3}) {
    for (const int prefetch : {1, 5}) {
      options.workers = workers;
      options.prefetch = prefetch;
      Loader loader(data, options);
      EXPECT_EQ(take(loader, 10), expected) << workers << " workers";
    }
  }
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(expected[static_cast<std::size_t>(i)].epoch, i / 4);
    EXPECT_EQ(expected[static_cast<std::size_t>(i)].step, i % 4);
  }
  options.seed = 4;
  Loader other(data, options);
  EXPECT_NE(take(other, 1)[0].images, expected[0].images);
}

TEST(Loader, ContinuesFromAnyPlaceAsIfNeverInterrupted) {
  const auto data = std::make_shared<NoiseDataset>(50, 7, 8);
  const LoaderOptions options{.preprocess = kSmall, .augment = kVaried, .batch = 12, .workers = 2};
  Loader straight(data, options);
  const std::vector<Flat> expected = take(straight, 10);
  for (const std::int64_t begin : {1, 3, 4, 7}) {
    Loader resumed(data, options, begin / 4, begin % 4);
    EXPECT_EQ(take(resumed, 3), std::vector(expected.begin() + begin, expected.begin() + begin + 3));
  }
}

TEST(Loader, ProcessesShareAGlobalBatch) {
  const auto data = std::make_shared<NoiseDataset>(50, 7, 8);
  Loader one(data, {.preprocess = kSmall, .augment = kVaried, .batch = 12});
  const std::vector<Flat> expected = take(one, 6);
  for (const int world : {2, 3, 6}) {
    std::vector<Flat> joined(6);
    for (int rank = 0; rank < world; ++rank) {
      Loader part(data, {.preprocess = kSmall, .augment = kVaried, .batch = 12 / world, .rank = rank, .world = world});
      ASSERT_EQ(part.steps_per_epoch(), 4);
      for (Flat& whole : joined) {
        const Flat slice = flat(part.next());
        whole.images.insert(whole.images.end(), slice.images.begin(), slice.images.end());
        whole.targets.insert(whole.targets.end(), slice.targets.begin(), slice.targets.end());
        whole.labels.insert(whole.labels.end(), slice.labels.begin(), slice.labels.end());
        whole.epoch = slice.epoch;
        whole.step = slice.step;
      }
    }
    EXPECT_EQ(joined, expected) << world << " processes";
  }
}

// Which pictures a loader without augmentation shows, by their pixels.
std::vector<std::int64_t> pictures_of(const Flat& batch, const NoiseDataset& data) {
  std::vector<std::int64_t> found;
  const std::size_t size = 3 * 8 * 8;
  for (std::size_t i = 0; i < batch.labels.size(); ++i) {
    const auto begin = batch.images.begin() + static_cast<std::ptrdiff_t>(i * size);
    for (std::int64_t n = 0; n < data.size(); ++n) {
      const Image image = data.image(n);
      if (!std::ranges::equal(to_input(std::span(&image, 1), kSmall).data<float>(), std::span(begin, size))) continue;
      found.push_back(n);
      EXPECT_EQ(batch.labels[i], data.label(n));
      for (int c = 0; c < data.classes(); ++c) {
        EXPECT_EQ(batch.targets[i * static_cast<std::size_t>(data.classes()) + static_cast<std::size_t>(c)],
                  c == data.label(n) ? 1.0F : 0.0F);
      }
    }
  }
  return found;
}

TEST(Loader, ShowsEveryPictureOnceAnEpochInANewOrder) {
  const auto data = std::make_shared<NoiseDataset>(24, 5, 8);
  Loader loader(data, {.preprocess = kSmall, .batch = 6});
  std::vector<std::int64_t> orders[2];
  for (auto& order : orders) {
    for (const Flat& batch : take(loader, 4)) {
      for (const std::int64_t n : pictures_of(batch, *data)) order.push_back(n);
    }
    EXPECT_EQ(std::set<std::int64_t>(order.begin(), order.end()).size(), 24U);
  }
  EXPECT_NE(orders[0], orders[1]);
  EXPECT_FALSE(std::ranges::is_sorted(orders[0]));
}

TEST(Loader, NamesAPictureThatCannotBeRead) {
  const auto data = std::make_shared<NoiseDataset>(24, 5, 8, 7);
  for (const int workers : {0, 2}) {
    Loader loader(data, {.preprocess = kSmall, .batch = 6, .workers = workers});
    int failures = 0;
    for (int i = 0; i < 8; ++i) {
      try {
        loader.next();
      } catch (const IoError& error) {
        ++failures;
        EXPECT_EQ(std::string(error.what()), "[noise#7] [noise] a picture made to fail");
      }
    }
    EXPECT_EQ(failures, 2) << "once an epoch";
  }
}

class SlowDataset : public NoiseDataset {
 public:
  using NoiseDataset::NoiseDataset;
  Image image(std::int64_t i) const override {
    ++asked;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    return NoiseDataset::image(i);
  }
  mutable std::atomic<int> asked = 0;
};

TEST(Loader, EndsInTheMiddleOfItsWork) {
  const auto data = std::make_shared<SlowDataset>(4000, 5, 8);
  for (const bool wait : {false, true}) {
    data->asked = 0;
    {
      Loader loader(data, {.preprocess = kSmall, .batch = 2000, .workers = 3, .prefetch = 2});
      while (wait && data->asked < 3) std::this_thread::yield();
    }
    // A worker ends with the pair that it is at; a batch would be 2000 pictures.
    EXPECT_LT(data->asked, 500);
  }
}

TEST(Loader, WorksAheadNoFurtherThanAsked) {
  const auto data = std::make_shared<SlowDataset>(400, 5, 8);
  Loader loader(data, {.preprocess = kSmall, .batch = 4, .workers = 2, .prefetch = 3});
  while (data->asked < 12) std::this_thread::yield();
  std::this_thread::sleep_for(std::chrono::milliseconds(30));
  EXPECT_EQ(data->asked, 12);
  loader.next();
  while (data->asked < 16) std::this_thread::yield();
}

TEST(Loader, RefusesSenselessOptions) {
  const auto data = std::make_shared<NoiseDataset>(24, 5, 8);
  const auto open = [&](LoaderOptions options, std::int64_t epoch = 0, std::int64_t step = 0) {
    options.preprocess = kSmall;
    Loader(data, options, epoch, step);
  };
  EXPECT_TRUE(refuses([&] { open({.batch = 0}); }, "batch"));
  EXPECT_TRUE(refuses([&] { open({.batch = 25}); }, "24 pictures"));
  EXPECT_TRUE(refuses([&] { open({.batch = 13, .world = 2}); }, "24 pictures"));
  EXPECT_TRUE(refuses([&] { open({.batch = 6, .rank = 2, .world = 2}); }, "rank"));
  EXPECT_TRUE(refuses([&] { open({.batch = 6, .workers = -1}); }, "workers"));
  EXPECT_TRUE(refuses([&] { open({.batch = 6, .prefetch = 0}); }, "prefetch"));
  EXPECT_TRUE(refuses([&] { open({.augment = {.mixup = 1}, .batch = 5}); }, "even batch"));
  EXPECT_TRUE(refuses([&] { open({.augment = {.hflip = 2}, .batch = 6}); }, "hflip"));
  EXPECT_TRUE(refuses([&] { open({.batch = 6}, 0, 4); }, "step"));
  EXPECT_TRUE(refuses([&] { open({.batch = 6}, -1, 0); }, "epoch"));
}

TEST(EvalLoader, ShowsEveryPictureInOrder) {
  const auto data = std::make_shared<NoiseDataset>(23, 5, 8);
  for (const int workers : {0, 1, 3}) {
    EvalLoader loader(data, {.preprocess = kSmall, .batch = 5, .workers = workers});
    EXPECT_EQ(loader.size(), 23);
    std::int64_t n = 0;
    std::vector<std::int64_t> sizes;
    while (const auto batch = loader.next()) {
      sizes.push_back(batch->images.shape()[0]);
      std::vector<Image> images;
      for (const int label : batch->labels) {
        EXPECT_EQ(label, data->label(n));
        images.push_back(data->image(n++));
      }
      EXPECT_TRUE(std::ranges::equal(batch->images.data<float>(), to_input(images, kSmall).data<float>()));
    }
    EXPECT_EQ(sizes, (std::vector<std::int64_t>{5, 5, 5, 5, 3}));
    EXPECT_FALSE(loader.next().has_value());
  }
}

TEST(EvalLoader, SpreadsALimitAndSharesAmongProcesses) {
  const auto data = std::make_shared<NoiseDataset>(20, 20, 8);
  std::vector<int> labels;
  for (int rank = 0; rank < 3; ++rank) {
    EvalLoader loader(data, {.preprocess = kSmall, .batch = 2, .rank = rank, .world = 3, .limit = 10});
    while (const auto batch = loader.next()) labels.insert(labels.end(), batch->labels.begin(), batch->labels.end());
  }
  EXPECT_EQ(labels, (std::vector<int>{0, 2, 4, 6, 8, 10, 12, 14, 16, 18}));
  EvalLoader none(data, {.preprocess = kSmall, .rank = 0, .world = 3, .limit = 2});
  EXPECT_FALSE(none.next().has_value());
}

}  // namespace
}  // namespace weft
