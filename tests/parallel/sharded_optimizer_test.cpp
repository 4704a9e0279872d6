// Gradients, norm, update and parameters over ranks: against a float64 loop on one rank, and bit by
// bit between layouts, stages, bucket sizes and overlap.
#include <chrono>
#include <future>
#include <limits>

#include "grist/core/error.h"
#include "grist/optim/adamw.h"
#include "replay.h"

namespace grist::parallel {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

std::vector<Job> layouts(Deterministic deterministic) {
  std::vector<Job> list;
  for (const auto& [world, ep] :
       {std::pair(1, 1), std::pair(2, 1), std::pair(2, 2), std::pair(4, 2), std::pair(8, 1),
        std::pair(8, 4), std::pair(8, 8)})
    for (const std::int64_t zero : {0, 1})
      list.push_back({.world = world, .ep = ep, .zero = zero, .deterministic = deterministic});
  return list;
}

// The same training in float64, without ranks: what everything must come near.
struct Reference {
  std::map<std::string, std::vector<double>> p, m, v;
  std::vector<double> norms;

  explicit Reference(const Job& job) {
    const test::CpuContext context;
    nn::Parameters parameters(job.model, Device::cpu, false, nullptr);
    parameters.initialize(*context, 5);
    for (const nn::NamedTensor& t : parameters.tensors()) {
      const auto* x = t.master.as<float>();
      p[t.name].assign(x, x + t.shape.numel());
      m[t.name].resize(p[t.name].size());
      v[t.name].resize(p[t.name].size());
    }
    for (int step = 1; step <= job.steps; ++step) take(step, parameters, job.config().optim);
  }

