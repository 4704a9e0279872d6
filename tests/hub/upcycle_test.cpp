// Dense models as experts: the same logits where the router's weights sum to the same, experts that
// are cuts of the FFN, routers alike in every shard.
#include "grist/hub/upcycle.h"

#include <cmath>

#include "grist/ckpt/checkpoint.h"
#include "grist/config/load.h"
#include "hub/support.h"

namespace grist::test {
namespace {

fs::path run_of(const TemporaryFolder& temp, const std::string& name) {
  hub::import_model({.input = golden(name), .output = temp / "dense", .prove = false});
  return temp / "dense";
}

std::vector<float> read(const fs::path& run, const std::string& name) {
  const CheckpointReader step(list_steps(run / "checkpoints").front().folder);
  const auto* info = step.manifest().find_tensor(name);
  if (info == nullptr) throw std::runtime_error("no tensor " + name);
  std::vector<float> out(static_cast<std::size_t>(info->shape.numel()));
  const TensorDestination to = whole_destination(name, {out.data(), DType::f32, info->shape});
  step.read(std::span(&to, 1), {.ignore_prefixes = {""}, .touched_blocks_only = true});
  return out;
}

struct Way {
  const char* name;
  std::int64_t granularity, expansion, flops;
  std::vector<std::string> sets;
};

TEST(Upcycle, ComputesWhatTheDenseModelDoes) {
  const std::vector<Way> ways = {
      {"llama", 4, 2, 1, {}},
      {"llama", 2, 4, 2, {}},
      {"llama", 1, 3, 2, {}},  // whole copies
      {"qwen3", 4, 3, 2, {}},
      {"qwen3", 2, 2, 1, {"model.moe.first_k_dense_replace=1"}},
      {"qwen3",
       4,
       2,
       1,
       {"model.moe.router.pre_softmax=true", "model.moe.router.norm_topk_prob=true"}},
      {"llama",
       4,
       2,
       1,
       {"model.moe.router.score_function=sigmoid", "model.moe.router.norm_topk_prob=true",
        "model.moe.router.routed_scaling_factor=2.5"}}};
  for (const Way& w : ways) {
    const TemporaryFolder temp;
    const hub::Upcycled x = hub::upcycle({.checkpoint = run_of(temp, w.name),
                                          .output = temp / "experts",
                                          .granularity = w.granularity,
                                          .expansion_rate = w.expansion,
                                          .flops_multiplier = w.flops,
                                          .sets = w.sets,
                                          .threads = 1});
    EXPECT_TRUE(x.exact);
    EXPECT_TRUE(x.proved);
    EXPECT_GT(x.largest_logit, 0.1);
    EXPECT_LT(x.difference, 1e-5 * std::max(1.0, x.largest_logit)) << w.name << w.granularity;
    EXPECT_NEAR(x.loss, x.dense_loss, 1e-5);
    EXPECT_GT(x.parameters, x.dense_parameters);
  }
}

// Weights over all experts that are not divided by their sum depend on the logits.
TEST(Upcycle, AnotherRouterIsCloseAndSaidNotToBeExact) {
  const TemporaryFolder temp;
  const hub::Upcycled x = hub::upcycle({.checkpoint = run_of(temp, "llama"),
                                        .output = temp / "experts",
                                        .granularity = 4,
                                        .expansion_rate = 2,
                                        .flops_multiplier = 1,
                                        .sets = {"model.moe.router.pre_softmax=true"},
                                        .threads = 1});
  EXPECT_FALSE(x.exact);
  EXPECT_GT(x.difference, 1e-4);
  EXPECT_NEAR(x.loss, x.dense_loss, 0.2);
}

TEST(Upcycle, ExpertsAreScaledCutsAndRoutersAlikeInEveryShard) {
  constexpr std::int64_t kShards = 2, kCopies = 3;
  const TemporaryFolder temp;
  const fs::path dense = run_of(temp, "llama"), run = temp / "experts";
  hub::upcycle({.checkpoint = dense,
                .output = run,
                .granularity = kShards,
                .expansion_rate = kCopies,
                .flops_multiplier = 1,
                .prove = false});
  const Config c = saved_config(read_text(run / "config.yaml"), "config.yaml");
  const auto D = static_cast<std::size_t>(c.model.hidden_size);
  const auto F = static_cast<std::size_t>(c.model.moe.moe_intermediate_size);
  const auto scale = static_cast<float>(std::sqrt(static_cast<double>(kShards)));
  EXPECT_EQ(c.model.moe.num_experts, kShards * kCopies);
  EXPECT_EQ(c.model.moe.num_experts_per_tok, kShards);

  const std::string at = "model.layers.1.mlp.";
  const auto gate = read(dense, at + "gate_proj.weight"), up = read(dense, at + "up_proj.weight"),
             down = read(dense, at + "down_proj.weight"), router = read(run, at + "gate.weight");
  for (std::size_t e = 0; e < kShards * kCopies; ++e) {
    const std::string here = fmt::format("{}experts.{}.", at, e);
    const std::size_t shard = e / kCopies;
    const auto own_gate = read(run, here + "gate_proj.weight"),
               own_up = read(run, here + "up_proj.weight"),
               own_down = read(run, here + "down_proj.weight");
    for (std::size_t f = 0; f < F; ++f)
      for (std::size_t d = 0; d < D; ++d) {
        ASSERT_EQ(own_gate[f * D + d], gate[(shard * F + f) * D + d]);
        ASSERT_EQ(own_up[f * D + d], up[(shard * F + f) * D + d] * scale);
        ASSERT_EQ(own_down[d * F + f], down[d * F * kShards + shard * F + f] * scale);
      }
    for (std::size_t d = 0; d < D; ++d)
      ASSERT_EQ(router[e * D + d], router[e % kCopies * D + d]) << "expert " << e;
  }
  EXPECT_NE(std::vector<float>(router.begin(), router.begin() + static_cast<std::ptrdiff_t>(D)),
            std::vector<float>(router.begin() + static_cast<std::ptrdiff_t>(D),
                               router.begin() + static_cast<std::ptrdiff_t>(2 * D)));
  EXPECT_EQ(read(run, "model.embed_tokens.weight"), read(dense, "model.embed_tokens.weight"));
}

TEST(Upcycle, WhatCannotBeCutIsRefused) {
  const TemporaryFolder temp;
  const fs::path dense = run_of(temp, "llama");
  const auto refused = [&](hub::UpcycleOptions o) {
    o.checkpoint = o.checkpoint.empty() ? dense : o.checkpoint;
    o.output = temp / "no";
    const Refusal r = refusal([&] { hub::upcycle(o); });
    EXPECT_FALSE(fs::exists(temp / "no"));
    return r;
  };
  const Refusal seven = refused({.granularity = 7});
  EXPECT_EQ(seven.code, ExitCode::config);
  EXPECT_SAYS(seven, "granularity");
  const Refusal more = refused({.granularity = 4, .expansion_rate = 2, .flops_multiplier = 3});
  EXPECT_NE(more.code, ExitCode::ok);
  const Refusal shared = refused({.granularity = 4,
                                  .expansion_rate = 2,
                                  .sets = {"model.moe.shared_expert_intermediate_size=8"}});
  EXPECT_EQ(shared.code, ExitCode::config);
  EXPECT_SAYS(shared, "shared_expert_intermediate_size");

  hub::import_model({.input = golden("mixtral"), .output = temp / "mixtral", .prove = false});
  const Refusal twice = refused({.checkpoint = temp / "mixtral", .granularity = 2});
  EXPECT_EQ(twice.code, ExitCode::config);
  EXPECT_SAYS(twice, "only a dense model");
}

}  // namespace
}  // namespace grist::test
