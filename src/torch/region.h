// Parts of a graph that run fused, tile by tile, forward and backward: one autograd function each.
#pragma once

#include <torch/torch.h>

#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "torch/tile_program.h"

namespace weft::torch_engine {

/// A region and its programs, one for each set of inputs that want gradients, made when first wanted. f32 on the CPU.
class Region {
 public:
  /// `graph` must outlive this. `shared` says of each value whether it is not of the batch.
  Region(const Graph& graph, RegionNodes nodes, std::vector<bool> shared, const TilePlan::Options& options,
         std::shared_ptr<const Workers> workers);

  std::span<const int> inputs() const { return nodes_.inputs; }
  std::span<const int> outputs() const { return nodes_.outputs; }

  /// Outputs from inputs. Recorded by autograd when that is on; can be differentiated once.
  std::vector<at::Tensor> forward(const std::vector<at::Tensor>& inputs) const;

 private:
  std::shared_ptr<const TilePlan> plan_for(std::vector<bool> wanted) const;

  const Graph& graph_;
  RegionNodes nodes_;
  std::vector<bool> shared_;
  TilePlan::Options options_;
  std::shared_ptr<const Workers> workers_;
  mutable std::mutex mutex_;
  mutable std::map<std::vector<bool>, std::shared_ptr<const TilePlan>> plans_;
};

/// What is done in a row.
struct Stage {
  std::vector<const Graph::Node*> nodes;  // one that has no tile op, or a region's
  bool is_region = false;
};

/// `nodes`, in an order in which each comes after those that it reads, those with tile ops gathered into regions.
std::vector<Stage> find_regions(const Graph& graph, std::span<const Graph::Node* const> nodes,
                                const std::vector<bool>& shared, std::int64_t batch);

/// The region's inputs and outputs, given by value how many nodes read it, an output of the graph counting as one.
RegionNodes make_region(std::vector<const Graph::Node*> nodes, std::span<const int> uses);

/// Of each value whether it depends on parameters and constants only.
std::vector<bool> find_shared(const Graph& graph);

}  // namespace weft::torch_engine
