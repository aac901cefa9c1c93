// The connection matrix of a layer and what it is like: the three properties by which Han et al. ("On the Connection
// between Local Attention and Dynamic Depth-wise Convolution", ICLR 2022, arXiv:2106.04263) tell layers apart, and
// rank.
//
// A layer that mixes positions is, at a given picture, a linear map y_{t,c} = Σ_{s,d} W_{(t,c),(s,d)} · x_{s,d} of
// positions s and channels d. Everything here is measured on the map itself, whatever it is:
//   - connections between channels: with noise in some channels only, is there anything in others? Channels are split
//   by
//     each bit of their number, both ways, so that any connection of two is seen;
//   - channels that share their weights: with the same noise in all, are results the same? (Freivalds' test, for two
//     draws of noise);
//   - the weights themselves: column s is what becomes of a 1 at position s. Where channels are not connected all carry
//     one at a time, and groups of channels with the same weights as many positions as they have channels;
//   - whether weights depend on the picture: with the same noise, is the result the same at another picture?
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "connect/axes.h"
#include "connect/linear_map.h"
#include "weft/tensor.h"

namespace weft {

/// Two weights are the same when they differ by less than this share of their channel's largest, beside rounding errors
/// of biases: kernels make weights within 1e-5 of themselves (their tests say why), so that the same one made twice may
/// differ by twice that.
inline constexpr double kSameWeight = 2e-5;

/// A weight below this share of the largest result of noise is none: a sum of doubles does not notice it. (A mask of
/// −100 before a softmax leaves 4e-44.)
inline constexpr double kNoWeight = 0x1p-52;

/// How far connections lead, in rows and columns of the input's grid, from where the output is.
struct Reach {
  std::int64_t up = 0, down = 0, left = 0, right = 0;
};

/// The matrix of one output channel, for one input channel where channels are connected.
struct KeptMatrix {
  int channel = 0;
  int source = 0;
  Tensor weights;  // f32 [output positions, input positions]
};

struct Connection {
  std::string kind;
  std::string place;
  std::int64_t outputs = 0;   // positions
  std::int64_t inputs = 0;    // positions
  std::int64_t channels = 0;  // of the output
  std::optional<Grid> output_grid, input_grid;
  /// Why nothing below was measured; empty where it was.
  std::string skipped;

  /// Sparse connectivity. The share of pairs of positions without a connection, mean over channels.
  double unconnected = 0;
  std::optional<Reach> reach;  // where there are grids
  bool crosses_channels = false;

  /// Low rank: the largest of the kept matrices', and of their quarter of the first half of the outputs and the second
  /// of the inputs, which is small where a short state can carry all that goes from one half to the other. Nothing for
  /// matrices too large to tell.
  std::optional<std::int64_t> rank, half_rank;

  /// Weight sharing. Over all offsets (dy, dx) the largest difference of two weights of one channel at one offset, as a
  /// share of the channel's largest weight; nothing where offsets mean nothing.
  std::optional<double> spread;
  bool shares_positions = false;  // no difference but rounding
  /// How many different matrices the channels have; where channels are connected, those from one input channel.
  std::int64_t distinct = 0;
  bool shares_channels = false;  // fewer than there are channels that have one

  /// Dynamic weights: the largest change of a result of noise at the other picture, as a share of the largest result.
  double change = 0;

  std::vector<KeptMatrix> kept;

  bool composed() const { return kind.find(',') != std::string::npos; }
  bool sparse() const { return unconnected > 0; }
  /// At most half of what it could be: that a few are missing says little.
  bool low_rank() const { return rank && 2 * *rank <= std::min(inputs, outputs); }
  bool dynamic() const { return change > kSameWeight; }
};

struct MeasureOptions {
  /// Of which output channels matrices are kept; none: four evenly spaced ones of those that differ.
  std::vector<int> channels = {};
  /// Bytes that the matrices and tables of one layer may take, and multiply-accumulates that evaluating it may take.
  std::int64_t max_bytes = std::int64_t{1} << 30;
  std::int64_t max_macs = 2'000'000'000'000;
};

/// What `measure` needs to know of a layer beside the map.
struct Ends {
  ElementIndex from, to;
  std::optional<Grid> from_grid, to_grid;
};

/// `here` and `elsewhere` are one layer at two inputs. A layer that would pass the limits comes back with `skipped`.
Connection measure(LinearMap& here, LinearMap& elsewhere, const Ends& ends, const MeasureOptions& options,
                   const Workers& workers);

}  // namespace weft
