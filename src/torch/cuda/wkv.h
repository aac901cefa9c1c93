// Bi-WKV and its gradient (ops/bi_wkv/bi_wkv.h, bi_wkv_grad.h) as programs of blocks of threads.
//
// A thread has a tile of up to kTile tokens of one channel of one batch entry (a column). Its tokens stay in registers.
// A block has 32 columns side by side and, in its rows, neighbouring tiles: together a chunk of tokens. Sums go from
// tile to tile within a block, and from chunk to chunk through memory:
//
//   forward   summarize  each chunk's sums of e^k·v and e^k                reads k, v
//             carry      the same of all chunks before and behind each
//             outputs    y                                                 reads k, v; writes y
//
//   backward  summarize, carry   as before, with derivatives with respect to w
//             summarize_gradients   each chunk's sums of g and h, its share of gw and gu     reads k, v, gy
//             carry              over these
//             gradients          gk and gv                                 reads k, v, gy; writes gk, gv
//             reduce             gw and gu, over the batch and the chunks
//
// Tiles do not cross the borders of runs (Wkv::kReleasedKernel). Every sum is taken in an order that depends on nothing
// but the shape.
#pragma once

#include "torch/cuda/sums.h"

namespace weft::cuda {

constexpr int kTile = 8;

/// How T tokens are cut: into runs, these into tiles, and tiles are gathered in chunks.
struct Tiling {
  int tokens, run;
  int tile, tiles_per_run, tiles;
  int tiles_per_chunk, chunks;

  /// `run` is T for Wkv::kPaper. T from 1 to 2^24.
  static Tiling make(int tokens, int run, int rows, int largest_tile = kTile) {
    Tiling t{};
    t.tokens = tokens;
    t.run = run;
    t.tiles_per_run = ceil_div(run, largest_tile);
    t.tile = ceil_div(run, t.tiles_per_run);
    const int whole_runs = (tokens - 1) / run;
    t.tiles = whole_runs * t.tiles_per_run + ceil_div(tokens - whole_runs * run, t.tile);
    t.chunks = ceil_div(t.tiles, rows);
    t.tiles_per_chunk = ceil_div(t.tiles, t.chunks);
    t.chunks = ceil_div(t.tiles, t.tiles_per_chunk);
    return t;
  }
};

WEFT_ON_DEVICE int at_most(int a, int b) { return a < b ? a : b; }

/// The border before a tile: its run, its place there, and its first token.
struct Edge {
  int run, tile, token;
};
/// Divides only where there are several runs.
template <bool kRuns>
WEFT_ON_DEVICE Edge edge(const Tiling& t, int i) {
  i = at_most(i, t.tiles);
  const int run = kRuns ? i / t.tiles_per_run : 0;
  const int tile = i - run * t.tiles_per_run;
  return {run, tile, at_most(run * t.run + tile * t.tile, t.tokens)};
}

/// What lies between two edges, to be gone over forwards or backwards. Backwards a run is entered at its last tile; at
/// the last one of all nothing is behind it.
template <bool kBackwards>
WEFT_ON_DEVICE Stretch stretch(const Edge& begin, const Edge& end) {
  const int first_run = begin.run + (begin.tile > 0 ? 1 : 0);  // that begins at `begin` or later
  const bool begins_run = first_run < end.run || (first_run == end.run && end.tile > 0);
  return {end.token - begin.token, kBackwards ? begin.run < end.run : begins_run};
}

/// Rows of a block. Twice as wide numbers, half as many rows: what a block shares must fit into 48 KiB.
template <class Real>
constexpr int kWkvRows = sizeof(Real) == 4 ? 8 : 4;

/// What all programs read and write. Of the chunks' sums there is one for each chunk and column, chunk by chunk.
template <class E, bool kReleasedKernel, int kSumParts, int kStoredParts = kSumParts>
struct Wkv {
  using Element = E;
  using Real = typename RealOf<E>::type;
  static constexpr bool kReleased = kReleasedKernel;
  static constexpr int kParts = kSumParts;  // 4 where derivatives are wanted
  static constexpr int kRows = kWkvRows<Real>;
  using Item = Sum<Real, kParts>;
  using Up = Scan<Real, kParts, kReleased>;  // of tokens, forwards
  using Down = Scan<Real, kParts, false>;    // of tokens, backwards
  using Gradient = Sum<Real, 2>;
  using GradientUp = Scan<Real, 2, false>;
  using GradientDown = Scan<Real, 2, kReleased>;
  struct Share {  // of gw and gu
    Real w, u;
  };

