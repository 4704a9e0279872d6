// A model whose experts are spread over ranks, against one rank that holds them all and runs each
// source's micro-batches by itself: the same bits in losses, statistics and gradients; expert
// gradients apart by source have the same bits too, their sum is close.
#include "grist/parallel/expert_exchange.h"

#include <gtest/gtest.h>

#include <functional>

#include "grist/comm/local.h"
#include "grist/core/error.h"
#include "grist/parallel/layout.h"
#include "support/model.h"

namespace grist::parallel {
namespace {

constexpr std::int64_t kRows = 2, kLength = 9, kTokens = kRows * kLength;
constexpr std::int64_t kMaxSources = 8, kMicroBatches = 2;

struct Case {
  const char* name;
  std::function<void(ModelConfig&)> change;
  std::vector<float> bias = {};  // of every MoE layer
};

// Selection biases that decide alone: rank 0 of any layout gets all rows, or expert 3 none.
const std::vector<float> kFirstTwo = {90, 80, 0, 0, 0, 0, 0, 0};
const std::vector<float> kNotThree = {0, 0.1F, 0, -90, 0, 0.2F, 0, 0};

void sigmoid(ModelConfig& m) {
  m.moe.router.score_function = ScoreFunction::sigmoid;
  m.moe.router.norm_topk_prob = true;
  m.moe.router.routed_scaling_factor = 2.5;
}

const Case kCases[] = {
    {"Dropless", [](ModelConfig&) {}},
    {"CapacityByProbability", [](ModelConfig& m) { m.moe.capacity_factor = 0.7; }},
    {"CapacityByPosition",
     [](ModelConfig& m) {
       m.moe.capacity_factor = 0.7, m.moe.token_drop_policy = TokenDropPolicy::position;
     }},
    {"SequenceScope",
     [](ModelConfig& m) {
       m.moe.aux_loss_scope = AuxLossScope::sequence, m.moe.aux_loss_coeff = 0.5;
     }},
    {"MicroBatchScope",
     [](ModelConfig& m) { m.moe.aux_loss_coeff = 0.5, m.moe.z_loss_coeff = 0.1; }},
    {"GlobalBatchScope",
     [](ModelConfig& m) {
       m.moe.aux_loss_scope = AuxLossScope::global_batch, m.moe.aux_loss_coeff = 0.5;
     }},
    {"SoftmaxBeforeTop1",
     [](ModelConfig& m) { m.moe.router.pre_softmax = true, m.moe.num_experts_per_tok = 1; }},
    {"SigmoidBias", sigmoid, {0.1F, -0.2F, 0.3F, 0, 0.05F, -0.1F, 0.2F, 0}},
    {"SharedExpertAndDenseFront",
     [](ModelConfig& m) {
       m.num_hidden_layers = 3;
       m.moe.first_k_dense_replace = 1;
       m.moe.shared_expert_intermediate_size = 12;
     }},
    {"QkNormTied", [](ModelConfig& m) { m.qk_norm = m.tie_word_embeddings = true; }},
    {"AllRowsToOneRank", sigmoid, kFirstTwo},
    {"AllRowsToOneRankDropped", [](ModelConfig& m) { sigmoid(m), m.moe.capacity_factor = 1.5; },
     kFirstTwo},
    {"AnExpertWithoutRows", sigmoid, kNotThree},
};

ModelConfig config_of(const Case& c) {
  ModelConfig m = test::tiny_model();
  c.change(m);
  return m;
}

using Floats = std::vector<float>;

Floats values(const TensorView& v) {
  const auto* x = v.as<float>();
  return {x, x + v.numel()};
}

// Part i of n of the outermost dim.
Floats part(const TensorView& v, std::int64_t i, std::int64_t n) {
  const std::int64_t rows_ = v.shape[0] / n;
  return values(rows(v, i * rows_, (i + 1) * rows_));
}

struct Spread {
  std::int64_t world = 1, ep = 1;
  nn::Keep keep = nn::Keep::everything;
  bool apart = true;  // expert gradients by source
  bool overlap = true;
  double receive_factor = 1e6;  // room for all that can come
};

// One rank of a run: model, activations and the micro-batches of its own number.
class Rank {
 public:
  Rank(const Case& c, const Spread& spread, comm::Communicator* world)
      : config_(config_of(c)),
        spread_(spread),
        layout_(spread.world, world == nullptr ? 0 : world->rank(), spread.ep) {
    if (world != nullptr) groups_ = make_groups(*world, layout_);
    const nn::ModelPart part = {layout_.first_expert(config_.moe.num_experts),
                                layout_.local_experts(config_.moe.num_experts),
                                spread.apart ? spread.ep : 1};
    model_.emplace(config_, Device::cpu, true, &ledger, part);
    model_->parameters().initialize(*context_, 3);
    model_->parameters().refresh(*context_);
    nn::RouterState& state = model_->router_state();
    for (std::size_t l = 0; l < state.bias.size(); ++l) {
      if (!c.bias.empty()) state.bias[l] = c.bias;
      for (std::size_t e = 0; e < 8; ++e)
        state.load_fraction[l][e] = static_cast<float>(e + l + 1) / 36.0F;
    }
    act.emplace(activations(spread.keep));
  }

