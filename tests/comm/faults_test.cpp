// How a job ends when a rank does: statuses and messages of faulty_rank.cpp under mpirun.
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/wait.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>

#include "grist/comm/launch.h"
#include "support/temporary_folder.h"

namespace grist::comm {
namespace {

struct Outcome {
  int status = 0;  // 128 + n when a signal ended it
  std::string text;
};

Outcome run(const std::string& command) {
  const test::TemporaryFolder folder;
  const std::string file = (folder / "output").string();
  const int status = std::system((command + " > " + file + " 2>&1").c_str());
  std::ifstream in(file);
  Outcome outcome{WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status),
                  {std::istreambuf_iterator<char>(in), {}}};
  return outcome;
}

// mpirun's own limit has status 110.
Outcome ranks(int n, const std::string& way) {
  return run("env OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 " MPIRUN " -n " +
             std::to_string(n) + " --oversubscribe --timeout 30 " FAULTY_RANK " " + way);
}

struct Fault {
  const char* way;
  int status;
  const char* text;  // part of the output
};
void PrintTo(const Fault& f, std::ostream* stream) {
  *stream << f.way;
}

class Faults : public testing::TestWithParam<Fault> {};

TEST_P(Faults, EndTheJobWithTheStatusOfTheFirst) {
  const Outcome outcome = ranks(3, GetParam().way);
  EXPECT_EQ(outcome.status, GetParam().status) << outcome.text;
  EXPECT_NE(outcome.text.find(GetParam().text), std::string::npos) << outcome.text;
}

INSTANTIATE_TEST_SUITE_P(
    Ways, Faults,
    testing::Values(Fault{"none", 0, "3 ranks, all is well"}, Fault{"abort", 74, ""},
                    Fault{"kill", 137, ""}, Fault{"throw", 74, "error: disk full"},
                    Fault{"unwind", 74, "error: disk full"},
                    Fault{"agreed", 78, "error: rank 1: no such key"},
                    Fault{"short", 70, "error: rank 0 sends 4 bytes, 8 are expected"},
                    Fault{"long", 70, "error: rank 0 sends 8 bytes, 4 are expected"}));

TEST(Launching, WithoutALauncherIsOneRankAndNoMpi) {
  const Launch launch = connect();
  EXPECT_FALSE(launch.mpi);
  EXPECT_EQ(launch.world->size(), 1);
  EXPECT_EQ(launch.local_size, 1);
  EXPECT_EQ(launch.local_rank, 0);
  EXPECT_EQ(launch.cores, 0);
  const Outcome outcome = run(FAULTY_RANK);
  EXPECT_EQ(outcome.status, 0) << outcome.text;
  EXPECT_EQ(outcome.text, "1 ranks, all is well\n");
}

TEST(Launching, AnotherMpisLauncherIsNamed) {
  for (const char* environment :
       {"OMPI_COMM_WORLD_SIZE=4 OMPI_COMM_WORLD_RANK=0", "PMI_SIZE=4 PMI_RANK=0",
        "SLURM_STEP_NUM_TASKS=4 SLURM_PROCID=0"}) {
    const Outcome outcome = run(std::string("env ") + environment + " " FAULTY_RANK);
    EXPECT_EQ(outcome.status, 64) << environment << outcome.text;
    EXPECT_NE(outcome.text.find("has started 4 ranks, but Open MPI"), std::string::npos)
        << environment << outcome.text;
  }
  // A batch script of SLURM's, without srun.
  const Outcome batch = run("env SLURM_NTASKS=4 SLURM_PROCID=0 " FAULTY_RANK);
  EXPECT_EQ(batch.text, "1 ranks, all is well\n");
}

TEST(Abort, WithoutMpiEndsTheProcess) {
  EXPECT_EXIT(abort(ExitCode::peer_lost), testing::ExitedWithCode(76), "");
}

}  // namespace
}  // namespace grist::comm
