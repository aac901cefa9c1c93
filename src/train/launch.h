// How a process learns that it is one of several: from the environment that those who start them set.
#pragma once

#include <functional>

#include "torch/processes.h"

namespace weft {

struct Launch {
  Meeting meeting;      // rank 0 of 1: alone
  int local_rank = 0;   // among the processes of this machine: which CUDA device it takes
  int local_world = 1;  // processes of this machine, as far as known
  /// One share of this machine's cores, ≥ 1.
  int threads() const;
};

/// A variable of the environment; null when it is not set.
using LookUp = std::function<const char*(const char* name)>;

/// torchrun's RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE; Open MPI's OMPI_COMM_WORLD_…; PMI_RANK and PMI_SIZE
/// (MPICH, Intel MPI); Slurm's SLURM_PROCID of a step (srun): the first of them that is there. They meet at MASTER_ADDR
/// and MASTER_PORT (29500); without MASTER_ADDR on the first host of a step of Slurm's, or on this machine when all
/// processes are there. Throws ConfigError for an environment that is half set or contradicts itself.
Launch read_launch(const LookUp& variable);

/// The first host of a list of Slurm's: "gpu[07-09,12],login" is gpu07.
std::string first_host(std::string_view list);

}  // namespace weft
