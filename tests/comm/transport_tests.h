#pragma once
// What every transport must do, for any number of ranks: run by local_test.cpp on threads and by
// mpi_test.cpp under mpirun.
#include <ostream>
#include <span>

#include "grist/comm/communicator.h"

namespace grist::comm {

struct TransportTest {
  const char* name;
  void (*body)(Communicator&);  // all ranks call it; fails by gtest's EXPECT
};
inline std::ostream& operator<<(std::ostream& stream, const TransportTest& t) {
  return stream << t.name;
}

std::span<const TransportTest> transport_tests();

}  // namespace grist::comm