  Tiling tiling;
  int columns, channels;           // B·C, C
  bool bonus_has_decay;            // the bonus is u + w: the released kernel where every run is one token
  Buffer<const Element> k, v, gy;  // [B,T,C]
  Buffer<const Real> w, u;         // [C]
  Buffer<Element> y, gk, gv;       // [B,T,C]
  Buffer<Real> gw, gu;             // [C]
  Buffer<Scan<Real, kStoredParts, kReleased>> up;
  Buffer<Scan<Real, kStoredParts, false>> down;
  Buffer<GradientUp> gradient_up;
  Buffer<GradientDown> gradient_down;
  Buffer<Share> shares;
};

// ---- what a thread does by itself ----

/// 1 − e^w = sign·e^exponent
template <class Real>
struct RestFactor {
  Real sign, exponent;

  explicit WEFT_ON_DEVICE RestFactor(Real w)
      : sign(w > 0   ? Real(-1)
             : w < 0 ? Real(1)
                     : Real(0)),
        exponent(w > 0   ? w + std::log(-std::expm1(-w))
                 : w < 0 ? std::log(-std::expm1(w))
                         : kLowest<Real>) {}

  template <int kParts>
  WEFT_ON_DEVICE Sum<Real, kParts> operator*(Sum<Real, kParts> sum) const {
    for (int i = 0; i < kParts; ++i) sum.part[i] *= sign;
    sum.x += exponent;
    return sum;
  }
};

/// The column of a thread. Those past the last one do the work of the last and keep the results to themselves.
template <class P>
struct Column {
  using Real = typename P::Real;
  int index, channel;
  bool exists;
  std::int64_t first;  // its element of token 0
  Real w, bonus;

  WEFT_ON_DEVICE Column(const P& p, int block, Thread thread) {
    index = block * kLanes + thread.lane;
    exists = index < p.columns;
    if (!exists) index = p.columns - 1;
    channel = index % p.channels;
    first = static_cast<std::int64_t>(index / p.channels) * p.tiling.tokens * p.channels + channel;
    w = p.w[channel];
    bonus = p.u[channel] + (p.bonus_has_decay ? w : Real(0));
  }

  WEFT_ON_DEVICE std::int64_t element(const P& p, int token) const {
    return first + static_cast<std::int64_t>(token) * p.channels;
  }
  WEFT_ON_DEVICE std::int64_t sum_of(const P& p, int chunk) const {
    return static_cast<std::int64_t>(chunk) * p.columns + index;
  }
};

/// The tile of a thread; count is 0 in rows that have none.
template <class P>
struct Tile {
  using Real = typename P::Real;
  using Item = typename P::Item;
  int begin, count;
  Stretch up, down;
  Real k[kTile], v[kTile];

  static WEFT_ON_DEVICE int index(const P& p, int chunk, int row) {
    const int t = p.tiling.tiles_per_chunk;
    return chunk * t + (row < t ? row : t);
  }

  WEFT_ON_DEVICE void load(const P& p, const Column<P>& column, int chunk, int row) {
    const Edge first = edge<P::kReleased>(p.tiling, index(p, chunk, row));
    const Edge last = edge<P::kReleased>(p.tiling, index(p, chunk, row + 1));
    up = stretch<false>(first, last);
    down = stretch<true>(first, last);
    begin = first.token;
    count = up.tokens;
    WEFT_UNROLL(kTile)
    for (int j = 0; j < kTile; ++j) {
      if (j >= count) continue;
      const std::int64_t i = column.element(p, begin + j);
      k[j] = widen(p.k[i]);
      v[j] = widen(p.v[i]);
    }
  }

  WEFT_ON_DEVICE Item item(int j) const { return Item::of(v[j], 1, k[j]); }
  /// The first token of a run is no part of its rest.
  WEFT_ON_DEVICE bool starts_run(int j) const { return j == 0 && up.enters_run; }

