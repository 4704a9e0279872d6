#pragma once
// Training steps of many ranks with made-up gradients instead of a model: each micro-batch's
// gradient is a function of (step, micro-batch, tensor name, index), so that any layout, and a
// plain float64 loop, can make the same ones. What a rank computes, in which order, is as in
// training.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "grist/comm/collectives.h"
#include "grist/comm/local.h"
#include "grist/parallel/sharded_optimizer.h"
#include "support/compare.h"

namespace grist::parallel {

constexpr int kMicroBatches = 16;

// 67200 elements of the embedding are more than a norm chunk; 8 experts.
inline ModelConfig small_model() {
  ModelConfig c;
  c.num_hidden_layers = 3;
  c.hidden_size = 24;
  c.num_attention_heads = 4;
  c.num_key_value_heads = 2;
  c.head_dim = 6;
  c.intermediate_size = 40;
  c.vocab_size = 2800;
  c.max_position_embeddings = 32;
  c.moe.num_experts = 8;
  c.moe.num_experts_per_tok = 2;
  c.moe.moe_intermediate_size = 5;
  c.moe.first_k_dense_replace = 1;
  return c;
}

struct Job {
  int world = 1;
  int ep = 1;
  std::int64_t zero = 1;
  Deterministic deterministic = Deterministic::layout;
  std::int64_t bucket = 4000;
  bool overlap = true;
  int steps = 2;
  ModelConfig model = small_model();
  std::shared_ptr<const UpdateRule> rule = nullptr;  // null: AdamW

  std::string str() const {
    return "world " + std::to_string(world) + " ep " + std::to_string(ep) + " zero " +
           std::to_string(zero) + " " + std::string(word(deterministic)) + " bucket " +
           std::to_string(bucket) + (overlap ? " overlap" : "");
  }
  Config config() const {
    Config c;
    c.model = model;
    c.parallel.expert_model_parallel_size = ep;
    c.parallel.zero_stage = zero;
    c.parallel.deterministic = deterministic;
    c.parallel.ddp_bucket_size = bucket;
    c.parallel.overlap_grad_reduce = overlap;
    c.optim.adam_eps = 1e-4;  // a gradient that all but cancels keeps few digits to divide by
    c.optim.router_lr_factor = 0.5;
    c.optim.expert_lr_factor = 2.0;
    return c;
  }
};

// Of very different sizes, so that the order of a sum shows in its bits.
class MadeUp {
 public:
  MadeUp(int step, int micro_batch, const std::string& name)
      : key_(std::hash<std::string>()(name) +
             static_cast<std::uint64_t>(step * 1000 + micro_batch)) {}
  float operator()(std::int64_t i) const {
    std::uint64_t x = key_ * 0x9e3779b97f4a7c15ULL + static_cast<std::uint64_t>(i);
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    x ^= x >> 31;
    const auto mantissa = static_cast<float>(static_cast<std::int32_t>(x >> 32)) * 0x1p-31F;
    return std::ldexp(mantissa, -static_cast<int>(x % 10));
  }

 private:
  std::uint64_t key_;
};

inline void add_gradient(float* to, std::int64_t n, const MadeUp& g, bool first) {
  for (std::int64_t i = 0; i < n; ++i) to[i] = first ? g(i) : to[i] + g(i);
}

// Where source `s` adds to the gradient of an expert's tensor.
inline float* source_gradient(const nn::Parameters& p, const nn::NamedTensor& t, std::int64_t s) {
  const std::int64_t sources = p.part().gradient_sources;
  if (sources == 1) return t.grad.as<float>();
  const auto* arena = p.master_elements({0, p.numel()}).as<float>();
  for (const nn::LayerParameters& layer : p.layers) {
    for (const auto* block : {&layer.expert_gate_up, &layer.expert_down}) {
      if (!block->has_value()) continue;
      const std::int64_t at = t.offset - ((*block)->master.as<float>() - arena);
      if (at < 0 || at >= (*block)->shape.numel()) continue;
      const std::int64_t n = (*block)->shape.numel() / (*block)->shape[0];
      return (*block)->grad.as<float>() + (at / n * sources + s) * n + at % n;
    }
  }
  ADD_FAILURE() << t.name << " is in no block";
  return nullptr;
}

// One rank of a run.
class Rank {
 public:
  Rank(comm::Communicator& world, const Job& job, MemoryLedger* ledger = nullptr)
      : job_(job),
        config_(job.config()),
        layout_(job.world, world.rank(), job.ep),
        groups_(make_groups(world, layout_)),
        context_(world.rank() == 0 ? 2 : 1),
        parameters_(job.model, Device::cpu, true, nullptr, part()),
        optimizer_(parameters_, layout_, groups_, config_, *context_,
                   {.ledger = ledger, .rule = job.rule}) {
    parameters_.initialize(*context_, 5);
  }
  nn::Parameters& parameters() { return parameters_; }
  ShardedOptimizer& optimizer() { return optimizer_; }
  const Layout& layout() const { return layout_; }