  nn::Activations activations(nn::Keep keep) {
    Config c;
    c.model = config_;
    c.parallel.overlap_expert_exchange = spread_.overlap;
    c.parallel.expert_receive_factor = spread_.receive_factor;
    std::unique_ptr<nn::ExpertExchange> exchange;
    if (groups_.expert_parallel)
      exchange = make_expert_exchange(groups_.expert_parallel, c, kTokens, keep, Device::cpu,
                                      DType::f32, &ledger);
    return {config_, kTokens, kRows, keep, Device::cpu, &ledger, std::move(exchange)};
  }

  // A step of source `source`: gradients in the arena.
  void step(std::int64_t source) {
    statistics.reset();
    losses.clear();
    for (std::int64_t m = 0; m < kMicroBatches; ++m) {
      model_->forward_backward(*context_, *act, batch(source, m).view(),
                               {.loss_scale = 0.01F, .micro_batch_weight = 0.25F, .first = m == 0},
                               statistics);
      const Floats l = values(act->losses);
      losses.insert(losses.end(), l.begin(), l.end());
    }
  }

  Floats evaluate(std::int64_t source) {
    nn::Activations nothing = activations(nn::Keep::nothing);
    model_->evaluate(*context_, nothing, batch(source, 0).view());
    return values(nothing.losses);
  }

  nn::Model& model() { return *model_; }
  const Layout& layout() const { return layout_; }
  Floats dense_gradients() const {
    return values(model_->parameters().grad_elements(model_->parameters().dense_range()));
  }
  // Stored blocks of experts, of all layers.
  std::vector<const nn::Parameter*> expert_blocks() const {
    std::vector<const nn::Parameter*> out;
    for (const nn::LayerParameters& l : model_->parameters().layers) {
      if (l.is_moe()) out.insert(out.end(), {&*l.expert_gate_up, &*l.expert_down});
    }
    return out;
  }

  MemoryLedger ledger;
  nn::StepStatistics statistics;
  Floats losses;
  std::optional<nn::Activations> act;

 private:
  test::TestBatch batch(std::int64_t source, std::int64_t m) const {
    test::TestBatch b(kRows, kLength, config_.vocab_size,
                      "exchange " + std::to_string(source) + "." + std::to_string(m));
    b.targets[static_cast<std::size_t>(source + m)] = -1;
    return b;
  }

  ModelConfig config_;
  Spread spread_;
  Layout layout_;
  Groups groups_;
  test::CpuContext context_{1};
  std::optional<nn::Model> model_;
};

// What a rank with all experts computes for each source.
struct Reference {
  struct Source {
    Floats losses, evaluation, dense;
    std::vector<std::vector<Floats>> experts;  // block, expert
    nn::StepStatistics statistics;
  };
  std::vector<Source> sources;

