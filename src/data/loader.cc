#include "data/loader.h"

#include <algorithm>
#include <numeric>
#include <string>

#include "core/format.h"
#include "data/mixing.h"
#include "data/prefetch.h"

namespace weft {
namespace {

constexpr std::string_view kLoaderPlace = "data::loader";
constexpr int kPair = 2;  // pictures made in one go: those that are mixed with each other

// What a stream of random numbers is for, so that no two are the same.
enum Purpose : std::uint64_t { kOrder, kPicture, kMixing };

using Order = std::vector<std::uint32_t>;

// Fisher and Yates' shuffle.
Order shuffled(std::int64_t size, std::uint64_t seed, std::int64_t epoch) {
  Order order(static_cast<std::size_t>(size));
  std::iota(order.begin(), order.end(), 0U);
  Random random({kOrder, seed, static_cast<std::uint64_t>(epoch)});
  for (std::size_t i = order.size(); i > 1; --i) {
    std::swap(order[i - 1], order[static_cast<std::size_t>(random.below(static_cast<std::int64_t>(i)))]);
  }
  return order;
}

// Parts of kPair pictures that make a batch.
int parts_of(std::int64_t pictures) { return static_cast<int>((pictures + kPair - 1) / kPair); }

// Errors of a picture say which one it was.
template <class Make>
void naming(const Dataset& data, std::int64_t picture, const Make& make) {
  try {
    make();
  } catch (const Error& error) {
    const std::string name = data.picture_name(picture);
    const std::string_view what = error.what();
    if (what.find(name) != std::string_view::npos) throw;
    fail<IoError>(name, "{}", what);
  }
}

std::span<float> picture_of(Tensor& images, std::int64_t i) {
  const std::int64_t pixels = images.elements() / images.shape()[0];
  return images.mutable_data<float>().subspan(static_cast<std::size_t>(i * pixels), static_cast<std::size_t>(pixels));
}

Tensor images_of(std::int64_t count, std::int64_t side) { return Tensor(DType::kF32, Shape({count, 3, side, side})); }

template <class Options>
void check_common(const Dataset& data, const Options& o) {
  require<ConfigError>(o.batch >= 1 && o.workers >= 0 && o.workers <= 1024 && o.prefetch >= 1 && o.prefetch <= 1024,
                       kLoaderPlace,
                       "expected batch ≥ 1, workers within 0 … 1024 and prefetch within 1 … 1024, got {}, {} and {}",
                       o.batch, o.workers, o.prefetch);
  require<ConfigError>(o.world >= 1 && o.rank >= 0 && o.rank < o.world, kLoaderPlace,
                       "expected a rank below the number of processes, got {} of {}", o.rank, o.world);
  require<ConfigError>(data.size() > 0 && data.size() <= std::int64_t{1} << 32, kLoaderPlace,
                       "{} has {} pictures, expected 1 … 2^32", data.name(), data.size());
}

}  // namespace

struct Loader::Impl {
  struct Item {
    TrainBatch batch;
    std::shared_ptr<const Order> order;
    std::int64_t first = 0;  // where its first picture stands in the order
    Mix mix;
  };

  Impl(std::shared_ptr<const Dataset> dataset, const LoaderOptions& o, std::int64_t epoch, std::int64_t step)
      : data((check(*dataset, o, epoch, step), std::move(dataset))),
        options(o),
        augmenter(o.augment, o.preprocess),
        steps(data->size() / (std::int64_t{o.batch} * o.world)),
        start(epoch * steps + step),
        batches(
            {.begin =
                 [this](std::int64_t n) { return std::optional(std::pair(begin(start + n), parts_of(options.batch))); },
             .make = [this](Item& item, int part) { make(item, part); }},
            o.workers, o.prefetch) {}

  static void check(const Dataset& data, const LoaderOptions& o, std::int64_t epoch, std::int64_t step) {
    check_common(data, o);
    const std::int64_t global = std::int64_t{o.batch} * o.world;
    require<ConfigError>(global <= data.size(), kLoaderPlace,
                         "{} has {} pictures, which do not fill one step of {} x {}; take a smaller batch", data.name(),
                         data.size(), o.world, o.batch);
    require<ConfigError>(o.batch % kPair == 0 || (o.augment.mixup == 0 && o.augment.cutmix == 0), kLoaderPlace,
                         "pictures are mixed in pairs: expected an even batch, got {}", o.batch);
    const std::int64_t steps = data.size() / global;
    require<ConfigError>(epoch >= 0 && epoch < std::int64_t{1} << 31 && step >= 0 && step < steps, kLoaderPlace,
                         "expected an epoch from 0 and a step within 0 … {}, got {} and {}", steps - 1, epoch, step);
  }