  // Gradients of a whole step. before_ready: called when the last gradients of all are there.
  void gradients(int step, const std::function<void()>& before_ready = {}) {
    optimizer_.begin_step();
    const int lanes = optimizer_.lanes();
    const int length = kMicroBatches / job_.world / lanes;
    for (int lane = 0; lane < lanes; ++lane) {
      for (int t = 0; t < length; ++t) {
        const bool last = lane + 1 == lanes && t + 1 == length;
        for (std::size_t group = 0; group < parameters_.groups().size(); ++group) {
          backward(step, parameters_.groups()[group], lane * length + t, t == 0);
          if (!last) continue;
          if (before_ready && group + 1 == parameters_.groups().size()) before_ready();
          optimizer_.ready(group);
        }
      }
      if (lane + 1 < lanes) optimizer_.lane_done();
    }
  }
  OptimizerResult step(int number) {
    gradients(number);
    return optimizer_.step(1e-2, 1.0);
  }

 private:
  nn::ModelPart part() const {
    const std::int64_t experts = job_.model.moe.num_experts;
    return {layout_.first_expert(experts), layout_.local_experts(experts),
            job_.deterministic == Deterministic::elastic ? job_.ep : 1};
  }
  // This rank's micro-batch number `mine`, and those that its expert-parallel group has meanwhile.
  void backward(int step, const nn::ParameterGroup& group, int mine, bool first) {
    const int each = kMicroBatches / job_.world;
    const auto in = [](const nn::ArenaRange& r, std::int64_t at) {
      return r.begin <= at && at < r.end;
    };
    for (const nn::NamedTensor& t : parameters_.tensors()) {
      const std::int64_t n = t.shape.numel();
      if (in(group.dense, t.offset)) {
        const int micro_batch = static_cast<int>(layout_.rank()) * each + mine;
        add_gradient(t.grad.as<float>(), n, {step, micro_batch, t.name}, first);
      }
      if (!in(group.experts, t.offset)) continue;
      for (int s = 0; s < job_.ep; ++s) {
        const int source = static_cast<int>(layout_.expert_data_parallel_index()) * job_.ep + s;
        const bool overwrite = first && (s == 0 || parameters_.part().gradient_sources > 1);
        add_gradient(source_gradient(parameters_, t, s), n, {step, source * each + mine, t.name},
                     overwrite);
      }
    }
  }

  const Job job_;
  Config config_;
  Layout layout_;
  Groups groups_;
  test::CpuContext context_;
  nn::Parameters parameters_;
  ShardedOptimizer optimizer_;
};

// A tensor of the whole run, put together from all ranks' pieces.
struct GlobalTensor {
  std::vector<float> p, m, v;
  std::map<std::string, std::vector<float>> others;  // states that are not m, v
  std::vector<int> writers;                          // of each element
  bool operator==(const GlobalTensor&) const = default;
};

struct Outcome {
  std::map<std::string, GlobalTensor> tensors;
  std::vector<double> norms, clips;
  bool operator==(const Outcome&) const = default;
};

// Adds a rank's saves to the outcome.
inline void collect(Rank& rank, Outcome& outcome) {
  const auto put = [](const TensorView& from, std::int64_t begin, std::vector<float>& to) {
    const auto* x = from.as<float>();
    for (std::int64_t i = 0; i < from.numel(); ++i) to[static_cast<std::size_t>(begin + i)] = x[i];
  };
  for (const ShardPiece& piece : rank.optimizer().saves()) {
    GlobalTensor& t = outcome.tensors[piece.tensor->name];
    const auto n = static_cast<std::size_t>(piece.tensor->shape.numel());
    for (auto* x : {&t.p, &t.m, &t.v}) x->resize(n);
    t.writers.resize(n);
    const auto [begin, end] = std::pair(piece.part.begin, piece.part.end);
    put(piece.param, begin, t.p);
    for (const OptimizerState& s : piece.state) {
      std::vector<float>& to = s.name == "m" ? t.m : s.name == "v" ? t.v : t.others[s.name];
      to.resize(n);
      put(s.values, begin, to);
    }
    for (std::int64_t i = begin; i < end; ++i) ++t.writers[static_cast<std::size_t>(i)];
  }
}

// All ranks hold the same parameters as the pieces say.
inline void expect_whole(Rank& rank, const Outcome& outcome) {
  for (const nn::NamedTensor& t : rank.parameters().tensors()) {
    const auto* p = t.master.as<float>();
    EXPECT_TRUE(std::equal(p, p + t.shape.numel(), outcome.tensors.at(t.name).p.begin()))
        << "rank " << rank.layout().rank() << " " << t.name;
  }
}

inline Outcome run(const Job& job) {
  Outcome outcome;
  std::mutex mutex;
  comm::run_local(job.world, [&](comm::Communicator& world) {
    Rank rank(world, job);
    for (int step = 1; step <= job.steps; ++step) {
      const OptimizerResult r = rank.step(step);
      if (world.rank() != 0) continue;
      EXPECT_TRUE(r.applied);
      outcome.norms.push_back(r.grad_norm);
      outcome.clips.push_back(r.clip_factor);
    }
    EXPECT_EQ(rank.optimizer().updates(), job.steps);
    {
      const std::lock_guard lock(mutex);
      collect(rank, outcome);
    }
    comm::barrier(world);
    expect_whole(rank, outcome);
  });
  return outcome;
}

}  // namespace grist::parallel
