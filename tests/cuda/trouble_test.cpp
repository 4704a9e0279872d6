// What the real binary says when there is no device for it, or the device fails: one line and the
// exit code, with an emulation that claims to be that machine.
#include <cstdlib>

#include "app/support.h"

namespace grist::test {
namespace {

const Arguments kCuda = {"device=cuda", "train.train_iters=4", "checkpoint.save_interval=2",
                         "train.global_batch_size=8"};

Arguments with(const Arguments& more) {
  Arguments a = kCuda;
  a.insert(a.end(), more.begin(), more.end());
  return a;
}

class Environment {
 public:
  Environment(const char* name, const char* value) : name_(name) { ::setenv(name, value, 1); }
  ~Environment() { ::unsetenv(name_); }
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

 private:
  const char* name_;
};

struct Machine {
  const char* name;
  const char* variable;
  const char* value;
  const char* said;
};
const Machine kMachines[] = {
    {"no-driver", "GRIST_EMU_DRIVER", "0", "there is no NVIDIA driver"},
    {"old-driver", "GRIST_EMU_DRIVER", "12040", "the NVIDIA driver is for CUDA 12.4"},
    {"no-gpu", "GRIST_EMU_DEVICES", "0", "no GPU is visible to this process"},
    {"old-gpu", "GRIST_EMU_CAPABILITY", "75", "has compute capability 7.5, 8.0 or more is needed"},
};

TEST(CudaTrouble, ADeviceThatCannotBeHadIsSaidAndAutoTakesTheCpu) {
  for (const Machine& m : kMachines) {
    const Environment set(m.variable, m.value);
    const std::string run = m.name;
    expect_refusal(world().train(run, kCuda), 69, {"device: cuda: ", m.said, "use device: cpu"});
    EXPECT_FALSE(std::filesystem::exists(world() / run)) << run;
    const Outcome o = world().train(run, with({"device=auto"}));
    EXPECT_EQ(o.code, 0) << o;
    EXPECT_EQ(o.err, "") << o;
    const std::size_t why = o.out.find("device: cpu (1 thread), chosen because ");
    ASSERT_NE(why, std::string::npos) << o;
    EXPECT_NE(o.out.find(m.said, why), std::string::npos) << o;
  }
}

TEST(CudaTrouble, AutoTakesTheGpuAndSaysWhy) {
  const Outcome o = world().train("auto", with({"device=auto", "precision=fp32"}));
  EXPECT_EQ(o.code, 0) << o;
  EXPECT_NE(o.out.find("fp32, chosen because there is a GPU"), std::string::npos) << o;
}

TEST(CudaTrouble, OutOfDeviceMemoryNamesWhatIsHeldLargestFirst) {
  const Environment set("GRIST_EMU_MEMORY", "3");
  const Outcome o = world().train(
      "short", with({"model.hidden_size=64", "train.micro_batch_size=8", "data.seq_length=64"}));
  expect_refusal(o, 71, {"out of device memory: ", " for ", "held already: ", "micro_batch_size"});
}

TEST(CudaTrouble, AKernelThatFailsEndsTheRunAndLeavesTheCheckpoint) {
  const Outcome whole = world().train("fault-whole", kCuda);
  ASSERT_EQ(whole.code, 0) << whole;
  for (const bool late : {false, true}) {
    const Environment set("GRIST_EMU_FAULT", late ? "3000" : "0");
    const Outcome o = world().train("fault", kCuda);
    expect_refusal(o, 70, {"an illegal memory access", "a kernel failed", "gpu_check.sh"});
  }
  EXPECT_EQ(saved_steps(world() / "fault"), std::vector<int>{2});
  const Outcome on = world().train("fault", kCuda);
  ASSERT_EQ(on.code, 0) << on;
  expect_same_run(world() / "fault", world() / "fault-whole");
}

TEST(CudaTrouble, NcclWhereRanksShareAGpuIsRefusedOnce) {
  const Outcome o = world().train("nccl", with({"parallel.transport=nccl"}), 2);
  EXPECT_EQ(o.code, 69) << o;
  const std::vector<std::string> said = warnings_and_errors(o);
  ASSERT_EQ(said.size(), 1U) << o;
  for (const char* word : {"messages by NCCL: several ranks share the GPU", "transport: staged"})
    EXPECT_NE(said[0].find(word), std::string::npos) << o;
}

TEST(CudaTrouble, GpusOfTwoKindsAreRefusedOnce) {
  const Environment devices("GRIST_EMU_DEVICES", "2"), kinds("GRIST_EMU_CAPABILITY", "90,80");
  const Outcome o = world().train("kinds", kCuda, 2);
  EXPECT_EQ(o.code, 69) << o;
  const std::vector<std::string> said = warnings_and_errors(o);
  ASSERT_EQ(said.size(), 1U) << o;
  for (const char* word :
       {"rank 0 has compute capability 9.0", "rank 1 has compute capability 8.0"})
    EXPECT_NE(said[0].find(word), std::string::npos) << o;
}

// Rank 1 sees no GPU.
TEST(CudaTrouble, AGpuForSomeRanksOnlyIsRefusedOnce) {
  for (const bool automatic : {false, true}) {
    const Arguments train =
        world().train_arguments("some", with({automatic ? "device=auto" : "device=cuda"}));
    Arguments all = train;
    for (const char* word : {":", "-n", "1", "/usr/bin/env", "GRIST_EMU_DEVICES=0", GRIST_BINARY})
      all.emplace_back(word);
    all.insert(all.end(), train.begin(), train.end());
    const Outcome o = Child(world().path(), all, 1).wait();
    EXPECT_EQ(o.code, 69) << o;
    const std::vector<std::string> said = warnings_and_errors(o);
    ASSERT_EQ(said.size(), 1U) << o;
    EXPECT_NE(said[0].find(automatic ? "some ranks have a GPU and others have none"
                                     : "no GPU is visible to this process"),
              std::string::npos)
        << o;
  }
}

}  // namespace
}  // namespace grist::test
