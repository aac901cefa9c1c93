// The programs of wkv.h's backward pass.
//
// With a token's mean n/d·e^{x − age·w} and the gradient gy of its result, g = gy/d and h = −g·n/d are the gradients of
// numerator and denominator, up to e^{age·w − x}. gv and gk are sums of these, with the weights of the forward pass
// from the other side; gw is the sum of g and h times the numerator's and denominator's derivatives.
#pragma once

#include "torch/cuda/wkv.h"

namespace weft::cuda {

/// What the backward pass takes from a token's mean.
template <class P>
struct TokenGradient {
  using Real = typename P::Real;
  Real g, h, x, age;  // (g, h)·e^{x − age·w}
  Real own;           // g·e^{u+k}
  Real by_bonus;  // g·e^{u+k}·(v − y), of which the token itself is no part: precise where it outweighs the others
  Real by_w;

  WEFT_ON_DEVICE void set(const Mean<P>& mean, const typename P::Up& before, Real v, Real gy, Real w) {
    const Real inverse = Real(1) / mean.d;
    const Real y = mean.n * inverse;
    g = gy * inverse;
    h = -g * y;
    x = -mean.x;
    age = -mean.age;
    own = g * mean.of_own;
    const auto& part = mean.others.part;
    by_bonus = own * mean.of_others * inverse * multiply_add(v, part[1], -part[0]);
    if constexpr (P::kParts == 4) {
      by_w = g * mean.of_others * multiply_add(-y, part[3], part[2]);
      if constexpr (P::kReleased) {  // of the 1 − e^w before the rest
        const auto& rest = before.rest;
        const Real e = exp_of(multiply_add(1 - rest.age - age, w, rest.x + x));
        by_w -= e * multiply_add(g, rest.part[0], h * rest.part[1]);
      }
    }
  }

  WEFT_ON_DEVICE typename P::Gradient item() const {
    typename P::Gradient sum = P::Gradient::of(g, h, x);
    sum.age = age;
    return sum;
  }
};

template <class P>
struct TileGradients {
  using Real = typename P::Real;
  TokenGradient<P> token[kTile];

  WEFT_ON_DEVICE void set(const P& p, const Tile<P>& tile, const Column<P>& column, const typename P::Up& before,
                          const typename P::Down& behind) {
    Real gy[kTile];
    WEFT_UNROLL(kTile)
    for (int j = 0; j < kTile; ++j) {
      if (j < tile.count) gy[j] = widen(p.gy[column.element(p, tile.begin + j)]);
    }
    for_each_mean(tile, column, before, behind, [&](int j, const Mean<P>& mean, const typename P::Up& scan) {
      token[j].set(mean, scan, tile.v[j], gy[j], column.w);
    });
  }

  WEFT_ON_DEVICE typename P::GradientUp sum_up(int count, Real w) const {
    typename P::GradientUp scan = P::GradientUp::empty();
    WEFT_UNROLL(kTile)
    for (int j = 0; j < kTile; ++j) {
      if (j < count) scan.pass(token[j].item(), w);
    }
    return scan;
  }

  WEFT_ON_DEVICE typename P::GradientDown sum_down(int count, Real w) const {
    typename P::GradientDown scan = P::GradientDown::empty();
    WEFT_UNROLL(kTile)
    for (int j = kTile - 1; j >= 0; --j) {
      if (j >= count) continue;
      scan.take_rest(token[j].item(), w);
      scan.pass(token[j].item(), w);
    }
    return scan;
  }
};

template <class P>
struct GradientSums {
  PerThread<typename P::GradientUp, P::kRows> up;
  PerThread<typename P::GradientDown, P::kRows> down;

  WEFT_ON_DEVICE void set(const TileGradients<P>& gradients, int count, Thread thread, typename P::Real w) {
    up[thread] = gradients.sum_up(count, w);
    down[thread] = gradients.sum_down(count, w);
  }
};

template <class P>
struct SummarizeGradients : OverChunks<P> {
  using Share = typename P::Share;
  struct Shared {
    TileSums<P> sums;
    GradientSums<P> gradients;
    PerThread<Share, P::kRows> shares;
  };

