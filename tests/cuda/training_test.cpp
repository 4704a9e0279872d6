// Whole training steps on the CUDA backend against the CPU backend: the same engine, batches and
// weights.
#include <gtest/gtest.h>

#include <cmath>

#include "engine.h"
#include "fixture.h"
#include "grist/comm/local.h"
#include "grist/core/compute_device.h"
#include "grist/nn/decoder.h"
#include "kernels/cuda/cublas.h"
#include "support/scale.h"
#include "train/rows.h"
#include "trial.h"

namespace grist::train {
namespace {

constexpr std::int64_t kSteps = test::kSanitized ? 3 : 20;
constexpr std::int64_t kGraphSteps = test::kSanitized ? 5 : 20;

Config tiny(WantedDevice device, Precision precision) {
  Config c;
  c.threads = 1;
  c.device = device;
  c.precision = precision;
  c.model = test::tiny_model();
  c.model.hidden_size = 32;  // widths that the bf16 kernels load in whole vectors
  c.model.head_dim = 16;
  c.model.num_attention_heads = 2;
  c.model.num_key_value_heads = 1;
  c.model.moe.moe_intermediate_size = 24;
  c.model.moe.aux_loss_coeff = 0.05;
  c.model.moe.z_loss_coeff = 0.01;
  c.data.seq_length = kRowLength;
  c.train.micro_batch_size = 2;
  c.train.global_batch_size = 8;
  c.train.train_iters = kSteps;
  c.optim.lr = 3e-3;
  c.optim.lr_decay_iters = kSteps;
  c.parallel.ddp_bucket_size = 3000;
  return c;
}

TrialResult trial(const Config& c, std::int64_t steps = kSteps, int world = 1) {
  TrialResult result;
  comm::run_local(world, [&](comm::Communicator& ranks) {
    const TrialResult mine = run_trial(c, ranks, read_rows, steps);
    if (ranks.rank() == 0) result = mine;
  });
  return result;
}

// Largest relative distance of the losses, and of the gradients of the first step (norm of the
// difference over the norm, a tensor at a time).
struct Distance {
  double loss = 0, gradient = 0;
  std::string worst;
};
Distance distance(const TrialResult& want, const TrialResult& got) {
  Distance d;
  EXPECT_EQ(want.steps.size(), got.steps.size());
  for (std::size_t i = 0; i < want.steps.size(); ++i)
    d.loss =
        std::max(d.loss, std::abs(got.steps[i].loss - want.steps[i].loss) / want.steps[i].loss);
  EXPECT_EQ(want.gradients.size(), got.gradients.size());
  for (std::size_t i = 0; i < want.gradients.size(); ++i) {
    double error = 0, norm = 0;
    for (std::size_t j = 0; j < want.gradients[i].values.size(); ++j) {
      const double w = want.gradients[i].values[j], g = got.gradients[i].values[j];
      error += (g - w) * (g - w);
      norm += w * w;
    }
    const double relative = std::sqrt(error) / (std::sqrt(norm) + 1e-12);
    if (!(relative <= d.gradient)) {
      d.gradient = relative;
      d.worst = want.gradients[i].name;
    }
  }
  return d;
}

TEST(CudaTraining, Fp32FollowsTheCpu) {
  const TrialResult cpu = trial(tiny(WantedDevice::cpu, Precision::fp32));
  const Distance d = distance(cpu, trial(tiny(WantedDevice::cuda, Precision::fp32)));
  EXPECT_LE(d.loss, 1e-5);
  EXPECT_LE(d.gradient, 1e-5) << d.worst;
}

// bf16 rounding alone moves some tokens to other experts, so losses follow loosely.
TEST(CudaTraining, Bf16FollowsTheCpu) {
  const TrialResult cpu = trial(tiny(WantedDevice::cpu, Precision::fp32));
  const Distance d = distance(cpu, trial(tiny(WantedDevice::cuda, Precision::bf16)));
  EXPECT_LE(d.loss, 1e-2);
}

TEST(CudaTraining, TheSameRunGivesTheSameBits) {
  for (const Precision precision : {Precision::fp32, Precision::bf16}) {
    const Config c = tiny(WantedDevice::cuda, precision);
    const TrialResult first = trial(c, 3), again = trial(c, 3);
    EXPECT_TRUE(compare_trials(first, again, true).ok) << word(precision);
  }
}

TEST(CudaTraining, RecomputationChangesNoBit) {
  Config c = tiny(WantedDevice::cuda, Precision::bf16);
  const TrialResult reference = trial(c, 3);
  for (const Recompute recompute : {Recompute::selective, Recompute::full}) {
    c.train.recompute = recompute;
    EXPECT_TRUE(compare_trials(reference, trial(c, 3), true).ok) << word(recompute);
  }
}

TEST(CudaTraining, DenseProductsAreThoseOfTheConfiguration) {
  Config c = tiny(WantedDevice::cuda, Precision::bf16);
  c.train.dense_matmul = DenseProducts::own;
  trial(c, 1);
  EXPECT_EQ(cuda::dense_matmul_name(), "own kernels");

  c.train.dense_matmul = DenseProducts::auto_;
  trial(c, 1);
  EXPECT_NE(cuda::dense_matmul_name(), "own kernels");

  c.device = WantedDevice::cpu;
  c.precision = Precision::fp32;
  c.train.dense_matmul = DenseProducts::cublas;
  EXPECT_THROW(trial(c, 1), Error);
}

// What the model makes on a stream of its own (the RoPE table) is there for the next one.
TEST(CudaStreams, WorkOfAnOwnStreamIsDoneWhenItGoes) {
  const std::vector<float> last(8, 3.0F);
  for (const unsigned seed : {1U, 2U, 3U, 4U}) {
    test::use({.name = "late streams", .seed = seed, .deferred = true});
    const Buffer buffer(last.size() * sizeof(float), Device::cuda, "floats");
    const TensorView there = buffer.view(DType::f32, {8});
    {
      const OwnStream first(Device::cuda);
      for (const float value : {0.0F, 1.0F, 2.0F, 3.0F}) {
        const std::vector<float> values(last.size(), value);
        copy_in(Context(Device::cuda, first.get()), there, values.data());
      }
    }
    const OwnStream second(Device::cuda);
    EXPECT_EQ(to_host<float>(Context(Device::cuda, second.get()), there), last) << "seed " << seed;
  }
  test::use(test::schedules().front());
}

TEST(CudaStreams, ModelIsWholeForTheFirstStreamThatReadsIt) {
  const Config c = tiny(WantedDevice::cuda, Precision::fp32);
  const std::vector<std::int32_t> tokens = {3, 1, 4, 1, 5, 9, 2, 6};
  const auto logits = [&](Device device) {
    const ComputeDevice computer(device, 1, nullptr, nullptr);
    nn::Model model(c.model, device, false, nullptr);
    model.parameters().initialize(computer.context(), 7);
    model.parameters().refresh(computer.context());
    nn::Decoder decoder(model, 8);
    const auto out = decoder.feed(computer.context(), tokens);
    return std::vector<float>(out.begin(), out.end());
  };
  const std::vector<float> here = logits(Device::cpu);
  const std::vector<double> want(here.begin(), here.end());
  for (const unsigned seed : {1U, 2U, 3U, 4U}) {
    test::use({.name = "late streams", .seed = seed, .deferred = true});
    EXPECT_TRUE(test::close(logits(Device::cuda).data(), want.data(), c.model.vocab_size,
                            {.relative = 1e-4, .absolute = 1e-5}))
        << "seed " << seed;
  }
  test::use(test::schedules().front());
}

// What steps of one rank gave, and how many micro-batches ran in which way.
struct Steps {
  std::vector<double> losses, norms;  // the losses with those of balancing
  std::vector<float> parameters;
  GraphCache::Counts counts;
};

Steps run_steps(const Config& c, std::int64_t steps) {
  Steps out;
  comm::run_local(1, [&](comm::Communicator& world) {
    const ComputeDevice device(Device::cuda, 1, nullptr, nullptr);
    Engine engine(c, world, device.context(), nullptr);
    engine.initialize();
    engine.refresh();
    const std::int64_t rows = c.train.micro_batch_size;
    for (std::int64_t s = 0; s < steps; ++s) {
      std::vector<Batch> batches(static_cast<std::size_t>(c.train.global_batch_size / rows));
      for (std::size_t i = 0; i < batches.size(); ++i)
        read_rows(s * c.train.global_batch_size + static_cast<std::int64_t>(i) * rows, rows,
                  batches[i]);
      const auto o = engine.step(batches, c.optim.lr, [] { return false; });
      out.losses.push_back(o->total);
      out.norms.push_back(o->grad_norm);
    }
    const nn::Parameters& p = engine.model().parameters();
    out.parameters = to_host<float>(device.context(), p.master_elements({0, p.numel()}));
    if (engine.graphs()) out.counts = engine.graphs()->counts();
  });
  return out;
}

// The same bits with graphs and without; a graph is launched `at_least` so many times.
void expect_graphs_change_nothing(Config c, std::int64_t steps, std::int64_t at_least) {
  const std::int64_t micro_batches = steps * c.train.global_batch_size / c.train.micro_batch_size;
  const Steps with = run_steps(c, steps);
  c.train.cuda_graphs = CudaGraphs::none;
  const Steps without = run_steps(c, steps);
  EXPECT_EQ(with.losses, without.losses);
  EXPECT_EQ(with.norms, without.norms);
  EXPECT_EQ(with.parameters, without.parameters);
  EXPECT_TRUE(std::isfinite(with.losses.back()));
  EXPECT_EQ(with.counts.launched + with.counts.direct, micro_batches);
  EXPECT_GE(with.counts.launched, at_least);
  EXPECT_LE(with.counts.recorded, 8);
  EXPECT_EQ(without.counts.launched, 0);
}

// Rows have one or two documents, so a micro-batch of two rows has two to four: padded to two or
// four. Each of these is a graph as a step's first micro-batch and another one as a later one.
TEST(CudaGraphs, ChangeNoBitOfFp32Steps) {
  expect_graphs_change_nothing(tiny(WantedDevice::cuda, Precision::fp32), kGraphSteps,
                               4 * kGraphSteps - 12);
}

TEST(CudaGraphs, ChangeNoBitOfBf16Steps) {
  expect_graphs_change_nothing(tiny(WantedDevice::cuda, Precision::bf16), kGraphSteps,
                               4 * kGraphSteps - 12);
}

TEST(CudaGraphs, ChangeNoBitWithRecomputation) {
  Config c = tiny(WantedDevice::cuda, Precision::bf16);
  for (const Recompute recompute : {Recompute::selective, Recompute::full}) {
    SCOPED_TRACE(word(recompute));
    c.train.recompute = recompute;
    expect_graphs_change_nothing(c, 4, 8);
  }
}

// Selection biases appear after the first step; each scope of balancing takes its load elsewhere.
TEST(CudaGraphs, ChangeNoBitWithBiasesAndCapacity) {
  Config c = tiny(WantedDevice::cuda, Precision::bf16);
  c.model.moe.expert_bias_update_rate = 0.01;
  c.model.moe.capacity_factor = 1.25;
  for (const AuxLossScope scope : {AuxLossScope::global_batch, AuxLossScope::sequence}) {
    SCOPED_TRACE(word(scope));
    c.model.moe.aux_loss_scope = scope;
    expect_graphs_change_nothing(c, 5, 6);
  }
}

// Kernels whose arguments are descriptors of tensors.
TEST(CudaGraphs, ChangeNoBitWithTensorMaps) {
  Config c = tiny(WantedDevice::cuda, Precision::bf16);
  c.model.hidden_size = c.model.head_dim = c.model.moe.moe_intermediate_size = 64;
  c.model.num_attention_heads = 1;
  c.train.global_batch_size = 4;
  expect_graphs_change_nothing(c, 4, 3);
}

TEST(CudaGraphs, ChangeNoBitWithLanes) {
  Config c = tiny(WantedDevice::cuda, Precision::fp32);
  c.parallel.deterministic = Deterministic::elastic;
  c.train.global_batch_size = 2 * c.parallel.elastic_lanes * c.train.micro_batch_size;
  expect_graphs_change_nothing(c, 2, c.parallel.elastic_lanes);
}

struct Sizes {
  int world;
  std::int64_t ep, zero;
};

TrialResult trial(Config c, const Sizes& s, std::int64_t steps) {
  c.parallel.expert_model_parallel_size = s.ep;
  c.parallel.zero_stage = s.zero;
  return trial(c, steps, s.world);
}

// Ranks are threads here, with one GPU between them: rows and gradients travel through host memory.
TEST(CudaRanks, ComputeWhatOneRankComputes) {
  const Config c = tiny(WantedDevice::cuda, Precision::fp32);
  const TrialResult one = trial(c, {1, 1, 0}, 4);
  for (const Sizes& s : test::few<Sizes>({{2, 2, 0}, {4, 2, 1}, {2, 1, 1}, {4, 4, 1}}, 2)) {
    const Agreement a = compare_trials(one, trial(c, s, 4), false);
    EXPECT_TRUE(a.ok) << "world " << s.world << " ep " << s.ep << "\n" << a.text;
  }
}

// Between the parts of a graph the gradients that are final start on their way.
TEST(CudaRanks, AreTheSameBitsWithGraphs) {
  Config c = tiny(WantedDevice::cuda, Precision::bf16);
  const TrialResult with = trial(c, {2, 1, 1}, 4);
  c.train.cuda_graphs = CudaGraphs::none;
  EXPECT_TRUE(compare_trials(with, trial(c, {2, 1, 1}, 4), true).ok);
}

TEST(CudaRanks, AreTheSameBitsWhenElastic) {
  for (const Precision precision : {Precision::fp32, Precision::bf16}) {
    Config c = tiny(WantedDevice::cuda, precision);
    c.train.global_batch_size = 16;  // a micro-batch a lane
    c.parallel.deterministic = Deterministic::elastic;
    const TrialResult one = trial(c, {1, 1, 0}, 2);
    for (const Sizes& s : test::few<Sizes>({{4, 2, 0}, {2, 2, 1}, {4, 4, 1}}, 1)) {
      const Agreement a = compare_trials(one, trial(c, s, 2), true);
      EXPECT_TRUE(a.ok) << word(precision) << " world " << s.world << " ep " << s.ep << "\n"
                        << a.text;
    }
  }
}

}  // namespace
}  // namespace grist::train
