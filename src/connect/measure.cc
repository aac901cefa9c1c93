#include "connect/measure.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <utility>

#include "connect/rank.h"
#include "core/format.h"

namespace weft {
namespace {

constexpr int kKept = 4;     // matrices, unless told otherwise
constexpr int kSources = 2;  // input channels that are looked at where channels are connected
constexpr int kDraws = 2;    // of noise
constexpr std::int64_t kMaxRankSide = 2048;

float largest_of(std::span<const float> values) {
  float largest = 0;
  for (const float value : values) largest = std::max(largest, std::abs(value));
  return largest;
}

// Channels that are evaluated together: all, or what comes from one source.
struct Family {
  std::optional<std::int64_t> source;
  std::vector<std::vector<std::int64_t>> groups;  // of output channels with the same matrix
  std::int64_t connected = 0;                     // output channels in them
  std::int64_t together = 1;                      // columns that one evaluation gives

  std::int64_t evaluations(std::int64_t positions) const { return (positions + together - 1) / together; }
};

// Offsets between an output position and an input position on the picture.
class Offsets {
 public:
  // Nothing to tell where there are no grids or one is not a multiple of the other.
  Offsets(const std::optional<Grid>& from, const std::optional<Grid>& to) {
    if (!from || !to || to->height == 0 || to->width == 0) return;
    if (from->height % to->height != 0 || from->width % to->width != 0) return;
    from_ = *from;
    to_ = *to;
    step_y_ = from_.height / to_.height;
    step_x_ = from_.width / to_.width;
    known_ = true;
  }

  struct Offset {
    std::int64_t y, x;
  };

  bool known() const { return known_; }
  std::int64_t count() const { return rows() * columns(); }
  bool placed(std::int64_t input, std::int64_t output) const { return input >= from_.prefix && output >= to_.prefix; }
  Offset operator()(std::int64_t input, std::int64_t output) const {
    input -= from_.prefix;
    output -= to_.prefix;
    return {input / from_.width - output / to_.width * step_y_, input % from_.width - output % to_.width * step_x_};
  }
  std::size_t number(Offset offset) const {
    const std::int64_t y = offset.y + (to_.height - 1) * step_y_;
    const std::int64_t x = offset.x + (to_.width - 1) * step_x_;
    return static_cast<std::size_t>(y * columns() + x);
  }

 private:
  std::int64_t rows() const { return from_.height + (to_.height - 1) * step_y_; }
  std::int64_t columns() const { return from_.width + (to_.width - 1) * step_x_; }

  Grid from_, to_;
  std::int64_t step_y_ = 0, step_x_ = 0;
  bool known_ = false;
};

// What is gathered about one group's matrix, column by column.
struct Sums {
  std::int64_t channel = 0;
  double nothing = 0;  // no connection at or below this
  std::int64_t unconnected = 0;
  float largest = 0;
  Reach reach;
  std::vector<float> least, most;  // weight at each offset
  std::optional<Tensor> kept;      // [outputs, inputs]
};

class Measurer {
 public:
  Measurer(LinearMap& here, LinearMap& elsewhere, const Ends& ends, const MeasureOptions& options,
           const Workers& workers)
      : here_(here),
        elsewhere_(elsewhere),
        from_(ends.from),
        to_(ends.to),
        options_(options),
        workers_(workers),
        offsets_(ends.from_grid, ends.to_grid) {
    result_.outputs = to_.positions();
    result_.inputs = from_.positions();
    result_.channels = to_.channels();
    result_.output_grid = ends.to_grid;
    result_.input_grid = ends.from_grid;
  }

  Connection run() {
    draw_noise();
    result_.crosses_channels = from_.channels() != to_.channels() || crosses();
    for (const std::optional<std::int64_t> source : sources()) families_.push_back(family_of(source));
    choose_kept();
    result_.skipped = objection();
    if (!result_.skipped.empty()) return std::move(result_);
    double unconnected = 0, spread = 0;
    std::int64_t matrices = 0;
    bool first = true;
    for (const Family& family : families_) {
      for (const Sums& sums : columns_of(family, std::exchange(first, false))) {
        unconnected += static_cast<double>(sums.unconnected);
        ++matrices;
        extend(sums.reach);
        spread = std::max(spread, spread_of(sums));
      }
    }
    const auto pairs = static_cast<double>(matrices * result_.inputs * result_.outputs);
    result_.unconnected = pairs > 0 ? unconnected / pairs : 1;
    if (offsets_.known()) {
      result_.spread = spread;
      result_.shares_positions = spread <= kSameWeight;
    } else {
      result_.reach.reset();
    }
    measure_ranks();
    return std::move(result_);
  }

