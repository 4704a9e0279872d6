// Times every operation of the CUDA backend on this machine's GPU: one table, a line a kernel and
// shape, with the share of the kernel's own roofline (the larger of its arithmetic at the dense
// bf16 rate and its bytes at the copy rate, both measured in the same run) and what is fastest
// beside it.  Usage: cuda_bench [--rounds N] [--json FILE] [--filter PART OF A NAME] [--tiny]
#include <fmt/core.h>

#include <cstdlib>

#include "cases.h"
#include "grist/core/error.h"
#include "grist/core/memory.h"
#include "grist/ops/linear.h"
#include "kernels/backends.h"

namespace {

using namespace grist;
using namespace grist::bench;

struct Options {
  Effort effort;
  std::string json, filter;
  bool tiny = false;  // shapes that only show that everything runs
};

bool parse(int argc, char** argv, Options& o) {
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--tiny") {
      o.tiny = true;
      o.effort = {.rounds = 1, .warm_seconds = 0, .flush_bytes = 1 << 16};
      continue;
    }
    if (i + 1 == argc) return false;
    const char* value = argv[++i];
    if (word == "--rounds")
      o.effort.rounds = std::atoi(value);
    else if (word == "--json")
      o.json = value;
    else if (word == "--filter")
      o.filter = value;
    else
      return false;
  }
  return o.effort.rounds > 0;
}

// Shares are of the faster way to the dense rate: cuBLAS where it is.
void measure_ceilings(const Context& ctx, Table& table, bool cublas, bool tiny) {
  const std::int64_t n = tiny ? 64 : 8192;
  Operands o(ctx);
  const TensorView x = o.normals(DType::bf16, {n, n}), y = o.empty(DType::bf16, {n, n});
  const ops::WeightView w = o.weight({n, n});
  const Way product{cublas ? "by cuBLAS" : "by linear_forward",
                    with(cublas ? cuda::DenseMatmul::cublas : cuda::DenseMatmul::own,
                         [&] { ops::linear_forward(ctx, {.y = y, .x = x, .w = w}); })};
  table.measure_ceilings(o, product, fmt::format("N={0} I={0} O={0}", n),
                         2.0 * static_cast<double>(n) * static_cast<double>(n * n));
}

int run(const Options& options) {
  Scratch scratch(Device::cuda);
  const OwnStream stream(Device::cuda);
  const Context ctx(Device::cuda, stream.get(), &scratch);
  std::FILE* json = options.json.empty() ? nullptr : std::fopen(options.json.c_str(), "a");
  if (!options.json.empty() && json == nullptr) {
    std::fprintf(stderr, "cuda_bench: cannot write %s\n", options.json.c_str());
    return static_cast<int>(ExitCode::cannot_create);
  }
  std::string why;
  const bool cublas = cuda::cublas::open_library(why) != nullptr;
  if (!cublas) std::printf("without cuBLAS: %s\n", why.c_str());
  Table table(ctx, options.effort, json, options.filter);
  measure_ceilings(ctx, table, cublas, options.tiny);
  const Sizes sizes = options.tiny ? Sizes::tiny() : Sizes{};
  const Bench b{ctx, table, sizes, cublas};
  for (const auto family : {measure_rows, measure_flat, measure_routing, measure_linear,
                            measure_experts, measure_attention})
    family(b);
  wait(ctx);
  if (json != nullptr) std::fclose(json);
  return table.failures() == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  if (!parse(argc, argv, options)) {
    std::fprintf(
        stderr,
        "usage: cuda_bench [--rounds N] [--json FILE] [--filter PART OF A NAME] [--tiny]\n");
    return static_cast<int>(ExitCode::usage);
  }
  std::string why;
  if (!cuda::enable(0, why)) {
    std::fprintf(stderr, "cuda_bench: no CUDA device: %s\n", why.c_str());
    return static_cast<int>(ExitCode::device_unavailable);
  }
  try {
    return run(options);
  } catch (const Error& e) {
    std::fprintf(stderr, "cuda_bench: %s\n", e.what());
    return static_cast<int>(e.code());
  }
}
