// The shift of tokens (ops/q_shift/q_shift.h) and what is mixed of it, forwards and backwards, as programs of blocks of
// threads. A block has 32 channels side by side; each of its rows takes some neighbouring tokens.
//
// With s the shifted x: y_m = x·mix_m + s·(1 − mix_m), so that
//   gx     Σ_m mix_m·gy_m + Σ_m (1 − mix_m)·gy_m, the latter of the token that this one was shifted to
//   gmix_m Σ over tokens and batch of gy_m·(x − s)
#pragma once

#include "torch/cuda/device.h"

namespace weft::cuda {

template <class E, int kCount>
struct Shift {
  using Element = E;
  using Real = typename RealOf<E>::type;
  static constexpr int kMixes = kCount;  // 0: nothing but the shift
  static constexpr int kResults = kCount == 0 ? 1 : kCount;
  static constexpr int kRows = 8;
  static constexpr int kTokensPerRow = 8;
  static constexpr int kTokensPerBlock = kRows * kTokensPerRow;
  struct Share {  // of gmix
    Real mix[kResults];
  };

  int height, width, pixels, channels;
  std::int64_t tokens;  // of all batch entries
  std::int64_t cuts[5];
  Buffer<const Element> x, gy[kResults];  // [B,T,C]
  Buffer<const Real> mix[kResults];       // [C]
  Buffer<Element> y[kResults], gx;        // [B,T,C]
  Buffer<Real> gmix[kResults];            // [C]
  Buffer<Share> shares;                   // [blocks_y,C]
};

template <class P>
struct OverTokens {
  static constexpr int kRows = P::kRows;
  static constexpr int kResident = 2;
  static int blocks_x(const P& p) { return ceil_div(p.channels, kLanes); }
  static int blocks_y(const P& p) { return static_cast<int>(ceil_div<std::int64_t>(p.tokens, P::kTokensPerBlock)); }
};

/// Where a channel's tokens come from: `rows` further down, `columns` further right.
struct Origin {
  int rows, columns;

  template <class P>
  WEFT_ON_DEVICE Origin(const P& p, int channel) : rows(0), columns(0) {
    if (channel < p.cuts[1]) {
      columns = -p.pixels;
    } else if (channel < p.cuts[2]) {
      columns = p.pixels;
    } else if (channel < p.cuts[3]) {
      rows = -p.pixels;
    } else if (channel < p.cuts[4]) {
      rows = p.pixels;
    }
  }
};

/// Goes over the tokens of a thread.
template <class P>
struct Walk {
  std::int64_t token, end;
  int row, column;

  WEFT_ON_DEVICE Walk(const P& p, int block, int thread_row) {
    token = static_cast<std::int64_t>(block) * P::kTokensPerBlock + thread_row * P::kTokensPerRow;
    end = token + P::kTokensPerRow < p.tokens ? token + P::kTokensPerRow : p.tokens;
    const int in_entry = static_cast<int>(token % (static_cast<std::int64_t>(p.height) * p.width));
    row = in_entry / p.width;
    column = in_entry % p.width;
  }

  WEFT_ON_DEVICE bool more() const { return token < end; }
  WEFT_ON_DEVICE void next(const P& p) {
    ++token;
    if (++column < p.width) return;
    column = 0;
    if (++row == p.height) row = 0;
  }
  WEFT_ON_DEVICE std::int64_t element(const P& p, int channel) const { return token * p.channels + channel; }

  /// What is that many rows and columns away; zero outside of the picture.
  WEFT_ON_DEVICE typename P::Real at(const P& p, const Buffer<const typename P::Element>& x, int channel, int rows,
                                     int columns) const {
    const int r = row + rows, c = column + columns;
    if (r < 0 || r >= p.height || c < 0 || c >= p.width) return 0;
    return widen(x[(token + static_cast<std::int64_t>(rows) * p.width + columns) * p.channels + channel]);
  }
};

template <class P>
struct ShiftAndMix : OverTokens<P> {
  struct Shared {};