  WEFT_ON_DEVICE typename P::Up sum_up(Real w) const {
    typename P::Up scan = P::Up::empty();
    WEFT_UNROLL(kTile)
    for (int j = 0; j < kTile; ++j) {
      if (j >= count) continue;
      if (!starts_run(j)) scan.take_rest(item(j), w);
      scan.pass(item(j), w);
    }
    return scan;
  }

  WEFT_ON_DEVICE typename P::Down sum_down(Real w) const {
    typename P::Down scan = P::Down::empty();
    WEFT_UNROLL(kTile)
    for (int j = kTile - 1; j >= 0; --j) {
      if (j < count) scan.pass(item(j), w);
    }
    return scan;
  }
};

/// A token's weighted mean: its numerator and denominator as n·e^{x − age·w} and d·e^{x − age·w}, and of what they are
/// made.
template <class P>
struct Mean {
  using Real = typename P::Real;
  using Item = typename P::Item;
  Real n, d, x, age;
  Real of_others, of_own;  // the factors of the other tokens' sum and of the token itself
  Item others;

  WEFT_ON_DEVICE Mean(const Item& sum, Real own, Real v, Real w) : others(sum) {
    const Real difference = multiply_add(-sum.age, w, sum.x - own);
    const bool sum_leads = difference > 0;
    const Real e = exp_of(-std::fabs(difference));
    of_others = sum_leads ? Real(1) : e;
    of_own = sum_leads ? e : Real(1);
    n = multiply_add(of_others, sum.part[0], of_own * v);
    d = multiply_add(of_others, sum.part[1], of_own);
    x = sum_leads ? sum.x : own;
    age = sum_leads ? sum.age : Real(0);
  }
};

/// Sums behind each token of a tile, kept while the sums before them are built up.
template <class P>
struct Behind {
  using Real = typename P::Real;
  using Item = typename P::Item;
  Item sum[kTile];

  WEFT_ON_DEVICE Behind(const Tile<P>& tile, typename P::Down scan, Real w) {
    WEFT_UNROLL(kTile)
    for (int j = kTile - 1; j >= 0; --j) {
      if (j >= tile.count) continue;
      sum[j] = P::kReleased ? scan.run.aged(1) : scan.run;
      scan.pass(tile.item(j), w);
    }
  }
};

/// Calls visit(j, mean, scan) for each token of a tile, first to last, with its mean and the sums before it.
template <class P, class Visit>
WEFT_ON_DEVICE void for_each_mean(const Tile<P>& tile, const Column<P>& column, typename P::Up before,
                                  const typename P::Down& behind_tile, Visit visit) {
  using Real = typename P::Real;
  const Real w = column.w;
  const Behind<P> behind(tile, behind_tile, w);
  const RestFactor<Real> rest_factor(P::kReleased ? w : Real(0));
  if (tile.up.enters_run) before.enter_run(w);
  WEFT_UNROLL(kTile)
  for (int j = 0; j < kTile; ++j) {
    if (j >= tile.count) continue;
    if (!tile.starts_run(j)) before.take_rest(tile.item(j), w);
    auto others = total(before.run, behind.sum[j], w);
    if constexpr (P::kReleased) {
      others = total(others, before.before, w);
      others = total(others, rest_factor * before.rest, w);
    }
    visit(j, Mean<P>(others, tile.k[j] + column.bonus, tile.v[j], w), before);
    before.pass(tile.item(j), w);
  }
}

// ---- from tile to tile, and from chunk to chunk ----

/// What lies between two edges that follow each other in the direction of a scan.
template <bool kBackwards>
WEFT_ON_DEVICE Stretch between(const Edge& from, const Edge& to) {
  return kBackwards ? stretch<true>(to, from) : stretch<false>(from, to);
}

/// Each row's sum becomes the sum of all that comes before it in this direction, beginning with `start`. Returns the
/// sum of all. The i-th row in this direction is row_of(i), and lies between edge_at(i) and edge_at(i + 1).
template <bool kBackwards, int kRows, class Sums, class RowOf, class EdgeAt>
WEFT_ON_DEVICE Sums accumulate(PerThread<Sums, kRows>& rows, const Sums& start, int lane, typename Sums::Item::Number w,
                               RowOf row_of, EdgeAt edge_at) {
  Sums sum = start;
  Edge from = edge_at(0);
  for (int i = 0; i < kRows; ++i) {
    const Edge to = edge_at(i + 1);
    Sums& here = rows[Thread{lane, row_of(i)}];
    const Sums all = joined(sum, here, between<kBackwards>(from, to), w);
    here = sum;
    sum = all;
    from = to;
  }
  return sum;
}

/// The same over the tiles of a chunk.
template <bool kBackwards, class P, class Sums>
WEFT_ON_DEVICE Sums accumulate_tiles(const P& p, PerThread<Sums, P::kRows>& rows, const Sums& sum, int chunk, int lane,
                                     typename P::Real w) {
  return accumulate<kBackwards>(
      rows, sum, lane, w, [](int i) { return kBackwards ? P::kRows - 1 - i : i; },
      [&](int i) { return edge<P::kReleased>(p.tiling, Tile<P>::index(p, chunk, kBackwards ? P::kRows - i : i)); });
}

// ---- programs: run(block, p, x, y, shared) for x below blocks_x(p) and y below blocks_y(p) ----

/// A program over the columns and the chunks.
template <class P>
struct OverChunks {
  static constexpr int kRows = P::kRows;
  static constexpr int kResident = 2;  // blocks that a multiprocessor is to hold: they share its 65536 registers
  static int blocks_x(const P& p) { return ceil_div(p.columns, kLanes); }
  static int blocks_y(const P& p) { return p.tiling.chunks; }
};

template <class P>
struct TileSums {
  PerThread<typename P::Up, P::kRows> up;
  PerThread<typename P::Down, P::kRows> down;