 private:
  using Results = std::vector<std::vector<float>>;  // of each draw of noise

  // A matrix to keep: of a group of the first family, asked for by one of its channels.
  struct Chosen {
    std::size_t group;
    std::int64_t channel;
  };

  void draw_noise() {
    std::mt19937_64 random(1);
    noise_.resize(kDraws);
    for (std::vector<float>& noise : noise_) {
      for (std::int64_t p = 0; p < from_.positions(); ++p) {
        noise.push_back(static_cast<float>(static_cast<double>(random() >> 11) * 0x1p-52 - 1));  // −1 … 1
      }
    }
  }

  // The same noise in all channels that `in` holds for.
  template <class In>
  std::vector<float> apply_noise(LinearMap& map, const std::vector<float>& noise, const In& in) const {
    std::vector<float> x(map.inputs()), y(map.outputs());
    for (std::int64_t c = 0; c < from_.channels(); ++c) {
      if (!in(c)) continue;
      for (std::int64_t p = 0; p < from_.positions(); ++p) {
        x[static_cast<std::size_t>(from_.position[static_cast<std::size_t>(p)] +
                                   from_.channel[static_cast<std::size_t>(c)])] = noise[static_cast<std::size_t>(p)];
      }
    }
    map.apply(x, y);
    return y;
  }

  float result_at(std::span<const float> y, std::int64_t position, std::int64_t channel) const {
    return y[static_cast<std::size_t>(to_.position[static_cast<std::size_t>(position)] +
                                      to_.channel[static_cast<std::size_t>(channel)])];
  }

  std::vector<float> results_of(const Results& results, std::int64_t channel) const {
    std::vector<float> row;
    for (const std::vector<float>& y : results) {
      for (std::int64_t p = 0; p < to_.positions(); ++p) row.push_back(result_at(y, p, channel));
    }
    return row;
  }

  // Whether something in a channel comes out in another. Any two channels differ in some bit of their numbers.
  bool crosses() const {
    const int bits = std::bit_width(static_cast<std::uint64_t>(std::max<std::int64_t>(from_.channels() - 1, 0)));
    for (int bit = 0; bit < bits; ++bit) {
      for (const std::int64_t side : {0, 1}) {
        const auto in = [&](std::int64_t c) { return ((c >> bit) & 1) == side; };
        const std::vector<float> y = apply_noise(here_, noise_[0], in);
        const double nothing = kNoWeight * largest_of(y);
        for (std::int64_t c = 0; c < to_.channels(); ++c) {
          for (std::int64_t p = 0; p < to_.positions() && !in(c); ++p) {
            if (std::abs(result_at(y, p, c)) > nothing) return true;
          }
        }
      }
    }
    return false;
  }

  std::vector<std::optional<std::int64_t>> sources() const {
    if (!result_.crosses_channels) return {std::nullopt};
    std::vector<std::optional<std::int64_t>> sources;
    const std::int64_t count = std::min<std::int64_t>(kSources, from_.channels());
    for (std::int64_t i = 0; i < count; ++i) sources.emplace_back(from_.channels() * (2 * i + 1) / (2 * count));
    return sources;
  }

  // Groups the channels, and compares with the other picture on the way.
  Family family_of(std::optional<std::int64_t> source) {
    Results results;
    for (const std::vector<float>& noise : noise_) {
      const auto in = [&](std::int64_t c) { return !source || c == *source; };
      results.push_back(apply_noise(here_, noise, in));
      const std::vector<float> other = apply_noise(elsewhere_, noise, in);
      float difference = 0;
      for (std::size_t i = 0; i < other.size(); ++i) {
        difference = std::max(difference, std::abs(other[i] - results.back()[i]));
      }
      const float largest = std::max(largest_of(results.back()), largest_of(other));
      if (largest > 0) result_.change = std::max(result_.change, double{difference} / double{largest});
      noise_scale_ = std::max(noise_scale_, largest);
    }
    Family family{.source = source, .groups = {}};
    std::vector<std::vector<float>> first_of;  // of each group
    for (std::int64_t c = 0; c < to_.channels(); ++c) {
      std::vector<float> row = results_of(results, c);
      const float largest = largest_of(row);
      if (source && largest <= kNoWeight * noise_scale_) continue;  // not connected with this source
      ++family.connected;
      const auto same = std::ranges::find_if(first_of, [&](const std::vector<float>& other) {
        const double bound = kSameWeight * largest + rounding();
        return std::ranges::equal(row, other, [&](float a, float b) { return std::abs(a - b) <= bound; });
      });
      if (same == first_of.end()) {
        family.groups.push_back({c});
        first_of.push_back(std::move(row));
      } else {
        family.groups[static_cast<std::size_t>(same - first_of.begin())].push_back(c);
      }
    }
    const auto distinct = static_cast<std::int64_t>(family.groups.size());
    result_.distinct = std::max(result_.distinct, distinct);
    result_.shares_channels = result_.shares_channels || distinct < family.connected;
    if (!source) {
      family.together = from_.positions();
      for (const auto& group : family.groups) {
        family.together = std::min(family.together, static_cast<std::int64_t>(group.size()));
      }
    }
    return family;
  }

