// What the sums of a step cost on one rank, in milliseconds: the update alone, and with the lane
// sums of deterministic: elastic, beside a plain copy of the gradients in the same rounds. Both
// updates include one such copy.
// Usage: gradient_sum_bench [rounds] [threads].
#include <fmt/core.h>

#include <cstdlib>
#include <cstring>

#include "bench/bench.h"
#include "grist/parallel/sharded_optimizer.h"

namespace {

using namespace grist;

// About 50 M parameters, most of them in experts.
ModelConfig model() {
  ModelConfig c;
  c.num_hidden_layers = 6;
  c.hidden_size = 512;
  c.num_attention_heads = c.num_key_value_heads = 8;
  c.head_dim = 64;
  c.intermediate_size = 2048;
  c.vocab_size = 4096;
  c.max_position_embeddings = 512;
  c.moe.num_experts = 16;
  c.moe.num_experts_per_tok = 4;
  c.moe.moe_intermediate_size = 256;
  return c;
}

struct OneRank {
  OneRank(Deterministic deterministic, const Context& ctx)
      : world(comm::alone()),
        groups(parallel::make_groups(*world, layout)),
        parameters(model(), Device::cpu, true, nullptr) {
    config.parallel.deterministic = deterministic;
    parameters.initialize(ctx, 1);
    optimizer.emplace(parameters, layout, groups, config, ctx,
                      parallel::ShardedOptimizer::Options{});
  }
  // The gradients are written anew, as by a backward pass: lanes add up in place.
  void step() {
    const nn::ArenaRange all = {0, parameters.numel()};
    const TensorView gradients = parameters.grad_elements(all);
    std::memcpy(gradients.data, parameters.master_elements(all).data, gradients.bytes());
    optimizer->begin_step();
    for (int lane = 1; lane < optimizer->lanes(); ++lane) optimizer->lane_done();
    optimizer->step(1e-4, 1.0);
  }
  parallel::Layout layout;
  std::unique_ptr<comm::Communicator> world;
  parallel::Groups groups;
  nn::Parameters parameters;
  Config config;
  std::optional<parallel::ShardedOptimizer> optimizer;
};

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 7;
  const int threads = argc > 2 ? std::atoi(argv[2]) : 2;
  flush_denormals();
  ThreadPool pool(threads);
  Scratch scratch;
  Context ctx;
  ctx.pool = &pool;
  ctx.scratch = &scratch;
  OneRank layout(Deterministic::layout, ctx), elastic(Deterministic::elastic, ctx);
  const nn::ArenaRange all = {0, layout.parameters.numel()};
  const TensorView from = layout.parameters.grad_elements(all);
  std::vector<Buffer> keep;
  keep.emplace_back(from.bytes(), Device::cpu, "copy");
  std::vector<bench::Case> cases;
  cases.push_back({"copy of the gradients",
                   0,
                   [&] { std::memcpy(keep[0].data(), from.data, from.bytes()); },
                   {}});
  cases.push_back({"update, layout", 0, [&] { layout.step(); }, {}});
  cases.push_back({fmt::format("update, elastic, {} lanes", elastic.optimizer->lanes()),
                   0,
                   [&] { elastic.step(); },
                   {}});
  bench::run_interleaved(cases, rounds, bench::Clock::wall);
  fmt::print("{:.1f} M parameters, {} threads, {} rounds\n", static_cast<double>(all.end) * 1e-6,
             threads, rounds);
  for (const bench::Case& c : cases)
    fmt::print("{:28} {:8.1f} ms   {:5.2f} copies\n", c.name, c.median() * 1e3,
               c.median() / cases[0].median());
  return 0;
}