  // Batch number n of the whole training, called for one n after the other.
  Item begin(std::int64_t n) {
    const std::int64_t epoch = n / steps;
    const std::int64_t step = n % steps;
    if (!order || epoch != order_epoch) {
      order = std::make_shared<const Order>(shuffled(data->size(), options.seed, epoch));
      order_epoch = epoch;
    }
    const std::int64_t batch = options.batch;
    Random random({kMixing, options.seed, static_cast<std::uint64_t>(epoch), static_cast<std::uint64_t>(step)});
    return {.batch = {.images = images_of(batch, augmenter.side()),
                      .targets = Tensor(DType::kF32, Shape({batch, data->classes()})),
                      .labels = std::vector<int>(static_cast<std::size_t>(batch)),
                      .epoch = epoch,
                      .step = step},
            .order = order,
            .first = (step * options.world + options.rank) * batch,
            .mix = draw_mix(options.augment, augmenter.side(), random)};
  }

  void make(Item& item, int part) const {
    TrainBatch& batch = item.batch;
    const std::int64_t begin = std::int64_t{part} * kPair;
    const std::int64_t end = std::min<std::int64_t>(begin + kPair, options.batch);
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t position = item.first + i;
      const std::int64_t picture = (*item.order)[static_cast<std::size_t>(position)];
      naming(*data, picture, [&] {
        Random random(
            {kPicture, options.seed, static_cast<std::uint64_t>(batch.epoch), static_cast<std::uint64_t>(position)});
        augmenter.input(data->image(picture), random, picture_of(batch.images, i));
      });
      batch.labels[static_cast<std::size_t>(i)] = data->label(picture);
    }
    if (item.mix.lambda < 1)
      mix_pair(item.mix, augmenter.side(), picture_of(batch.images, begin), picture_of(batch.images, begin + 1));
    const auto classes = static_cast<std::size_t>(data->classes());
    for (std::int64_t i = begin; i < end; ++i) {
      const auto at = static_cast<std::size_t>(i);
      const int own = batch.labels[at];
      const int partner = item.mix.lambda < 1 ? batch.labels[at ^ 1U] : own;
      fill_target(batch.targets.mutable_data<float>().subspan(at * classes, classes), own, partner, item.mix.lambda,
                  options.augment.smoothing);
    }
  }

  std::shared_ptr<const Dataset> data;
  LoaderOptions options;
  Augmenter augmenter;
  std::int64_t steps;
  std::int64_t start;
  std::shared_ptr<const Order> order;  // of order_epoch
  std::int64_t order_epoch = -1;
  Prefetch<Item> batches;
};

Loader::Loader(std::shared_ptr<const Dataset> data, const LoaderOptions& options, std::int64_t epoch, std::int64_t step)
    : impl_(std::make_unique<Impl>(std::move(data), options, epoch, step)) {}
Loader::~Loader() = default;

std::int64_t Loader::steps_per_epoch() const { return impl_->steps; }

TrainBatch Loader::next() { return std::move(impl_->batches.next()->batch); }

struct EvalLoader::Impl {
  struct Item {
    EvalBatch batch;
    std::int64_t first = 0;
  };

  Impl(std::shared_ptr<const Dataset> dataset, const EvalOptions& o)
      : data((check_common(*dataset, o), std::move(dataset))),
        options(o),
        augmenter({}, o.preprocess),
        total(o.limit > 0 ? std::min(o.limit, data->size()) : data->size()),
        first(total * o.rank / o.world),
        size(total * (o.rank + 1) / o.world - first),
        batches({.begin = [this](std::int64_t n) { return begin(n); },
                 .make = [this](Item& item, int part) { make(item, part); }},
                o.workers, o.prefetch) {}

  std::optional<std::pair<Item, int>> begin(std::int64_t n) const {
    const std::int64_t at = n * options.batch;
    if (at >= size) return std::nullopt;
    const std::int64_t count = std::min<std::int64_t>(options.batch, size - at);
    return std::pair(Item{.batch = {.images = images_of(count, augmenter.side()),
                                    .labels = std::vector<int>(static_cast<std::size_t>(count))},
                          .first = first + at},
                     parts_of(count));
  }

  void make(Item& item, int part) const {
    EvalBatch& batch = item.batch;
    const std::int64_t begin = std::int64_t{part} * kPair;
    const std::int64_t end = std::min<std::int64_t>(begin + kPair, batch.images.shape()[0]);
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t picture = (item.first + i) * data->size() / total;
      naming(*data, picture, [&] {
        Random unused({});
        augmenter.input(data->image(picture), unused, picture_of(batch.images, i));
      });
      batch.labels[static_cast<std::size_t>(i)] = data->label(picture);
    }
  }

  std::shared_ptr<const Dataset> data;
  EvalOptions options;
  Augmenter augmenter;  // that varies nothing
  std::int64_t total;
  std::int64_t first;
  std::int64_t size;
  Prefetch<Item> batches;
};

EvalLoader::EvalLoader(std::shared_ptr<const Dataset> data, const EvalOptions& options)
    : impl_(std::make_unique<Impl>(std::move(data), options)) {}
EvalLoader::~EvalLoader() = default;

std::int64_t EvalLoader::size() const { return impl_->size; }

std::optional<EvalBatch> EvalLoader::next() {
  auto item = impl_->batches.next();
  if (!item) return std::nullopt;
  return std::move(item->batch);
}

}  // namespace weft