  // Of f(x) − f(0) where the two are much larger than their difference.
  double rounding() const { return 0x1p-22 * here_.offset(); }

  void choose_kept() {
    const auto& groups = families_[0].groups;
    for (const int channel : options_.channels) {
      require<ConfigError>(channel >= 0 && channel < to_.channels(), "connect",
                           "there is no channel {}: channels are 0 … {}", channel, to_.channels() - 1);
      for (std::size_t g = 0; g < groups.size(); ++g) {
        if (std::ranges::find(groups[g], channel) != groups[g].end()) kept_.push_back({g, channel});
      }
    }
    if (!options_.channels.empty()) return;
    const std::size_t count = std::min<std::size_t>(kKept, groups.size());
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t g = groups.size() * i / count;
      kept_.push_back({g, groups[g][0]});
    }
  }

  // Why this would take too much.
  std::string objection() const {
    const double elements = static_cast<double>(result_.inputs) * static_cast<double>(result_.outputs);
    const double matrices =
        elements * (sizeof(float) * static_cast<double>(kept_.size()) + (rankable() ? sizeof(double) : 0));
    const double table = 2 * sizeof(float) * (offsets_.known() ? static_cast<double>(offsets_.count()) : 0);
    double tables = 0, macs = 0;
    for (const Family& family : families_) {
      tables = std::max(tables, table * static_cast<double>(family.groups.size()));
      macs += static_cast<double>(family.evaluations(result_.inputs)) * static_cast<double>(here_.macs());
    }
    const double bytes = matrices + tables;
    if (bytes > static_cast<double>(options_.max_bytes)) {
      return fmt::format("{} × {} positions would take {:.1f} GiB, more than {:.1f}", result_.outputs, result_.inputs,
                         bytes * 0x1p-30, static_cast<double>(options_.max_bytes) * 0x1p-30);
    }
    if (macs > static_cast<double>(options_.max_macs)) {
      return fmt::format("{} × {} positions would take {:.1f} T multiply-accumulates, more than {:.1f} T",
                         result_.outputs, result_.inputs, macs * 1e-12, static_cast<double>(options_.max_macs) * 1e-12);
    }
    return "";
  }

  bool rankable() const { return std::max(result_.inputs, result_.outputs) <= kMaxRankSide; }

  std::vector<Sums> start(const Family& family, bool keep) {
    std::vector<Sums> all(family.groups.size());
    for (std::size_t g = 0; g < all.size(); ++g) {
      all[g].channel = family.groups[g][0];
      all[g].nothing = kNoWeight * noise_scale_;
      if (!offsets_.known()) continue;
      all[g].least.assign(static_cast<std::size_t>(offsets_.count()), std::numeric_limits<float>::infinity());
      all[g].most.assign(static_cast<std::size_t>(offsets_.count()), -std::numeric_limits<float>::infinity());
    }
    if (!keep) return all;
    result_.kept.resize(kept_.size());
    for (std::size_t k = 0; k < kept_.size(); ++k) {
      Sums& sums = all[kept_[k].group];
      if (!sums.kept) sums.kept.emplace(DType::kF32, Shape{result_.outputs, result_.inputs});
      result_.kept[k] = {.channel = static_cast<int>(kept_[k].channel),
                         .source = static_cast<int>(family.source.value_or(kept_[k].channel)),
                         .weights = *sums.kept};
    }
    return all;
  }

