#include "train/launch.h"

#include <gtest/gtest.h>

#include <map>

#include "io/testing/files.h"

namespace weft {
namespace {

using testing::refuses;
using Variables = std::map<std::string, std::string>;

Launch launch_of(const Variables& variables) {
  return read_launch([&](const char* name) {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  });
}

struct Expected {
  int rank, world, local_rank, local_world;
  std::string host;
  int port = 29500;
};

void expect_launch(const Variables& variables, const Expected& expected) {
  const Launch launch = launch_of(variables);
  const std::string& what = variables.empty() ? "nothing" : variables.begin()->first;
  EXPECT_EQ(launch.meeting.rank, expected.rank) << what;
  EXPECT_EQ(launch.meeting.world, expected.world) << what;
  EXPECT_EQ(launch.local_rank, expected.local_rank) << what;
  EXPECT_EQ(launch.local_world, expected.local_world) << what;
  EXPECT_EQ(launch.meeting.host, expected.host) << what;
  EXPECT_EQ(launch.meeting.port, expected.port) << what;
}

TEST(Launch, ReadsWhatEachLauncherSets) {
  const Expected alone{0, 1, 0, 1, "127.0.0.1"};
  expect_launch({}, alone);
  expect_launch({{"RANK", ""}, {"LOCAL_RANK", "3"}}, alone);  // empty is as not set
  expect_launch({{"RANK", "0"}, {"WORLD_SIZE", "1"}}, alone);
  expect_launch({{"RANK", "5"},
                 {"WORLD_SIZE", "8"},
                 {"LOCAL_RANK", "1"},
                 {"LOCAL_WORLD_SIZE", "4"},
                 {"MASTER_ADDR", "node3"},
                 {"MASTER_PORT", "4711"}},
                {5, 8, 1, 4, "node3", 4711});
  // By hand, on one machine.
  expect_launch({{"RANK", "1"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "localhost"}}, {1, 2, 1, 2, "localhost"});
  expect_launch({{"RANK", "1"}, {"WORLD_SIZE", "2"}}, {1, 2, 1, 2, "127.0.0.1"});
  expect_launch({{"OMPI_COMM_WORLD_RANK", "2"},
                 {"OMPI_COMM_WORLD_SIZE", "3"},
                 {"OMPI_COMM_WORLD_LOCAL_RANK", "2"},
                 {"OMPI_COMM_WORLD_LOCAL_SIZE", "3"}},
                {2, 3, 2, 3, "127.0.0.1"});
  expect_launch({{"PMI_RANK", "1"},
                 {"PMI_SIZE", "2"},
                 {"MPI_LOCALRANKID", "0"},
                 {"MPI_LOCALNRANKS", "1"},
                 {"MASTER_ADDR", "10.0.0.1"}},
                {1, 2, 0, 1, "10.0.0.1"});
  const Variables slurm = {{"SLURM_PROCID", "3"},
                           {"SLURM_NTASKS", "4"},
                           {"SLURM_STEP_NUM_TASKS", "4"},
                           {"SLURM_LOCALID", "1"},
                           {"SLURM_STEP_NODELIST", "gpu[07-08]"}};
  expect_launch(slurm, {3, 4, 1, 1, "gpu07"});
  // A script under sbatch runs once, whatever the tasks of its steps to come.
  expect_launch({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "4"}, {"SLURM_LOCALID", "0"}}, alone);
  // torchrun in each of Slurm's tasks.
  Variables both = slurm;
  both.insert({{"RANK", "12"},
               {"WORLD_SIZE", "16"},
               {"LOCAL_RANK", "0"},
               {"LOCAL_WORLD_SIZE", "4"},
               {"MASTER_ADDR", "gpu07"},
               {"MASTER_PORT", "29400"}});
  expect_launch(both, {12, 16, 0, 4, "gpu07", 29400});
  // srun that speaks PMI.
  both = slurm;
  both.insert({{"PMI_RANK", "3"}, {"PMI_SIZE", "4"}});
  expect_launch(both, {3, 4, 0, 1, "gpu07"});
}

TEST(Launch, UsesTorchrunsOwnMeetingPlace) {
  Variables variables = {{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "a"}};
  EXPECT_FALSE(launch_of(variables).meeting.hosted);
  variables.insert({{"TORCHELASTIC_USE_AGENT_STORE", "True"}, {"TORCHELASTIC_RESTART_COUNT", "2"}});
  EXPECT_TRUE(launch_of(variables).meeting.hosted);
  EXPECT_EQ(launch_of(variables).meeting.prefix, "attempt_2/");
}

TEST(Launch, RefusesWhatIsHalfSetOrContradictsItself) {
  const auto refused = [](const Variables& variables, const char* part) {
    EXPECT_TRUE(refuses([&] { launch_of(variables); }, part)) << part;
  };
  refused({{"RANK", "0"}}, "RANK is set, but WORLD_SIZE is not");
  refused({{"WORLD_SIZE", "2"}}, "WORLD_SIZE is set, but RANK is not");
  refused({{"OMPI_COMM_WORLD_SIZE", "2"}}, "OMPI_COMM_WORLD_RANK is not");
  refused({{"SLURM_PROCID", "0"}, {"SLURM_STEP_NODELIST", "a"}}, "SLURM_NTASKS is not");
  refused({{"RANK", "2"}, {"WORLD_SIZE", "2"}}, "RANK=2 must be below WORLD_SIZE=2");
  refused({{"RANK", "-1"}, {"WORLD_SIZE", "2"}}, "got -1");
  refused({{"RANK", "1x"}, {"WORLD_SIZE", "2"}}, "got 1x");
  refused({{"RANK", "0"}, {"WORLD_SIZE", "0"}}, "WORLD_SIZE");
  refused({{"RANK", "1"}, {"WORLD_SIZE", "2"}, {"MASTER_PORT", "70000"}}, "MASTER_PORT");
  refused({{"RANK", "1"}, {"WORLD_SIZE", "4"}, {"LOCAL_RANK", "2"}, {"LOCAL_WORLD_SIZE", "2"}, {"MASTER_ADDR", "a"}},
          "LOCAL_RANK=2 must be below LOCAL_WORLD_SIZE=2");
  refused({{"RANK", "1"}, {"WORLD_SIZE", "4"}, {"LOCAL_RANK", "1"}, {"LOCAL_WORLD_SIZE", "2"}},
          "2 of 4 processes are on this machine: set MASTER_ADDR");
}

TEST(Launch, FindsTheFirstHostOfAList) {
  EXPECT_EQ(first_host("gpu07"), "gpu07");
  EXPECT_EQ(first_host("a,b"), "a");
  EXPECT_EQ(first_host("gpu[07-09,12],login"), "gpu07");
  EXPECT_EQ(first_host("gpu[3,5-9]"), "gpu3");
  EXPECT_EQ(first_host("rack[1-2]n[04-05].x,b"), "rack1n04.x");
  EXPECT_EQ(first_host("gpu[3"), "gpu");  // cut off: whatever, but no crash
  EXPECT_EQ(first_host("["), "");
  EXPECT_EQ(first_host(""), "");
}

TEST(Launch, SharesTheCores) {
  Launch launch;
  const int all = launch.threads();
  EXPECT_GE(all, 1);
  launch.local_world = 2;
  EXPECT_EQ(launch.threads(), std::max(all / 2, 1));
  launch.local_world = 100'000;
  EXPECT_EQ(launch.threads(), 1);
}

}  // namespace
}  // namespace weft
