// The granularity tax: time of one MoE layer, forward and backward, with experts cut into G thinner
// ones at the same FLOPs and parameters (expansion rate 8), balanced routing given. On the CPU d
// 512, d_ff 2048, 2048 tokens; on a GPU the layers of the 11B and 56B presets with 16384 tokens, in
// bf16.
//   moe_layer_bench [rounds] [--rounds N] [--device cpu|cuda] [--model NAME] [--tokens N]
//       [--json FILE]
#include <fmt/core.h>

#include <cstdlib>
#include <memory>
#include <string>
#include <thread>

#include "app/backends.h"
#include "bench/bench.h"
#include "bench/device_tensors.h"
#include "grist/core/context.h"
#include "grist/core/device.h"
#include "grist/core/error.h"
#include "grist/ops/dispatch.h"
#include "grist/ops/experts.h"

namespace {

using namespace grist;

constexpr std::int64_t kExpansion = 8;

struct Options {
  int rounds = 9;
  Device device = Device::cpu;
  std::int64_t tokens = 0;  // 0: the shape's own
  std::string model, json;
};

struct LayerShape {
  std::string model;
  std::int64_t D, dense_width, N;
  std::vector<std::int64_t> granularities;
};
std::vector<LayerShape> layer_shapes(const Options& options) {
  const std::vector<LayerShape> all = {{"small", 512, 2048, 2048, {1, 2, 4, 8}},
                                       {"11b", 2048, 8192, 16384, {1, 8}},
                                       {"56b", 4096, 16384, 16384, {1, 8}},
                                       {"tiny", 64, 128, 64, {1, 8}}};  // for trying the program
  std::vector<LayerShape> chosen;
  for (const LayerShape& s : all) {
    const bool by_default =
        options.device == Device::cpu ? s.model == "small" : s.model == "11b" || s.model == "56b";
    if (options.model.empty() ? by_default : s.model == options.model) chosen.push_back(s);
  }
  return chosen;
}

// Choices spread evenly: token n takes experts h, h + E/K, h + 2 E/K, ...
struct Routing {
  std::vector<std::int32_t> offsets, row_token, slot_row;
  Routing(std::int64_t N, std::int64_t E, std::int64_t K) {
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
  Layer(const Context& ctx, const LayerShape& s, std::int64_t granularity,
        std::int64_t flops_multiplier)
      : ctx_(ctx),
        N_(s.N),
        D_(s.D),
        E_(granularity * kExpansion),
        K_(granularity * flops_multiplier),
        F_(s.dense_width / granularity),
        R_(N_ * K_),
        routing_(N_, E_, K_) {}
  double flops() const {
    return 18.0 * static_cast<double>(R_) * static_cast<double>(D_) * static_cast<double>(F_);
  }
  std::string name() const { return fmt::format("E {:3}  K {:2}  F {:4}", E_, K_, F_); }

  std::string words() const { return fmt::format("N={} D={} E={} K={} F={}", N_, D_, E_, K_, F_); }

  void run() {
    forward();
    backward();
    wait(ctx_);
  }

 private:
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

  const Context& ctx_;
  std::int64_t N_, D_, E_, K_, F_, R_;
  Routing routing_;
  bench::DeviceTensors t_{ctx_};
  ops::WeightView w13_ = t_.weight({E_, 2 * F_, D_}, "w13"), w2_ = t_.weight({E_, D_, F_}, "w2");
  TensorView x_ = t_.random({N_, D_}, "x"), dy_ = t_.random({N_, D_}, "dy");
  TensorView y_ = t_.random({N_, D_}, "y"), dx_ = t_.random({N_, D_}, "dx");
  TensorView z_ = t_.random({R_, 2 * F_}, "z"), dz_ = t_.random({R_, 2 * F_}, "dz");
  TensorView a_ = t_.random({R_, F_}, "a"), rows_ = t_.random({R_, D_}, "rows");
  TensorView row_weight_ = t_.random({R_}, "row_weight", DType::f32);
  TensorView drow_weight_ = t_.random({R_}, "drow_weight", DType::f32);
  TensorView weights_ = t_.random({N_, K_}, "weights", DType::f32);
  TensorView dw13_ = t_.random({E_, 2 * F_, D_}, "dw13", DType::f32);
  TensorView dw2_ = t_.random({E_, D_, F_}, "dw2", DType::f32);
  ConstTensorView token_ = t_.ints(routing_.row_token, {R_});
  ConstTensorView offsets_ = t_.ints(routing_.offsets, {E_ + 1});
  ConstTensorView slot_row_ = t_.ints(routing_.slot_row, {N_, K_});
};

void write_json(const std::string& path, const std::string& shape, const bench::Case& c) {
  if (path.empty()) return;
  std::FILE* file = std::fopen(path.c_str(), "a");
  if (file == nullptr) throw Error(ExitCode::cannot_create, path + ": cannot be written");
  fmt::print(file,
             "{{\"kernel\": \"moe_layer\", \"shape\": \"{}\", \"dtype\": \"bf16\", \"ms\": {:.5f}, "
             "\"tflops\": {:.2f}, \"against\": \"ceiling_bf16\"}}\n",
             shape, c.median() * 1e3, c.flops / c.median() * 1e-12);
  std::fclose(file);
}

void measure(const Context& ctx, const LayerShape& shape, std::int64_t multiplier,
             const Options& options) {
  std::vector<std::unique_ptr<Layer>> layers;
  std::vector<bench::Case> cases;
  for (const std::int64_t G : shape.granularities) {
    layers.push_back(std::make_unique<Layer>(ctx, shape, G, multiplier));
    Layer* layer = layers.back().get();
    cases.push_back(
        {fmt::format("G {}  {}", G, layer->name()), layer->flops(), [layer] { layer->run(); }, {}});
  }
  const bool one_thread = ctx.device == Device::cpu && ctx.num_workers() == 1;
  bench::run_interleaved(cases, options.rounds,
                         one_thread ? bench::Clock::processor : bench::Clock::wall);
  for (std::size_t i = 0; i < cases.size(); ++i) {
    const bench::Case& c = cases[i];
    const std::string where =
        ctx.device == Device::cpu ? std::to_string(ctx.num_workers()) : shape.model;
    fmt::print("{:>7}  {}x FLOPs  {}  {:7.2f} ms  {:8.1f} GFLOP/s   {:.3f}  {:.3f}\n", where,
               multiplier, c.name, c.median() * 1e3, c.flops / c.median() * 1e-9,
               c.median() / cases[0].median(), c.best() / cases[0].best());
    write_json(options.json,
               fmt::format("model={} flops={} G={} {}", shape.model, multiplier,
                           shape.granularities[i], layers[i]->words()),
               c);
  }
  std::fflush(stdout);
}

void measure_all(const Context& ctx, const Options& options) {
  for (LayerShape shape : layer_shapes(options)) {
    if (options.tokens > 0) shape.N = options.tokens;
    for (const std::int64_t multiplier : {1, 2}) measure(ctx, shape, multiplier, options);
  }
}

void run_on_cuda(const Options& options) {
  app::offer_backends();
  std::string why;
  if (!enable_device(Device::cuda, 0, why)) throw Error(ExitCode::device_unavailable, why);
  fmt::print("{}; model; median time; last columns: time over G 1, of medians and of best rounds\n",
             runtime(Device::cuda).describe());
  Scratch scratch(Device::cuda);
  const OwnStream stream(Device::cuda);
  const Context ctx(Device::cuda, stream.get(), &scratch);
  measure_all(ctx, options);
}

void run_on_cpu(const Options& options) {
  fmt::print("threads; median time; last columns: time over G 1, of medians and of best rounds\n");
  const int cores = static_cast<int>(std::thread::hardware_concurrency());
  for (const int threads : {1, cores}) {
    ThreadPool pool(threads);
    Scratch scratch;
    measure_all(Context(&pool, &scratch), options);
    if (cores == 1) break;
  }
}

Options parse(int argc, char** argv) {
  Options o;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name.rfind("--", 0) != 0) {
      o.rounds = std::atoi(argv[i]);
      continue;
    }
    if (++i == argc) throw Error(ExitCode::usage, name + ": a value is missing");
    if (name == "--rounds")
      o.rounds = std::atoi(argv[i]);
    else if (name == "--tokens")
      o.tokens = std::atoll(argv[i]);
    else if (name == "--model")
      o.model = argv[i];
    else if (name == "--json")
      o.json = argv[i];
    else if (name == "--device")
      o.device = argv[i] == std::string("cuda") ? Device::cuda : Device::cpu;
    else
      throw Error(ExitCode::usage, name + ": unknown");
  }
  return o;
}

}  // namespace

int main(int argc, char** argv) try {
  const Options options = parse(argc, argv);
  flush_denormals();
  fmt::print("MoE layer, forward + backward, {} rounds in turn\n", options.rounds);
  if (options.device == Device::cuda)
    run_on_cuda(options);
  else
    run_on_cpu(options);
  return 0;
} catch (const Error& e) {
  fmt::print(stderr, "error: {}\n", e.what());
  return static_cast<int>(e.code());
}