  WEFT_ON_DEVICE void set(const Tile<P>& tile, Thread thread, typename P::Real w) {
    up[thread] = tile.sum_up(w);
    down[thread] = tile.sum_down(w);
  }
};

template <class P>
struct Summarize : OverChunks<P> {
  using Shared = TileSums<P>;

  template <class Block>
  static WEFT_ON_DEVICE void run(const Block& block, const P& p, int column_block, int chunk, Shared& shared) {
    block.each([&](Thread thread) {
      const Column<P> column(p, column_block, thread);
      Tile<P> tile;
      tile.load(p, column, chunk, thread.row);
      shared.set(tile, thread, column.w);
    });
    block.each([&](Thread thread) {
      const Column<P> column(p, column_block, thread);
      if (!column.exists) return;
      const std::int64_t i = column.sum_of(p, chunk);
      if (thread.row == 0) {
        p.up[i] = accumulate_tiles<false>(p, shared.up, P::Up::empty(), chunk, thread.lane, column.w);
      }
      if (thread.row == P::kRows - 1) {
        p.down[i] = accumulate_tiles<true>(p, shared.down, P::Down::empty(), chunk, thread.lane, column.w);
      }
    });
  }
};

/// Each chunk's sum becomes the sum of all chunks before it in one direction.
template <bool kBackwards, class Block, class P, class Sums, int kRows>
WEFT_ON_DEVICE void carry(const Block& block, const P& p, const Buffer<Sums>& sums, int column_block,
                          PerThread<Sums, kRows>& shared) {
  constexpr int kBatch = 4;  // so many are read before the first is used
  // A row takes some neighbouring chunks, here counted in the direction of the scan.
  const int chunks = p.tiling.chunks;
  const int share = (chunks + kRows - 1) / kRows;
  const auto first = [&](int row) { return at_most(row * share, chunks); };
  const auto edge_at = [&](int i) {
    return edge<P::kReleased>(p.tiling, (kBackwards ? chunks - i : i) * p.tiling.tiles_per_chunk);
  };
  const auto place = [&](const Column<P>& column, int i) -> Sums& {
    return sums[column.sum_of(p, kBackwards ? chunks - 1 - i : i)];
  };
  // Calls visit(place, sum before it) for the chunks of a row.
  const auto go = [&](const Column<P>& column, int row, const Sums& start, auto visit) {
    Sums sum = start;
    const int end = first(row + 1);
    Edge from = edge_at(first(row));
    for (int i = first(row); i < end; i += kBatch) {
      Sums batch[kBatch];
      WEFT_UNROLL(kBatch)
      for (int j = 0; j < kBatch; ++j) {
        if (i + j < end) batch[j] = place(column, i + j);
      }
      WEFT_UNROLL(kBatch)
      for (int j = 0; j < kBatch; ++j) {
        if (i + j >= end) continue;
        visit(place(column, i + j), sum);
        const Edge to = edge_at(i + j + 1);
        sum = joined(sum, batch[j], between<kBackwards>(from, to), column.w);
        from = to;
      }
    }
    return sum;
  };
  block.each([&](Thread thread) {
    const Column<P> column(p, column_block, thread);
    shared[thread] = go(column, thread.row, Sums::empty(), [](Sums&, const Sums&) {});
  });
  block.each([&](Thread thread) {
    if (thread.row != 0) return;
    const Column<P> column(p, column_block, thread);
    accumulate<kBackwards>(
        shared, Sums::empty(), thread.lane, column.w, [](int i) { return i; },
        [&](int i) { return edge_at(first(i)); });
  });
  block.each([&](Thread thread) {
    const Column<P> column(p, column_block, thread);
    if (!column.exists) return;
    go(column, thread.row, shared[thread], [](Sums& here, const Sums& sum) { here = sum; });
  });
}

/// Over the columns, y the direction.
template <class P>
struct OverDirections : OverChunks<P> {
  static constexpr int kRows = P::kReleased && sizeof(typename P::Real) == 8 ? 8 : 16;
  static constexpr int kResident = 1;
  static int blocks_y(const P&) { return 2; }
};

template <class P>
struct CarrySums : OverDirections<P> {
  union Shared {
    PerThread<typename P::Up, OverDirections<P>::kRows> up;
    PerThread<typename P::Down, OverDirections<P>::kRows> down;
  };

