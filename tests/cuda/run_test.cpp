// Whole runs with the real binary on the CUDA backend: one rank and several, checkpoints that pass
// from one backend to the other.
#include "app/support.h"

namespace grist::test {
namespace {

const Arguments kShort = {"train.train_iters=4", "train.eval_interval=4", "train.eval_iters=1",
                          "checkpoint.save_interval=2", "train.global_batch_size=8"};

Arguments with(Arguments a, const Arguments& more) {
  a.insert(a.end(), more.begin(), more.end());
  return a;
}

std::vector<double> losses(const std::string& run) {
  std::vector<double> out;
  for (const Json& record : metrics_records(world() / run))
    if (const Json* loss = record.find("loss")) out.push_back(loss->as_double());
  return out;
}

void expect_near(const std::string& run, const std::string& reference, double relative) {
  const std::vector<double> got = losses(run), want = losses(reference);
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t i = 0; i < got.size(); ++i)
    EXPECT_NEAR(got[i], want[i], relative * want[i]) << "step " << i + 1;
}

const std::string& on_the_cpu() {
  static const std::string run = [] {
    const Outcome o = world().train("on-cpu", kShort);
    if (o.code != 0) throw std::runtime_error(o.err);
    return std::string("on-cpu");
  }();
  return run;
}

TEST(CudaRun, TrainsValidatesSavesAndFollowsTheCpu) {
  const Outcome o = world().train("alone", with(kShort, {"device=cuda", "precision=fp32"}));
  ASSERT_EQ(o.code, 0) << o;
  EXPECT_EQ(o.err, "") << o;
  EXPECT_NE(o.out.find("device: cuda ("), std::string::npos) << o;
  EXPECT_EQ(saved_steps(world() / "alone"), (std::vector<int>{2, 4}));
  expect_near("alone", on_the_cpu(), 1e-5);
}

TEST(CudaRun, Bf16IsTheDefaultAndFollowsTheCpuLoosely) {
  const Outcome o = world().train("bf16", with(kShort, {"device=cuda"}));
  ASSERT_EQ(o.code, 0) << o;
  EXPECT_NE(o.out.find(", bf16"), std::string::npos) << o;
  expect_near("bf16", on_the_cpu(), 1e-2);
}

// Ranks share the GPU: rows and gradients travel through host memory and MPI.
TEST(CudaRun, RanksWithExpertParallelismFollowTheCpu) {
  for (const int ranks : {2, 4}) {
    const std::string run = "ranks-" + std::to_string(ranks);
    const Outcome o = world().train(
        run,
        with(kShort, {"device=cuda", "precision=fp32",
                      "parallel.expert_model_parallel_size=" + std::to_string(ranks)}),
        ranks);
    ASSERT_EQ(o.code, 0) << o;
    expect_near(run, on_the_cpu(), 1e-5);
  }
}

TEST(CudaRun, BackendsGoOnFromEachOthersCheckpoints) {
  const Arguments half = {"train.max_hours=1e-7"};  // saves and ends after a step
  const Arguments cuda = {"device=cuda", "precision=fp32"};
  for (const bool cuda_first : {false, true}) {
    const std::string run = cuda_first ? "cuda-then-cpu" : "cpu-then-cuda";
    const Outcome first =
        world().train(run, with(with(kShort, half), cuda_first ? cuda : Arguments{}));
    ASSERT_EQ(first.code, 75) << first;
    const Outcome second = world().train(run, with(kShort, cuda_first ? Arguments{} : cuda));
    ASSERT_EQ(second.code, 0) << second;
    EXPECT_NE(second.out.find("resuming at step"), std::string::npos) << second;
    expect_near(run, on_the_cpu(), 1e-5);
  }
}

TEST(CudaRun, ResumingKeepsEveryBit) {
  const Arguments cuda = {"device=cuda"};
  const Outcome whole = world().train("whole", with(kShort, cuda));
  ASSERT_EQ(whole.code, 0) << whole;
  const Outcome first = world().train("halves", with(with(kShort, cuda), {"train.max_hours=1e-7"}));
  ASSERT_EQ(first.code, 75) << first;
  const Outcome second = world().train("halves", with(kShort, cuda));
  ASSERT_EQ(second.code, 0) << second;
  expect_same_run(world() / "halves", world() / "whole");
}

// The run's configuration says where: fp32 on the device and on the CPU find the same tokens.
TEST(CudaRun, GeneratesOnTheDeviceTheTextOfTheCpu) {
  const Outcome trained = world().train("speaks", with(kShort, {"device=cuda", "precision=fp32"}));
  ASSERT_EQ(trained.code, 0) << trained;
  const Arguments greedy = {"generate",     "speaks", "--prompt",      "ab",
                            "--max-tokens", "12",     "--temperature", "0"};

  const Outcome there = world().run(greedy), here = world().run(with(greedy, {"--device", "cpu"}));

  ASSERT_EQ(there.code, 0) << there;
  ASSERT_EQ(here.code, 0) << here;
  EXPECT_EQ(there.out, here.out);
  EXPECT_GT(there.out.size(), std::string("ab\n").size());
}

TEST(CudaRun, GeneratesInBf16AndInFp32WhereThereIsNoOther) {
  const Outcome trained =
      world().train("speaks-bf16", with(kShort, {"device=cuda", "precision=bf16"}));
  ASSERT_EQ(trained.code, 0) << trained;
  for (const char* device : {"auto", "cuda", "cpu"}) {
    const Outcome o = world().run(
        {"generate", "speaks-bf16", "--prompt", "ab", "--max-tokens", "4", "--device", device});
    EXPECT_EQ(o.code, 0) << o;
    EXPECT_TRUE(o.out.starts_with("ab")) << o;
  }
}

// Every log-likelihood of a file of samples.
std::vector<double> scores_of(const std::string& file) {
  std::vector<double> out;
  for (const std::string& line : lines(read_text(world() / file))) {
    const Json sample = Json::parse(line, file);
    for (const Json& v : sample.at("log_likelihoods").as_array()) out.push_back(v.as_double());
  }
  return out;
}

TEST(CudaRun, EvaluatesOnTheDeviceWithTheScoresOfTheCpu) {
  std::string rows;
  for (const char* goal : {"abed cafe", "a bag of bees had", "cab"})
    rows += std::string(R"({"goal": ")") + goal +
            R"(", "sol1": "bed", "sol2": "a b c", "label": 1})" + "\n";
  world().write("piqa_validation.jsonl", rows);
  for (const auto& [precision, tolerance] :
       few(std::vector<std::pair<const char*, double>>{{"bf16", 0.5}, {"fp32", 1e-3}}, 1)) {
    const std::string run = std::string("judged-") + precision;
    const Outcome trained =
        world().train(run, with(kShort, {"device=cuda", std::string("precision=") + precision}));
    ASSERT_EQ(trained.code, 0) << trained;
    for (const std::string device : {"cuda", "cpu"}) {
      const Outcome o = world().run({"eval", run, "--data", ".", "--tasks", "piqa", "--device",
                                     device, "--samples", device + ".jsonl"});
      ASSERT_EQ(o.code, 0) << o;
    }
    const std::vector<double> there = scores_of("cuda.jsonl"), here = scores_of("cpu.jsonl");
    ASSERT_EQ(there.size(), 6U);
    for (std::size_t i = 0; i < there.size(); ++i)
      EXPECT_NEAR(there[i], here[i], tolerance) << precision << " " << i;
  }
}

TEST(CudaRun, Bf16OnTheCpuIsRefused) {
  const Outcome o = world().train("refused", with(kShort, {"device=cpu", "precision=bf16"}));
  EXPECT_EQ(o.code, 78) << o;
  EXPECT_NE(o.err.find("precision: bf16 needs device: cuda"), std::string::npos) << o;
}

}  // namespace
}  // namespace grist::test
