// The granularity tax: time of one MoE layer, forward and backward, with experts cut into G thinner
// ones at the same FLOPs and parameters (d 512, d_ff 2048, 2048 tokens, expansion rate 8), balanced
// routing given. Usage: moe_layer_bench [rounds].
#include <fmt/core.h>

#include <cstdlib>
#include <memory>
#include <thread>

#include "bench/bench.h"
#include "grist/core/context.h"
#include "grist/ops/dispatch.h"
#include "grist/ops/experts.h"

namespace {

using namespace grist;
using bench::random_tensor;

constexpr std::int64_t N = 2048, D = 512, kDenseWidth = 2048, kExpansion = 8;

// Choices spread evenly: token n takes experts h, h + E/K, h + 2 E/K, ...
struct Routing {
  std::vector<std::int32_t> offsets, row_token, slot_row;
  Routing(std::int64_t E, std::int64_t K) {
    const Permutation shuffled(static_cast<std::uint64_t>(N), 1, "routing");
    const std::int64_t stride = E / K;
    std::vector<std::vector<std::int64_t>> slots(static_cast<std::size_t>(E));
    for (std::int64_t n = 0; n < N; ++n) {
      const auto h = static_cast<std::int64_t>(shuffled(static_cast<std::uint64_t>(n))) % stride;
      for (std::int64_t k = 0; k < K; ++k)
        slots[static_cast<std::size_t>(h + k * stride)].push_back(n * K + k);
    }
    slot_row.resize(static_cast<std::size_t>(N * K));
    offsets.push_back(0);
    for (const auto& of_expert : slots) {
      for (const std::int64_t slot : of_expert) {
        slot_row[static_cast<std::size_t>(slot)] = static_cast<std::int32_t>(row_token.size());
        row_token.push_back(static_cast<std::int32_t>(slot / K));
      }
      offsets.push_back(static_cast<std::int32_t>(row_token.size()));
    }
  }
};

class Layer {
 public:
  Layer(const Context& ctx, std::int64_t granularity, std::int64_t flops_multiplier)
      : ctx_(ctx),
        E_(granularity * kExpansion),
        K_(granularity * flops_multiplier),
        F_(kDenseWidth / granularity),
        R_(N * K_),
        routing_(E_, K_) {
    w13_ = packed(random_tensor(keep_, {E_, 2 * F_, D}, "w13"));
    w2_ = packed(random_tensor(keep_, {E_, D, F_}, "w2"));
  }
  double flops() const {
    return 18.0 * static_cast<double>(R_) * static_cast<double>(D) * static_cast<double>(F_);
  }
  std::string name() const { return fmt::format("E {:3}  K {:2}  F {:4}", E_, K_, F_); }

  void run() {
    forward();
    backward();
  }

 private:
  ops::WeightView packed(const TensorView& master) {
    ops::WeightView w;
    w.shape = master.shape;
    keep_.emplace_back(ops::weight_bytes(Device::cpu, DType::f32, w.shape), Device::cpu, "packed");
    w.data = keep_.back().data();
    ops::refresh_weight(ctx_, {.out = w, .master = master});
    return w;
  }
  static ConstTensorView ints(const std::vector<std::int32_t>& v, const Shape& shape) {
    return {v.data(), DType::i32, shape};
  }
  void forward() {
    ops::expert_up_forward(
        ctx_,
        {.z = z_, .a = a_, .x = x_, .row_token = token_, .expert_offsets = offsets_, .w = w13_});
    ops::expert_down_forward(ctx_, {.y = rows_, .a = a_, .expert_offsets = offsets_, .w = w2_});
    ops::gather_sum(ctx_, {.y = y_, .rows = rows_, .slot_row = slot_row_, .weights = weights_});
  }
  void backward() {
    ops::expert_down_backward(ctx_, {.dz = dz_,
                                     .weighted_a = a_,
                                     .drow_weight = drow_weight_,
                                     .dy = dy_,
                                     .z = z_,
                                     .row_token = token_,
                                     .row_weight = row_weight_,
                                     .expert_offsets = offsets_,
                                     .w = w2_});
    ops::expert_weight_gradient(ctx_, {.dw = dw2_,
                                       .dy = dy_,
                                       .dy_token = token_,
                                       .x = a_,
                                       .x_token = {},
                                       .expert_offsets = offsets_,
                                       .accumulate = true});
    ops::expert_up_backward(ctx_, {.dx = rows_, .dz = dz_, .expert_offsets = offsets_, .w = w13_});
    ops::expert_weight_gradient(ctx_, {.dw = dw13_,
                                       .dy = dz_,
                                       .dy_token = {},
                                       .x = x_,
                                       .x_token = token_,
                                       .expert_offsets = offsets_,
                                       .accumulate = true});
    ops::gather_sum(ctx_, {.y = dx_, .rows = rows_, .slot_row = slot_row_, .weights = {}});
  }