  explicit Reference(const Case& c) {
    Rank rank(c, {}, nullptr);
    for (std::int64_t s = 0; s < kMaxSources; ++s) {
      rank.step(s);
      Source out{rank.losses, {}, rank.dense_gradients(), {}, rank.statistics};
      for (const nn::Parameter* p : rank.expert_blocks()) {
        out.experts.emplace_back();
        for (std::int64_t e = 0; e < 8; ++e) out.experts.back().push_back(part(p->grad, e, 8));
      }
      out.evaluation = rank.evaluate(s);
      sources.push_back(std::move(out));
    }
  }
};

void expect_same_statistics(const nn::StepStatistics& got, const nn::StepStatistics& want) {
  EXPECT_EQ(got.loss_sum, want.loss_sum);
  ASSERT_EQ(got.layers.size(), want.layers.size());
  for (std::size_t l = 0; l < got.layers.size(); ++l) {
    const nn::LayerStatistics &g = got.layers[l], &w = want.layers[l];
    EXPECT_EQ(g.counts, w.counts);
    EXPECT_EQ(g.tokens, w.tokens);
    EXPECT_EQ(g.dropped, w.dropped);
    for (const auto& sum : nn::kLayerSums) EXPECT_EQ(g.*sum.field, w.*sum.field) << sum.name;
  }
}

// Bit for bit where each source has its own gradient, else close to the sum.
void expect_expert_gradients(const Rank& rank, const Spread& spread, const Reference& reference) {
  const std::int64_t El = 8 / spread.ep, first = rank.layout().first_expert(8);
  const std::int64_t group = rank.layout().rank() / spread.ep * spread.ep;
  const std::vector<const nn::Parameter*> blocks = rank.expert_blocks();
  for (std::size_t b = 0; b < blocks.size(); ++b) {
    for (std::int64_t e = 0; e < El; ++e) {
      std::vector<double> sum;
      for (std::int64_t s = 0; s < spread.ep; ++s) {
        const Floats& want = reference.sources[static_cast<std::size_t>(group + s)]
                                 .experts[b][static_cast<std::size_t>(first + e)];
        if (spread.apart) {
          EXPECT_TRUE(part(blocks[b]->grad, e * spread.ep + s, El * spread.ep) == want)
              << "block " << b << ", expert " << first + e << ", source " << s;
        }
        sum.resize(want.size());
        for (std::size_t i = 0; i < want.size(); ++i) sum[i] += static_cast<double>(want[i]);
      }
      if (!spread.apart) {
        EXPECT_TRUE(
            test::close(part(blocks[b]->grad, e, El), sum, {.relative = 1e-5, .absolute = 1e-7}))
            << "block " << b << ", expert " << first + e;
      }
    }
  }
}

void expect_matches(const Case& c, const Spread& spread, const Reference& reference) {
  SCOPED_TRACE(testing::Message() << "world " << spread.world << ", ep " << spread.ep << ", keep "
                                  << static_cast<int>(spread.keep)
                                  << (spread.apart ? ", apart" : "")
                                  << (spread.overlap ? ", overlapped" : ""));
  comm::run_local(static_cast<int>(spread.world), [&](comm::Communicator& world) {
    SCOPED_TRACE("rank " + std::to_string(world.rank()));
    Rank rank(c, spread, &world);
    const Reference::Source& want = reference.sources[static_cast<std::size_t>(world.rank())];
    for (int again = 0; again < 2; ++again) {  // what a step leaves does not reach the next
      rank.step(world.rank());
      EXPECT_TRUE(rank.losses == want.losses);
      EXPECT_TRUE(rank.dense_gradients() == want.dense);
      expect_same_statistics(rank.statistics, want.statistics);
      expect_expert_gradients(rank, spread, reference);
      EXPECT_TRUE(rank.evaluate(world.rank()) == want.evaluation);
    }
  });
}

class ExpertExchange : public ::testing::TestWithParam<Case> {};

TEST_P(ExpertExchange, HasTheBitsOfOneRank) {
  using nn::Keep;
  const Reference reference(GetParam());
  for (const Keep keep : {Keep::everything, Keep::all_but_large, Keep::layer_inputs}) {
    for (const bool overlap : {false, true}) {
      expect_matches(GetParam(), {2, 2, keep, true, overlap}, reference);
      expect_matches(GetParam(), {4, 4, keep, true, overlap}, reference);
    }
    expect_matches(GetParam(), {4, 4, keep, false, true}, reference);
  }
  expect_matches(GetParam(), {8, 8, Keep::everything, true, true}, reference);
  expect_matches(GetParam(), {8, 4, Keep::layer_inputs, true, true}, reference);
  expect_matches(GetParam(), {8, 2, Keep::everything, false, false}, reference);
}

TEST(ExpertExchangeRoom, GrowsOnceAndKeepsTheBits) {
  const Case all_to_one = {"AllRowsToOneRank", sigmoid, kFirstTwo};
  const Reference reference(all_to_one);
  for (const nn::Keep keep : {nn::Keep::everything, nn::Keep::layer_inputs}) {
    const Spread spread{4, 4, keep, true, true, 1.0};
    comm::run_local(4, [&](comm::Communicator& world) {
      Rank rank(all_to_one, spread, &world);
      const std::size_t before = rank.ledger.total_bytes();
      rank.step(world.rank());
      EXPECT_TRUE(rank.losses == reference.sources[static_cast<std::size_t>(world.rank())].losses);
      expect_expert_gradients(rank, spread, reference);
      EXPECT_EQ(rank.act->exchange()->growths(), world.rank() == 0 ? 2 : 0);  // a layer each
      EXPECT_EQ(rank.ledger.total_bytes() > before, world.rank() == 0);

      const std::size_t after = rank.ledger.total_bytes();
      rank.step(world.rank());
      EXPECT_EQ(rank.act->exchange()->growths(), world.rank() == 0 ? 2 : 0);
      EXPECT_EQ(rank.ledger.total_bytes(), after);
    });
  }
}

TEST(ExpertExchangeRoom, CapacityBoundsIt) {
  Case c = {"Capacity", [](ModelConfig& m) { sigmoid(m), m.moe.capacity_factor = 0.5; }, kFirstTwo};
  const Spread spread{4, 4, nn::Keep::everything, true, true, 1.0};
  comm::run_local(4, [&](comm::Communicator& world) {
    Rank rank(c, spread, &world);
    rank.step(world.rank());
    EXPECT_EQ(rank.act->exchange()->growths(), 0);
    EXPECT_GT(rank.statistics.layers[0].dropped, 0);
  });
}

TEST(ExpertExchangeErrors, ExpertsOfTheModelAndOfTheExchangeMustAgree) {
  const Case c = {"Dropless", [](ModelConfig&) {}};
  Rank whole(c, {}, nullptr);
  comm::run_local(2, [&](comm::Communicator& world) {
    Rank half(c, {2, 2}, &world);
    if (world.rank() != 0) return;
    whole.act.emplace(half.activations(nn::Keep::everything));
    EXPECT_THROW(whole.step(0), Error);
    whole.act.reset();
  });
}

INSTANTIATE_TEST_SUITE_P(Kinds, ExpertExchange, ::testing::ValuesIn(kCases),
                         [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace grist::parallel
