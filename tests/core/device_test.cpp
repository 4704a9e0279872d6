#include "grist/core/device.h"

#include <gtest/gtest.h>

#include "grist/core/error.h"
#include "grist/core/memory.h"

namespace grist {
namespace {

template <class F> Error error_of(F&& f) {
  try {
    f();
  } catch (const Error& e) {
    return e;
  }
  return Error(ExitCode::ok, "no error");
}

TEST(Devices, CpuIsInTheTableFromTheStart) {
  EXPECT_EQ(name_of(Device::cpu), "cpu");
  EXPECT_EQ(device_named("cpu"), Device::cpu);
  EXPECT_TRUE(properties(Device::cpu).reads_host_memory);
  EXPECT_FALSE(properties(Device::cpu).asynchronous);
  std::string why;
  EXPECT_TRUE(enable_device(Device::cpu, 0, why));
}

TEST(Devices, NameKeepsItsNumber) {
  const Device first = device_named("abacus"), second = device_named("slide rule");

  EXPECT_NE(first, second);
  EXPECT_EQ(device_named("abacus"), first);
  EXPECT_EQ(name_of(second), "slide rule");
}

TEST(Devices, OneThatIsNotReadyIsNamed) {
  const Device abacus = device_named("abacus");
  std::string why;

  EXPECT_EQ(find_runtime(abacus), nullptr);
  EXPECT_FALSE(enable_device(abacus, 0, why));
  EXPECT_EQ(why, "this build has no abacus backend");
  const Error e = error_of([&] { Buffer(64, abacus, "beads"); });
  EXPECT_EQ(e.code(), ExitCode::device_unavailable);
  EXPECT_NE(std::string(e.what()).find("abacus"), std::string::npos) << e.what();
}

// What is registered stays in the process: it borrows the CPU's runtime.
TEST(Devices, OfferIsTakenUpOnceAndWithTheIndex) {
  static int calls = 0, asked_for = -1;
  const Device ready = device_named("ready when wanted");
  offer_device(ready, [](int index, std::string& why) {
    ++calls;
    asked_for = index;
    if (index == 0) why = "number 0 is broken";
    if (index != 0) register_runtime(device_named("ready when wanted"), &runtime(Device::cpu));
    return index != 0;
  });
  std::string why;

  EXPECT_FALSE(enable_device(ready, 0, why));
  EXPECT_EQ(why, "number 0 is broken");
  EXPECT_TRUE(enable_device(ready, 3, why));
  EXPECT_TRUE(enable_device(ready, 4, why));

  EXPECT_EQ(calls, 2);
  EXPECT_EQ(asked_for, 3);
  EXPECT_EQ(Buffer(64, ready, "bytes").device(), ready);
}

}  // namespace
}  // namespace grist