  template <class Block>
  static WEFT_ON_DEVICE void run(const Block& block, const P& p, int column_block, int backwards, Shared& shared) {
    if (backwards) {
      carry<true>(block, p, p.down, column_block, shared.down);
    } else {
      carry<false>(block, p, p.up, column_block, shared.up);
    }
  }
};

/// From the sums of a block's tiles to those before and behind each of them, given those of the chunks.
template <class Block, class P>
WEFT_ON_DEVICE void spread(const Block& block, const P& p, int column_block, int chunk, TileSums<P>& shared) {
  block.each([&](Thread thread) {
    const Column<P> column(p, column_block, thread);
    const std::int64_t i = column.sum_of(p, chunk);
    const bool alone = p.tiling.chunks == 1;
    if (thread.row == 0) {
      const auto before = alone ? P::Up::empty() : p.up[i].template with_parts<P::kParts>();
      accumulate_tiles<false>(p, shared.up, before, chunk, thread.lane, column.w);
    }
    if (thread.row == P::kRows - 1) {
      const auto behind = alone ? P::Down::empty() : p.down[i].template with_parts<P::kParts>();
      accumulate_tiles<true>(p, shared.down, behind, chunk, thread.lane, column.w);
    }
  });
}

template <class P>
struct Outputs : OverChunks<P> {
  using Shared = TileSums<P>;

  template <class Block>
  static WEFT_ON_DEVICE void run(const Block& block, const P& p, int column_block, int chunk, Shared& shared) {
    Own<Tile<P>, P::kRows> tiles;
    block.each([&](Thread thread) {
      const Column<P> column(p, column_block, thread);
      tiles[thread].load(p, column, chunk, thread.row);
      shared.set(tiles[thread], thread, column.w);
    });
    spread(block, p, column_block, chunk, shared);
    block.each([&](Thread thread) {
      const Column<P> column(p, column_block, thread);
      const Tile<P>& tile = tiles[thread];
      for_each_mean(tile, column, shared.up[thread], shared.down[thread],
                    [&](int j, const Mean<P>& mean, const typename P::Up&) {
                      if (!column.exists) return;
                      p.y[column.element(p, tile.begin + j)] = Narrow<typename P::Element>::from(mean.n / mean.d);
                    });
    });
  }
};

}  // namespace weft::cuda