  template <class Block>
  static WEFT_ON_DEVICE void run(const Block& block, const P& p, int channel_block, int token_block, Shared&) {
    block.each([&](Thread thread) {
      using Real = typename P::Real;
      const int channel = channel_block * kLanes + thread.lane;
      if (channel >= p.channels) return;
      const Origin from(p, channel);
      Real mix[P::kResults];
      for (int m = 0; m < P::kMixes; ++m) mix[m] = p.mix[m][channel];
      for (Walk<P> at(p, token_block, thread.row); at.more(); at.next(p)) {
        const std::int64_t i = at.element(p, channel);
        const Real shifted = at.at(p, p.x, channel, from.rows, from.columns);
        if constexpr (P::kMixes == 0) {
          p.y[0][i] = Narrow<typename P::Element>::from(shifted);
        } else {
          const Real x = widen(p.x[i]);
          for (int m = 0; m < P::kMixes; ++m) {
            p.y[m][i] = Narrow<typename P::Element>::from(multiply_add(x, mix[m], shifted * (1 - mix[m])));
          }
        }
      }
    });
  }
};

template <class P>
struct ShiftGradients : OverTokens<P> {
  using Share = typename P::Share;
  using Shared = PerThread<Share, P::kRows>;

  template <class Block>
  static WEFT_ON_DEVICE void run(const Block& block, const P& p, int channel_block, int token_block, Shared& shared) {
    block.each([&](Thread thread) {
      using Real = typename P::Real;
      const int channel = channel_block * kLanes + thread.lane;
      if (channel >= p.channels) return;
      const Origin from(p, channel);
      Real mix[P::kMixes];
      Share share;
      for (int m = 0; m < P::kMixes; ++m) {
        mix[m] = p.mix[m][channel];
        share.mix[m] = 0;
      }
      for (Walk<P> at(p, token_block, thread.row); at.more(); at.next(p)) {
        const std::int64_t i = at.element(p, channel);
        const Real difference = widen(p.x[i]) - at.at(p, p.x, channel, from.rows, from.columns);
        Real gx = 0;
        for (int m = 0; m < P::kMixes; ++m) {
          const Real here = widen(p.gy[m][i]);
          const Real there = at.at(p, p.gy[m], channel, -from.rows, -from.columns);
          gx = multiply_add(mix[m], here, gx);
          gx = multiply_add(1 - mix[m], there, gx);
          share.mix[m] = multiply_add(here, difference, share.mix[m]);
        }
        p.gx[i] = Narrow<typename P::Element>::from(gx);
      }
      shared[thread] = share;
    });
    block.each([&](Thread thread) {
      const int channel = channel_block * kLanes + thread.lane;
      if (thread.row != 0 || channel >= p.channels) return;
      Share sum = shared[thread];
      for (int row = 1; row < P::kRows; ++row) {
        for (int m = 0; m < P::kMixes; ++m) sum.mix[m] += shared[Thread{thread.lane, row}].mix[m];
      }
      p.shares[static_cast<std::int64_t>(token_block) * p.channels + channel] = sum;
    });
  }
};

/// gmix: the sums over all blocks.
template <class P>
struct ShiftReduce {
  static constexpr int kRows = 32;
  static constexpr int kResident = 1;
  struct Sums {
    double mix[P::kMixes];
  };
  using Shared = PerThread<Sums, kRows>;
  static int blocks_x(const P& p) { return ceil_div(p.channels, kLanes); }
  static int blocks_y(const P&) { return 1; }

  template <class Block>
  static WEFT_ON_DEVICE void run(const Block& block, const P& p, int channel_block, int /*y*/, Shared& shared) {
    block.each([&](Thread thread) {
      const int channel = channel_block * kLanes + thread.lane;
      Sums sum;
      for (int m = 0; m < P::kMixes; ++m) sum.mix[m] = 0;
      const std::int64_t count = channel < p.channels ? p.shares.size / p.channels : 0;
      for (std::int64_t i = thread.row; i < count; i += kRows) {
        const typename P::Share share = p.shares[i * p.channels + channel];
        for (int m = 0; m < P::kMixes; ++m) sum.mix[m] += share.mix[m];
      }
      shared[thread] = sum;
    });
    block.each([&](Thread thread) {
      const int channel = channel_block * kLanes + thread.lane;
      if (thread.row != 0 || channel >= p.channels) return;
      for (int m = 0; m < P::kMixes; ++m) {
        double sum = 0;
        for (int row = 0; row < kRows; ++row) sum += shared[Thread{thread.lane, row}].mix[m];
        p.gmix[m][channel] = static_cast<typename P::Real>(sum);
      }
    });
  }
};

}  // namespace weft::cuda