  Context ctx_;
  std::int64_t E_, K_, F_, R_;
  Routing routing_;
  std::vector<Buffer> keep_;
  ops::WeightView w13_, w2_;
  TensorView x_ = random_tensor(keep_, {N, D}, "x"), dy_ = random_tensor(keep_, {N, D}, "dy");
  TensorView y_ = random_tensor(keep_, {N, D}, "y"), dx_ = random_tensor(keep_, {N, D}, "dx");
  TensorView z_ = random_tensor(keep_, {R_, 2 * F_}, "z"),
             dz_ = random_tensor(keep_, {R_, 2 * F_}, "dz");
  TensorView a_ = random_tensor(keep_, {R_, F_}, "a"),
             rows_ = random_tensor(keep_, {R_, D}, "rows");
  TensorView row_weight_ = random_tensor(keep_, {R_}, "row_weight");
  TensorView drow_weight_ = random_tensor(keep_, {R_}, "drow_weight");
  TensorView weights_ = random_tensor(keep_, {N, K_}, "weights");
  TensorView dw13_ = random_tensor(keep_, {E_, 2 * F_, D}, "dw13");
  TensorView dw2_ = random_tensor(keep_, {E_, D, F_}, "dw2");
  ConstTensorView token_ = ints(routing_.row_token, {R_});
  ConstTensorView offsets_ = ints(routing_.offsets, {E_ + 1});
  ConstTensorView slot_row_ = ints(routing_.slot_row, {N, K_});
};

void measure(const Context& ctx, std::int64_t flops_multiplier, int rounds) {
  std::vector<std::unique_ptr<Layer>> layers;
  std::vector<bench::Case> cases;
  for (const std::int64_t G : {1, 2, 4, 8}) {
    layers.push_back(std::make_unique<Layer>(ctx, G, flops_multiplier));
    Layer* layer = layers.back().get();
    cases.push_back(
        {fmt::format("G {}  {}", G, layer->name()), layer->flops(), [layer] { layer->run(); }, {}});
  }
  bench::run_interleaved(cases, rounds,
                         ctx.num_workers() == 1 ? bench::Clock::processor : bench::Clock::wall);
  for (const bench::Case& c : cases) {
    fmt::print("{:7}  {}x FLOPs  {}  {:7.2f} ms  {:6.1f} GFLOP/s   {:.3f}  {:.3f}\n",
               ctx.num_workers(), flops_multiplier, c.name, c.median() * 1e3,
               c.flops / c.median() * 1e-9, c.median() / cases[0].median(),
               c.best() / cases[0].best());
  }
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 9;
  flush_denormals();
  fmt::print("MoE layer, forward + backward, d {}, d_ff {}, {} tokens, {} rounds in turn\n", D,
             kDenseWidth, N, rounds);
  fmt::print("threads; median time; last columns: time over G 1, of medians and of best rounds\n");
  const int cores = static_cast<int>(std::thread::hardware_concurrency());
  for (const int threads : {1, cores}) {
    ThreadPool pool(threads);
    Scratch scratch;
    const Context ctx{.pool = &pool, .scratch = &scratch};
    for (const std::int64_t multiplier : {1, 2}) measure(ctx, multiplier, rounds);
    if (cores == 1) break;
  }
  return 0;
}