 private:
  void take(int step, const nn::Parameters& parameters, const OptimConfig& c) {
    std::map<std::string, std::vector<double>> gradients;
    double squares = 0;
    for (const nn::NamedTensor& t : parameters.tensors()) {
      std::vector<double>& sum = gradients[t.name];
      sum.resize(p[t.name].size());
      for (int micro_batch = 0; micro_batch < kMicroBatches; ++micro_batch) {
        const MadeUp g(step, micro_batch, t.name);
        for (std::size_t i = 0; i < sum.size(); ++i)
          sum[i] += static_cast<double>(g(static_cast<std::int64_t>(i)));
      }
      for (const double g : sum) squares += g * g;
    }
    norms.push_back(std::sqrt(squares));
    const double clip = std::min(1.0, c.clip_grad / (norms.back() + 1e-6));
    for (const nn::NamedTensor& t : parameters.tensors()) {
      const double factor = t.kind == nn::ParameterKind::router   ? c.router_lr_factor
                            : t.kind == nn::ParameterKind::expert ? c.expert_lr_factor
                                                                  : 1.0;
      update(step, t, clip, 1e-2 * factor, gradients[t.name], c);
    }
  }
  void update(int step, const nn::NamedTensor& t, double clip, double lr,
              const std::vector<double>& gradient, const OptimConfig& c) {
    for (std::size_t i = 0; i < gradient.size(); ++i) {
      const double g = gradient[i] * clip;
      double &a = m[t.name][i], &b = v[t.name][i];
      a = c.adam_beta1 * a + (1 - c.adam_beta1) * g;
      b = c.adam_beta2 * b + (1 - c.adam_beta2) * g * g;
      const double direction = a / (1 - std::pow(c.adam_beta1, step)) /
                               (std::sqrt(b / (1 - std::pow(c.adam_beta2, step))) + c.adam_eps);
      double& x = p[t.name][i];
      x -= lr * (direction + (t.decay ? c.weight_decay : 0.0) * x);
    }
  }
};

void expect_near(const Outcome& outcome, const Reference& reference, const std::string& what) {
  ASSERT_EQ(outcome.tensors.size(), reference.p.size()) << what;
  for (std::size_t i = 0; i < outcome.norms.size(); ++i)
    EXPECT_NEAR(outcome.norms[i], reference.norms[i], 1e-6 * reference.norms[i]) << what;
  // Moments on the scale of clipped gradients (norm 1 over 200 000 elements), weights on that of
  // lr.
  for (const auto& [name, t] : outcome.tensors) {
    EXPECT_TRUE(test::close(t.m, reference.m.at(name), {1e-5, 1e-8})) << what << " " << name;
    EXPECT_TRUE(test::close(t.v, reference.v.at(name), {2e-5, 1e-11})) << what << " " << name;
    EXPECT_TRUE(test::close(t.p, reference.p.at(name), {3e-6, 1e-6})) << what << " " << name;
    EXPECT_TRUE(std::all_of(t.writers.begin(), t.writers.end(), [](int n) { return n == 1; }))
        << what << " " << name << ": not every element has one writer";
  }
}

TEST(ShardedOptimizer, FollowsTheFormulaAtEveryLayout) {
  const Reference reference(Job{});
  for (const Deterministic mode : all_words<Deterministic>())
    for (const Job& s : layouts(mode)) expect_near(run(s), reference, s.str());
}

TEST(ShardedOptimizer, TiedEmbeddingsAndWideExpertsFollowTheFormula) {
  Job tied{.world = 4, .ep = 2};
  tied.model.tie_word_embeddings = true;
  expect_near(run(tied), Reference(tied), "tied");
  Job wide{.world = 4, .ep = 2, .deterministic = Deterministic::elastic, .steps = 1};
  wide.model.moe.num_experts = 2;
  wide.model.moe.moe_intermediate_size = 2800;  // two chunks a matrix
  wide.model.num_hidden_layers = 2;
  wide.model.vocab_size = 50;
  expect_near(run(wide), Reference(wide), "wide");
}

TEST(ShardedOptimizer, ElasticBitsAreTheSameAtEveryLayout) {
  const Outcome one = run({.deterministic = Deterministic::elastic});
  for (Job s : layouts(Deterministic::elastic)) EXPECT_TRUE(run(s) == one) << s.str();
  for (const std::int64_t bucket : {1, 100000, 1 << 30}) {
    for (const bool overlap : {true, false}) {
      const Job s{.world = 4,
                  .ep = 2,
                  .zero = overlap ? 1 : 0,
                  .deterministic = Deterministic::elastic,
                  .bucket = bucket,
                  .overlap = overlap};
      EXPECT_TRUE(run(s) == one) << s.str();
    }
  }
}

TEST(ShardedOptimizer, StageBucketsAndOverlapDoNotChangeABit) {
  for (const auto& [world, ep] : {std::pair(3, 1), std::pair(4, 2), std::pair(8, 4)}) {
    Job s{.world = world, .ep = ep};
    const Outcome expected = run(s);
    for (const std::int64_t bucket : {1, 5000, 1 << 30}) {
      for (const bool overlap : {true, false}) {
        s.zero = overlap ? 0 : 1;
        s.bucket = bucket;
        s.overlap = overlap;
        EXPECT_TRUE(run(s) == expected) << s.str();
      }
    }
  }
}

TEST(ShardedOptimizer, OneRankHasTheBitsOfThePlainOptimizer) {
  const Job job;
  const Outcome sharded = run(job);
  comm::run_local(1, [&](comm::Communicator& world) {
    Rank rank(world, job);  // makes the gradients; its optimizer takes no step
    const test::CpuContext context;
    std::vector<OptimizerEntry> entries;
    for (const ShardPiece& piece : rank.optimizer().holds()) {
      const nn::NamedTensor& t = *piece.tensor;
      const double factor = t.kind == nn::ParameterKind::router   ? 0.5
                            : t.kind == nn::ParameterKind::expert ? 2.0
                                                                  : 1.0;
      entries.push_back({.tensor = described(t),
                         .part = whole_part(t.shape),
                         .param = t.master,
                         .grad = t.grad,
                         .state = piece.state,
                         .lr_factor = factor});
    }
    Optimizer plain(job.config().optim, entries);
    for (int step = 1; step <= job.steps; ++step) {
      rank.gradients(step);
      EXPECT_EQ(plain.step(*context, {.lr = 1e-2, .loss = 1.0}).grad_norm,
                sharded.norms[static_cast<std::size_t>(step - 1)]);
    }
    expect_whole(rank, sharded);
  });
}

// Needs matrices: a step's length is the same for each, whatever its gradient (as in the family of
// Muon). Everything else is AdamW's.
class NormalizedMomentum final : public UpdateRule {
 public:
  std::vector<std::string> states(const OptimizedTensor& t) const override {
    return is_matrix(t) ? std::vector<std::string>{"momentum"} : adamw_.states(t);
  }
  CutRule cut(const OptimizedTensor& t) const override {
    return is_matrix(t) ? CutRule::whole : CutRule::chunks;
  }
  void apply(const Context& ctx, std::span<const UpdateItem> items,
             const UpdateStep& step) const override {
    std::vector<UpdateItem> others;
    for (const UpdateItem& item : items) {
      if (is_matrix(*item.tensor))
        update(item, step);
      else
        others.push_back(item);
    }
    adamw_.apply(ctx, others, step);
  }