  template <class Block>
  static WEFT_ON_DEVICE void run(const Block& block, const P& p, int column_block, int chunk, Shared& shared) {
    Own<Tile<P>, P::kRows> tiles;
    block.each([&](Thread thread) {
      const Column<P> column(p, column_block, thread);
      tiles[thread].load(p, column, chunk, thread.row);
      shared.sums.set(tiles[thread], thread, column.w);
    });
    spread(block, p, column_block, chunk, shared.sums);
    block.each([&](Thread thread) {
      const Column<P> column(p, column_block, thread);
      const Tile<P>& tile = tiles[thread];
      TileGradients<P> gradients;
      gradients.set(p, tile, column, shared.sums.up[thread], shared.sums.down[thread]);
      Share share{0, 0};
      WEFT_UNROLL(kTile)
      for (int j = 0; j < kTile; ++j) {
        if (j >= tile.count) continue;
        share.w += gradients.token[j].by_w;
        share.u += gradients.token[j].by_bonus;
      }
      shared.shares[thread] = share;
      shared.gradients.set(gradients, tile.count, thread, column.w);
    });
    block.each([&](Thread thread) {
      const Column<P> column(p, column_block, thread);
      if (!column.exists) return;
      const std::int64_t i = column.sum_of(p, chunk);
      const bool alone = p.tiling.chunks == 1;
      if (thread.row == 0 && !alone) {
        p.gradient_up[i] =
            accumulate_tiles<false>(p, shared.gradients.up, P::GradientUp::empty(), chunk, thread.lane, column.w);
      }
      if (thread.row == P::kRows - 1 && !alone) {
        p.gradient_down[i] =
            accumulate_tiles<true>(p, shared.gradients.down, P::GradientDown::empty(), chunk, thread.lane, column.w);
      }
      if (thread.row == 1) {
        Share sum{0, 0};
        for (int row = 0; row < P::kRows; ++row) {
          const Share share = shared.shares[Thread{thread.lane, row}];
          sum.w += share.w;
          sum.u += share.u;
        }
        p.shares[i] = sum;
      }
    });
  }
};

template <class P>
struct CarryGradients : OverDirections<P> {
  union Shared {
    PerThread<typename P::GradientUp, OverDirections<P>::kRows> up;
    PerThread<typename P::GradientDown, OverDirections<P>::kRows> down;
  };

  template <class Block>
  static WEFT_ON_DEVICE void run(const Block& block, const P& p, int column_block, int backwards, Shared& shared) {
    if (backwards) {
      carry<true>(block, p, p.gradient_down, column_block, shared.down);
    } else {
      carry<false>(block, p, p.gradient_up, column_block, shared.up);
    }
  }
};

/// P has no derivatives: gw is done with.
template <class P>
struct Gradients : OverChunks<P> {
  using Real = typename P::Real;
  struct Shared {
    TileSums<P> sums;
    GradientSums<P> gradients;
  };
  /// gk and gv of a tile, up to what comes from tokens behind.
  struct Partial {
    Real gk[kTile], gv[kTile];
  };

  template <class Block>
  static WEFT_ON_DEVICE void run(const Block& block, const P& p, int column_block, int chunk, Shared& shared) {
    Own<Tile<P>, P::kRows> tiles;
    Own<TileGradients<P>, P::kRows> gradients;
    block.each([&](Thread thread) {
      const Column<P> column(p, column_block, thread);
      tiles[thread].load(p, column, chunk, thread.row);
      shared.sums.set(tiles[thread], thread, column.w);
    });
    spread(block, p, column_block, chunk, shared.sums);
    block.each([&](Thread thread) {
      const Column<P> column(p, column_block, thread);
      gradients[thread].set(p, tiles[thread], column, shared.sums.up[thread], shared.sums.down[thread]);
      shared.gradients.set(gradients[thread], tiles[thread].count, thread, column.w);
    });
    block.each([&](Thread thread) {
      const Column<P> column(p, column_block, thread);
      const std::int64_t i = column.sum_of(p, chunk);
      const bool alone = p.tiling.chunks == 1;
      if (thread.row == 0) {
        const auto before = alone ? P::GradientUp::empty() : typename P::GradientUp(p.gradient_up[i]);
        accumulate_tiles<false>(p, shared.gradients.up, before, chunk, thread.lane, column.w);
      }
      if (thread.row == P::kRows - 1) {
        const auto behind = alone ? P::GradientDown::empty() : typename P::GradientDown(p.gradient_down[i]);
        accumulate_tiles<true>(p, shared.gradients.down, behind, chunk, thread.lane, column.w);
      }
    });
    block.each([&](Thread thread) {
      const Column<P> column(p, column_block, thread);
      write(p, column, tiles[thread], gradients[thread], shared.gradients.up[thread], shared.gradients.down[thread]);
    });
  }