  std::vector<Sums> columns_of(const Family& family, bool keep) {
    std::vector<Sums> all = start(family, keep);
    std::vector<float> x(here_.inputs()), y(here_.outputs());
    for (std::int64_t first = 0; first < result_.inputs; first += family.together) {
      const std::int64_t count = std::min(family.together, result_.inputs - first);
      const auto set = [&](float value) {
        const auto at = [&](std::int64_t p, std::int64_t c) {
          x[static_cast<std::size_t>(from_.position[static_cast<std::size_t>(p)] +
                                     from_.channel[static_cast<std::size_t>(c)])] = value;
        };
        if (family.source) return at(first, *family.source);
        for (const auto& group : family.groups) {
          for (std::int64_t i = 0; i < count; ++i) at(first + i, group[static_cast<std::size_t>(i)]);
        }
      };
      set(1);
      here_.apply(x, y);
      set(0);
      workers_.parallel_for(static_cast<std::int64_t>(all.size()), 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t g = begin; g < end; ++g) {
          const auto& group = family.groups[static_cast<std::size_t>(g)];
          for (std::int64_t i = 0; i < count; ++i) {
            add_column(all[static_cast<std::size_t>(g)], first + i, y, group[static_cast<std::size_t>(i)]);
          }
        }
      });
    }
    return all;
  }

  void add_column(Sums& sums, std::int64_t input, std::span<const float> y, std::int64_t channel) const {
    for (std::int64_t output = 0; output < result_.outputs; ++output) {
      const float weight = result_at(y, output, channel);
      const bool connected = std::abs(weight) > sums.nothing;
      sums.largest = std::max(sums.largest, std::abs(weight));
      if (!connected) ++sums.unconnected;
      if (offsets_.known() && offsets_.placed(input, output)) {
        const Offsets::Offset offset = offsets_(input, output);
        const std::size_t number = offsets_.number(offset);
        sums.least[number] = std::min(sums.least[number], weight);
        sums.most[number] = std::max(sums.most[number], weight);
        if (connected) {
          sums.reach.up = std::max(sums.reach.up, -offset.y);
          sums.reach.down = std::max(sums.reach.down, offset.y);
          sums.reach.left = std::max(sums.reach.left, -offset.x);
          sums.reach.right = std::max(sums.reach.right, offset.x);
        }
      }
      if (sums.kept)
        sums.kept->mutable_data<float>()[static_cast<std::size_t>(output * result_.inputs + input)] = weight;
    }
  }

  void extend(const Reach& reach) {
    if (!result_.reach) result_.reach.emplace();
    result_.reach->up = std::max(result_.reach->up, reach.up);
    result_.reach->down = std::max(result_.reach->down, reach.down);
    result_.reach->left = std::max(result_.reach->left, reach.left);
    result_.reach->right = std::max(result_.reach->right, reach.right);
  }

  // Differences that rounding of biases explains do not count.
  double spread_of(const Sums& sums) const {
    if (sums.largest == 0) return 0;
    double spread = 0;
    for (std::size_t i = 0; i < sums.least.size(); ++i) {
      if (sums.most[i] >= sums.least[i]) spread = std::max(spread, double{sums.most[i]} - double{sums.least[i]});
    }
    return std::max(0.0, spread - rounding()) / double{sums.largest};
  }

  void measure_ranks() {
    if (!rankable()) return;
    const auto rank = [&](const Tensor& weights, std::int64_t rows, std::int64_t first_column) {
      std::vector<double> columns;
      for (std::int64_t j = first_column; j < result_.inputs; ++j) {
        for (std::int64_t i = 0; i < rows; ++i) {
          columns.push_back(weights.data<float>()[static_cast<std::size_t>(i * result_.inputs + j)]);
        }
      }
      return numerical_rank(std::move(columns), rows, workers_);
    };
    for (const KeptMatrix& kept : result_.kept) {
      result_.rank = std::max(result_.rank.value_or(0), rank(kept.weights, result_.outputs, 0));
      result_.half_rank =
          std::max(result_.half_rank.value_or(0), rank(kept.weights, result_.outputs / 2, result_.inputs / 2));
    }
  }

  LinearMap& here_;
  LinearMap& elsewhere_;
  const ElementIndex& from_;
  const ElementIndex& to_;
  const MeasureOptions& options_;
  const Workers& workers_;
  Offsets offsets_;
  Connection result_;
  std::vector<std::vector<float>> noise_;
  float noise_scale_ = 0;
  std::vector<Family> families_;
  std::vector<Chosen> kept_;
};

}  // namespace

Connection measure(LinearMap& here, LinearMap& elsewhere, const Ends& ends, const MeasureOptions& options,
                   const Workers& workers) {
  return Measurer(here, elsewhere, ends, options, workers).run();
}

}  // namespace weft