 private:
  static bool is_matrix(const OptimizedTensor& t) { return t.decay && t.shape.rank() == 2; }
  static void update(const UpdateItem& item, const UpdateStep& step) {
    const auto* control = step.control.as<float>();
    if (control[1] == 0.0F) return;
    ASSERT_EQ(item.param.shape, item.tensor->shape);
    auto* p = item.param.as<float>();
    auto* momentum = item.state[0].as<float>();
    const auto* g = item.grad.as<float>();
    double squares = 0;
    for (std::int64_t i = 0; i < item.param.numel(); ++i) {
      momentum[i] = 0.9F * momentum[i] + control[0] * g[i];
      squares += static_cast<double>(momentum[i]) * static_cast<double>(momentum[i]);
    }
    const auto scale = static_cast<float>(step.lr * item.lr_factor / std::sqrt(squares));
    for (std::int64_t i = 0; i < item.param.numel(); ++i) p[i] -= scale * momentum[i];
  }

  AdamW adamw_{OptimConfig{}};
};

TEST(ShardedOptimizer, ARuleOverMatricesHasTheSameBitsAtEveryLayout) {
  Job job{.deterministic = Deterministic::elastic, .rule = std::make_shared<NormalizedMomentum>()};
  job.model.moe.num_experts = 8;
  job.model.moe.moe_intermediate_size = 2800;  // more than a norm chunk: AdamW's would be cut
  job.model.num_hidden_layers = 2;
  job.model.vocab_size = 50;
  job.steps = 1;
  const Outcome one = run(job);

  const GlobalTensor& expert = one.tensors.at("model.layers.1.mlp.experts.3.gate_proj.weight");
  EXPECT_EQ(expert.others.count("momentum"), 1U);
  EXPECT_NE(expert.others.at("momentum"), std::vector<float>(expert.p.size()));
  EXPECT_EQ(one.tensors.at("model.embed_tokens.weight").others.size(), 0U);
  for (const auto& [world, ep, zero] :
       {std::tuple(2, 1, 1), std::tuple(4, 2, 0), std::tuple(4, 2, 1), std::tuple(8, 4, 1)}) {
    job.world = world;
    job.ep = ep;
    job.zero = zero;
    EXPECT_TRUE(run(job) == one) << job.str();
  }
}

TEST(ShardedOptimizer, WhatIsNotFiniteOnOneRankSkipsOnAllAndChangesNoBit) {
  for (const std::int64_t zero : {0, 1}) {
    Outcome before, after;
    std::mutex mutex;
    const auto note = [&](Rank& rank, Outcome& outcome) {
      const std::lock_guard lock(mutex);
      collect(rank, outcome);
    };
    const Job job{.world = 4, .ep = 2, .zero = zero};
    comm::run_local(4, [&](comm::Communicator& world) {
      Rank rank(world, job);
      EXPECT_TRUE(rank.step(1).applied);
      note(rank, before);
      const auto skipped = [&](int on, const std::string& part, float value, double loss) {
        rank.gradients(2, [&] {  // the embedding's bucket is the last: still to be reduced
          for (const nn::NamedTensor& t : rank.parameters().tensors())
            if (world.rank() == on && t.name.find(part) != std::string::npos)
              t.grad.as<float>()[t.shape.numel() - 1] = value;
        });
        const OptimizerResult r = rank.optimizer().step(1e-2, world.rank() == on ? loss : 1.0);
        EXPECT_FALSE(r.applied) << world.rank() << part;
        EXPECT_EQ(r.clip_factor, 1.0);
        return r.grad_norm;
      };
      EXPECT_TRUE(std::isnan(skipped(3, "embed_tokens", std::nanf(""), 1.0)));
      EXPECT_EQ(skipped(0, "embed_tokens", static_cast<float>(-kInf), 1.0), kInf);
      EXPECT_TRUE(std::isfinite(skipped(2, "none", 0, std::nan(""))));
      EXPECT_EQ(rank.optimizer().updates(), 1);
      note(rank, after);
      comm::barrier(world);
      expect_whole(rank, after);
    });
    for (auto& [name, t] : before.tensors) {
      EXPECT_EQ(t.p, after.tensors.at(name).p) << name;
      EXPECT_EQ(t.m, after.tensors.at(name).m) << name;
      EXPECT_EQ(t.v, after.tensors.at(name).v) << name;
    }
  }
}

TEST(ShardedOptimizer, AStepThatWasGivenUpLeavesNoTrace) {
  const Job job{.world = 4, .ep = 2, .deterministic = Deterministic::elastic};
  const Outcome expected = run(job);
  Outcome outcome;
  std::mutex mutex;
  comm::run_local(4, [&](comm::Communicator& world) {
    Rank rank(world, job);
    for (int step = 1; step <= job.steps; ++step) {
      rank.optimizer().begin_step();
      rank.optimizer().lane_done();
      rank.gradients(7);  // and now a signal comes
      rank.step(step);
    }
    const std::lock_guard lock(mutex);
    collect(rank, outcome);
  });
  EXPECT_TRUE(outcome.tensors == expected.tensors);
}

TEST(ShardedOptimizer, ReadyDoesNotWaitForOtherRanksWhileThereIsStaging) {
  Job job{.world = 2, .bucket = 1};
  job.model.num_hidden_layers = 1;
  std::promise<void> returned;
  comm::run_local(2, [&](comm::Communicator& world) {
    Rank rank(world, job);
    if (world.rank() == 1) {
      EXPECT_EQ(returned.get_future().wait_for(std::chrono::seconds(20)),
                std::future_status::ready);
    }
    rank.optimizer().begin_step();
    rank.optimizer().ready(0);
    rank.optimizer().ready(1);  // two of the three buckets
    if (world.rank() == 0) returned.set_value();
    rank.optimizer().ready(2);
    rank.optimizer().step(1e-2, 1.0);
  });
}

TEST(ShardedOptimizer, LanesAreCountedAndChecked) {
  comm::run_local(4, [](comm::Communicator& world) {
    Rank elastic(world, {.world = 4, .deterministic = Deterministic::elastic});
    EXPECT_EQ(elastic.optimizer().lanes(), 2);
    elastic.optimizer().begin_step();
    EXPECT_THROW(elastic.optimizer().ready(0), Error);  // one lane is missing
    elastic.optimizer().lane_done();
    EXPECT_THROW(elastic.optimizer().lane_done(), Error);
    Rank plain(world, {.world = 4});
    EXPECT_EQ(plain.optimizer().lanes(), 1);
  });
}

// Dense tensors and experts that are all smaller than a chunk: cuts fall close to where they
// should.
TEST(ShardedOptimizer, StageOneDividesTheMomentsAndOneRankTakesNothingElse) {
  const auto bytes = [](const MemoryLedger& ledger, const std::string& label) {
    std::size_t sum = 0;
    for (const auto& e : ledger.entries())
      if (e.label == label) sum += e.bytes;
    return sum;
  };
  Job job;
  job.model.vocab_size = 100;
  job.model.num_hidden_layers = 8;
  job.model.moe.moe_intermediate_size = 40;
  std::size_t whole = 0;
  for (const auto& [world, ep] : {std::pair(1, 1), std::pair(4, 1), std::pair(8, 2)}) {
    job.world = world;
    job.ep = ep;
    std::mutex mutex;
    comm::run_local(world, [&, size = world](comm::Communicator& c) {
      MemoryLedger ledger;
      Rank rank(c, job, &ledger);
      const std::size_t moments = bytes(ledger, "optimizer state (fp32)");
      const std::lock_guard lock(mutex);
      if (size == 1) {
        whole = moments;
        EXPECT_GE(whole, 8 * static_cast<std::size_t>(rank.parameters().numel()));
        EXPECT_EQ(bytes(ledger, "gradient staging") + bytes(ledger, "lane sums"), 0U);
      } else {
        const double share = static_cast<double>(whole) / size;
        EXPECT_NEAR(static_cast<double>(moments), share, 0.2 * share) << c.rank();
      }
    });
  }
}

}  // namespace
}  // namespace grist::parallel