 private:
  /// gv and gk get e^k times a sum of gradients.
  static WEFT_ON_DEVICE void add(const typename P::Gradient& sum, Real k, Real v, Real w, Real& gv, Real& gk) {
    const Real e = exp_of(multiply_add(-sum.age, w, sum.x + k));
    gv = multiply_add(e, sum.part[0], gv);
    gk = multiply_add(e, multiply_add(v, sum.part[0], sum.part[1]), gk);
  }

  static WEFT_ON_DEVICE void write(const P& p, const Column<P>& column, const Tile<P>& tile,
                                   const TileGradients<P>& gradients, typename P::GradientUp before,
                                   typename P::GradientDown behind) {
    const Real w = column.w;
    Partial partial;
    WEFT_UNROLL(kTile)
    for (int j = 0; j < kTile; ++j) {
      if (j >= tile.count) continue;
      const TokenGradient<P>& token = gradients.token[j];
      partial.gv[j] = token.own;
      partial.gk[j] = token.by_bonus;
      add(P::kReleased ? before.run.aged(1) : before.run, tile.k[j], tile.v[j], w, partial.gv[j], partial.gk[j]);
      before.pass(token.item(), w);
    }
    const RestFactor<Real> rest_factor(P::kReleased ? w : Real(0));
    if (tile.down.enters_run) behind.enter_run(w);
    WEFT_UNROLL(kTile)
    for (int j = kTile - 1; j >= 0; --j) {
      if (j >= tile.count) continue;
      const typename P::Gradient item = gradients.token[j].item();
      auto sum = behind.run;
      if constexpr (P::kReleased) {
        behind.take_rest(item, w);
        sum = total(sum, behind.before, w);
        if (!tile.starts_run(j)) sum = total(sum, rest_factor * behind.rest, w);
      }
      Real gv = partial.gv[j], gk = partial.gk[j];
      add(sum, tile.k[j], tile.v[j], w, gv, gk);
      if (column.exists) {
        const std::int64_t i = column.element(p, tile.begin + j);
        p.gv[i] = Narrow<typename P::Element>::from(gv);
        p.gk[i] = Narrow<typename P::Element>::from(gk);
      }
      behind.pass(item, w);
    }
  }
};

/// gw and gu: the sums over batch entries and chunks.
template <class P>
struct Reduce {
  static constexpr int kRows = 32;
  static constexpr int kResident = 1;
  struct Sums {
    double w, u;
  };
  using Shared = PerThread<Sums, kRows>;
  static int blocks_x(const P& p) { return ceil_div(p.channels, kLanes); }
  static int blocks_y(const P&) { return 1; }

  template <class Block>
  static WEFT_ON_DEVICE void run(const Block& block, const P& p, int channel_block, int /*y*/, Shared& shared) {
    block.each([&](Thread thread) {
      const int channel = channel_block * kLanes + thread.lane;
      Sums sum{0, 0};
      const std::int64_t count = channel < p.channels ? p.shares.size / p.channels : 0;  // for each channel
      for (std::int64_t i = thread.row; i < count; i += kRows) {
        const typename P::Share share = p.shares[i * p.channels + channel];
        sum.w += share.w;
        sum.u += share.u;
      }
      shared[thread] = sum;
    });
    block.each([&](Thread thread) {
      const int channel = channel_block * kLanes + thread.lane;
      if (thread.row != 0 || channel >= p.channels) return;
      Sums sum{0, 0};
      for (int row = 0; row < kRows; ++row) {
        sum.w += shared[Thread{thread.lane, row}].w;
        sum.u += shared[Thread{thread.lane, row}].u;
      }
      p.gw[channel] = static_cast<typename P::Real>(p.bonus_has_decay ? sum.w + sum.u : sum.w);
      p.gu[channel] = static_cast<typename P::Real>(sum.u);
    });
  }
};

}  // namespace weft::cuda
