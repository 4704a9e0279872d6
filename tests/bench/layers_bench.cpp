// The layers around the experts, one thread each: output layer with cross entropy in GFLOP/s, and
// norm, rope and swiglu in GB/s of the operands' bytes beside a plain copy in the same rounds.
// Usage: layers_bench [rounds].
#include <fmt/core.h>

#include <cstdlib>
#include <cstring>

#include "bench/bench.h"
#include "grist/core/context.h"
#include "grist/ops/cross_entropy.h"
#include "grist/ops/norm.h"
#include "grist/ops/rope.h"
#include "grist/ops/swiglu.h"

namespace {

using namespace grist;
using bench::Case;
using bench::random_tensor;

constexpr std::int64_t kTokens = 2048, kWidth = 512, kHidden = 2048, kHeads = 8;

struct Rows {
  std::vector<Buffer> keep;
  TensorView x = random_tensor(keep, {kTokens, kWidth}, "x");
  TensorView y = random_tensor(keep, {kTokens, kWidth}, "y");
  TensorView h = random_tensor(keep, {kTokens, kWidth}, "h");
  TensorView residual = random_tensor(keep, {kTokens, kWidth}, "residual");
  TensorView w = random_tensor(keep, {kWidth}, "w");
  TensorView dw = random_tensor(keep, {kWidth}, "dw");
  TensorView rstd = random_tensor(keep, {kTokens}, "rstd");
  TensorView z = random_tensor(keep, {kTokens, 2 * kHidden}, "z");
  TensorView dz = random_tensor(keep, {kTokens, 2 * kHidden}, "dz");
  TensorView a = random_tensor(keep, {kTokens, kHidden}, "a");
  TensorView table = random_tensor(keep, {kTokens, kWidth / kHeads}, "table");
  std::vector<std::int32_t> positions = std::vector<std::int32_t>(kTokens, 7);
};

struct Output {
  std::vector<Buffer> keep;
  std::int64_t V;
  TensorView x = random_tensor(keep, {kTokens, kWidth}, "x");
  TensorView dx = random_tensor(keep, {kTokens, kWidth}, "dx");
  TensorView losses = random_tensor(keep, {kTokens}, "losses");
  TensorView master, dw;
  ops::WeightView w;
  std::vector<std::int32_t> targets;
  float grad_scale = 1.0F / kTokens;

  Output(const Context& ctx, std::int64_t vocabulary) : V(vocabulary) {
    master = random_tensor(keep, {V, kWidth}, "w");
    dw = random_tensor(keep, {V, kWidth}, "dw");
    w.shape = master.shape;
    keep.emplace_back(ops::weight_bytes(Device::cpu, DType::f32, w.shape), Device::cpu, "packed");
    w.data = keep.back().data();
    ops::refresh_weight(ctx, {.out = w, .master = master});
    for (std::int64_t n = 0; n < kTokens; ++n)
      targets.push_back(static_cast<std::int32_t>(n * 7919 % V));
  }
  void run(const Context& ctx) const {
    ops::linear_cross_entropy(ctx, {.losses = losses,
                                    .z = {},
                                    .dx = dx,
                                    .dw = dw,
                                    .x = x,
                                    .w = w,
                                    .targets = {targets.data(), DType::i32, {kTokens}},
                                    .grad_scale = {&grad_scale, DType::f32, {1}},
                                    .accumulate = true});
  }
};

// Cases whose "flops" are bytes moved.
std::vector<Case> row_cases(const Context& ctx, const Rows& r) {
  const auto bytes = static_cast<double>(r.x.bytes());
  const auto wide = static_cast<double>(r.z.bytes());
  const ConstTensorView positions{r.positions.data(), DType::i32, {kTokens}};
  const Shape heads{kTokens, kHeads, kWidth / kHeads};
  return {
      {"copy", 2 * wide, [&r] { std::memcpy(r.dz.data, r.z.data, r.z.bytes()); }, {}},
      {"rms_norm_forward",
       4 * bytes,
       [&ctx, &r] {
         ops::rms_norm_forward(
             ctx, {.y = r.y, .h = r.h, .rstd = r.rstd, .x = r.x, .residual = r.residual, .w = r.w});
       },
       {}},
      {"rms_norm_backward",
       4 * bytes,
       [&ctx, &r] {
         ops::rms_norm_backward(ctx, {.dh = r.y,
                                      .dw = r.dw,
                                      .dy = r.x,
                                      .dresidual = r.residual,
                                      .h = r.h,
                                      .rstd = r.rstd,
                                      .w = r.w});
       },
       {}},
      {"rope",
       2 * bytes,
       [&ctx, &r, positions, heads] {
         ops::rope(ctx, {.x = reshape(r.x, heads), .positions = positions, .table = r.table});
       },
       {}},
      {"swiglu_forward",
       1.5 * wide,
       [&ctx, &r] { ops::swiglu_forward(ctx, {.a = r.a, .z = r.z}); },
       {}},
      {"swiglu_backward",
       2.5 * wide,
       [&ctx, &r] { ops::swiglu_backward(ctx, {.dz = r.dz, .da = r.a, .z = r.z}); },
       {}},
  };
}

}  // namespace

int main(int argc, char** argv) {
  flush_denormals();
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 15;
  Scratch scratch;
  Context ctx;
  ctx.scratch = &scratch;
  const Rows rows;
  std::vector<Case> cases = row_cases(ctx, rows);
  bench::run_interleaved(cases, rounds, bench::Clock::processor);
  const double copy = cases[0].flops / cases[0].median();
  for (const Case& c : cases) {
    const double rate = c.flops / c.median();
    fmt::print("{:<34} {:9.0f} us {:7.2f} GB/s    {:5.1f} % of a copy\n", c.name, c.median() * 1e6,
               rate * 1e-9, 100 * rate / copy);
  }
  std::vector<Case> outputs;
  const Output small(ctx, 4096), large(ctx, 32000);
  for (const Output* o : {&small, &large}) {
    const double flops = 6.0 * kTokens * kWidth * static_cast<double>(o->V);
    outputs.push_back(
        {fmt::format("linear_cross_entropy, V {}", o->V), flops, [&ctx, o] { o->run(ctx); }, {}});
  }
  bench::run_interleaved(outputs, std::min(rounds, 5), bench::Clock::processor);
  for (const Case& c : outputs)
    fmt::print("{:<34} {:9.0f} us {:7.1f} GFLOP/s\n", c.name, c.median() * 1e6,
               c.flops / c.median() * 1e-9);
  return 0;
}
