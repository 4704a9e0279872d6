// main() of tests that run under mpirun. Rank 0 prints as usual, the others only their failures. An
// exception on one rank ends the job, because the others would wait for that rank for ever.
#include <gtest/gtest.h>

#include <cstdio>
#include <exception>
#include <optional>

#include "grist/core/context.h"
#include "support/mpi_ranks.h"

namespace grist::test {

namespace {

std::optional<comm::Launch> launch;

class FailuresOnly final : public ::testing::EmptyTestEventListener {
  void OnTestPartResult(const ::testing::TestPartResult& result) override {
    if (!result.failed()) return;
    std::fprintf(stderr, "rank %d: %s:%d: %s\n", world().rank(),
                 result.file_name() == nullptr ? "?" : result.file_name(), result.line_number(),
                 result.message());
  }
};

}  // namespace

const comm::Launch& launched() {
  return *launch;
}
comm::Communicator& world() {
  return *launch->world;
}

}  // namespace grist::test

int main(int argc, char** argv) {
  using grist::test::launch;
  grist::flush_denormals();
  ::testing::InitGoogleTest(&argc, argv);
  GTEST_FLAG_SET(catch_exceptions, false);
  int status = 1;
  try {
    launch = grist::comm::connect();
    if (launch->world->rank() != 0) {
      auto& listeners = ::testing::UnitTest::GetInstance()->listeners();
      delete listeners.Release(listeners.default_result_printer());
      listeners.Append(new grist::test::FailuresOnly);
    }
    status = RUN_ALL_TESTS();
  } catch (const std::exception& e) {
    std::fprintf(stderr, "rank %d: %s\n", launch ? launch->world->rank() : -1, e.what());
    grist::comm::abort(grist::ExitCode::internal);
  }
  launch.reset();
  return status;
}
