// Grouped matmul against the machine's own big sgemm (OpenBLAS, 2048^3), with the same number of
// threads, in the same rounds. Usage: matmul_bench [rounds].
//
// An OpenBLAS older than the processor takes its slower AVX2 kernels. So its AVX-512 kernels are
// tried too, by the variable it offers for that, and the faster of both is the yardstick.
#include <fmt/core.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <numeric>
#include <thread>

#include "bench/bench.h"
#include "grist/core/context.h"
#include "grist/ops/experts.h"
#include "grist/ops/linear.h"
#include "kernels/cpu/isa.h"

extern "C" {
void sgemm_(const char* ta, const char* tb, const int* m, const int* n, const int* k,
            const float* alpha, const float* a, const int* lda, const float* b, const int* ldb,
            const float* beta, float* c, const int* ldc);
void openblas_set_num_threads(int n) __attribute__((weak));  // absent in another BLAS
}

namespace {

using namespace grist;
using bench::Case;
using bench::random_tensor;

constexpr std::int64_t kExperts = 64, kWidth = 512;

struct Sgemm {
  static constexpr int n = 2048;
  std::vector<Buffer> keep;
  TensorView a = random_tensor(keep, {n, n}, "a"), b = random_tensor(keep, {n, n}, "b"),
             c = random_tensor(keep, {n, n}, "c");
  void run() const {
    const float one = 1, zero = 0;
    sgemm_("N", "N", &n, &n, &n, &one, a.as<float>(), &n, b.as<float>(), &n, &zero, c.as<float>(),
           &n);
  }
};

// One shape: y (R, F) = x (R, D) W^T, dx = dy W, dW += dy^T x, experts with equal rows.
struct Grouped {
  std::vector<Buffer> keep;
  Context ctx;
  std::int64_t rows, F;
  TensorView x, y, dx, dw, master;
  std::vector<std::int32_t> offsets;
  ops::WeightView w;

  Grouped(const Context& context, std::int64_t rows_each, std::int64_t width)
      : ctx(context), rows(rows_each * kExperts), F(width) {
    x = random_tensor(keep, {rows, kWidth}, "x");
    y = random_tensor(keep, {rows, F}, "y");
    dx = random_tensor(keep, {rows, kWidth}, "dx");
    dw = random_tensor(keep, {kExperts, F, kWidth}, "dw");
    master = random_tensor(keep, {kExperts, F, kWidth}, "w");
    for (std::int64_t e = 0; e <= kExperts; ++e)
      offsets.push_back(static_cast<std::int32_t>(e * rows_each));
    w.shape = master.shape;
    keep.emplace_back(ops::weight_bytes(Device::cpu, DType::f32, w.shape), Device::cpu, "packed");
    w.data = keep.back().data();
    ops::refresh_weight(ctx, {.out = w, .master = master});
  }
  ConstTensorView offsets_view() const { return {offsets.data(), DType::i32, {kExperts + 1}}; }
  double flops() const { return 2.0 * static_cast<double>(rows) * static_cast<double>(F) * kWidth; }
  void forward() {
    ops::expert_down_forward(ctx, {.y = y, .a = x, .expert_offsets = offsets_view(), .w = w});
  }
  void input_gradient() {
    ops::expert_up_backward(ctx, {.dx = dx, .dz = y, .expert_offsets = offsets_view(), .w = w});
  }
  void weight_gradient() {
    ops::expert_weight_gradient(ctx, {.dw = dw,
                                      .dy = y,
                                      .dy_token = {},
                                      .x = x,
                                      .x_token = {},
                                      .expert_offsets = offsets_view(),
                                      .accumulate = true});
  }
};

double rate(const Case& c, double seconds) {
  return c.flops / seconds * 1e-9;
}

// Prints one line and returns the share of the sgemm rate over the three products together.
void measure(const Context& ctx, std::int64_t rows, std::int64_t F, int rounds) {
  const Sgemm sgemm;
  Grouped g(ctx, rows, F);
  std::vector<Case> cases = {
      {"sgemm", 2.0 * 2048 * 2048 * 2048, [&] { sgemm.run(); }, {}},
      {"forward", g.flops(), [&] { g.forward(); }, {}},
      {"dx", g.flops(), [&] { g.input_gradient(); }, {}},
      {"dw", g.flops(), [&] { g.weight_gradient(); }, {}},
  };
  bench::run_interleaved(cases, rounds,
                         ctx.num_workers() == 1 ? bench::Clock::processor : bench::Clock::wall);
  const double base = rate(cases[0], cases[0].median());
  double median_sum = 0, best_sum = 0;
  std::string line = fmt::format("{:7} {:5} {:5}  {:8.1f}", ctx.num_workers(), rows, F, base);
  for (std::size_t i = 1; i < cases.size(); ++i) {
    const double r = rate(cases[i], cases[i].median());
    line += fmt::format("  {:6.1f} {:4.0f} %", r, 100 * r / base);
    median_sum += cases[i].median();
    best_sum += cases[i].best();
  }
  const double all = 3 * g.flops() * 1e-9;
  fmt::print("{}   {:6.1f} {:4.0f} %   {:4.0f} %\n", line, all / median_sum,
             100 * all / median_sum / base, 100 * all / best_sum / rate(cases[0], cases[0].best()));
  std::fflush(stdout);
}

// A block that fits the second cache: the micro-kernel alone, for each instruction set.
void measure_instruction_sets(int rounds) {
  constexpr std::int64_t M = 168, columns = 512, depth = cpu::kDepthBlock;
  std::vector<Buffer> keep;
  const TensorView a = random_tensor(keep, {M, cpu::kRowStride}, "a");
  const TensorView b = random_tensor(keep, {depth, columns}, "b");
  const TensorView c = random_tensor(keep, {M, columns}, "c");
  std::vector<Case> cases;
  for (const cpu::Isa name : {cpu::Isa::avx512, cpu::Isa::avx2, cpu::Isa::portable}) {
    const cpu::IsaKernels* isa = cpu::isa_kernels(name);
    if (isa == nullptr) continue;
    cases.push_back({isa->name,
                     2.0 * M * columns * depth,
                     [=] {
                       isa->multiply_rows({.c = c.as<float>(),
                                           .c_stride = columns,
                                           .a = a.as<float>(),
                                           .a_stride = cpu::kRowStride,
                                           .b = b.as<float>(),
                                           .b_stride = depth * cpu::kPanelColumns,
                                           .rows = M,
                                           .cols = columns,
                                           .depth = depth,
                                           .accumulate = false});
                     },
                     {}});
  }
  bench::run_interleaved(cases, rounds, bench::Clock::processor);
  fmt::print("one thread, block {} x {} x {} in cache, GFLOP/s:", M, columns, depth);
  for (const Case& k : cases) fmt::print("  {} {:.1f}", k.name, rate(k, k.median()));
  fmt::print("\n");
}

// Decoding: few rows, a weight of 512 x 2048; and the cost of packing it.
void measure_few_rows(const Context& ctx, int rounds) {
  constexpr std::int64_t O = 2048;
  std::vector<Buffer> keep;
  const TensorView master = random_tensor(keep, {O, kWidth}, "w");
  ops::WeightView w;
  w.shape = master.shape;
  keep.emplace_back(ops::weight_bytes(Device::cpu, DType::f32, w.shape), Device::cpu, "packed");
  w.data = keep.back().data();
  std::vector<Case> cases = {
      {"packing", 0, [&] { ops::refresh_weight(ctx, {.out = w, .master = master}); }, {}}};
  for (const std::int64_t rows : {1, 2, 4, 8}) {
    const TensorView x = random_tensor(keep, {rows, kWidth}, "x");
    const TensorView y = random_tensor(keep, {rows, O}, "y");
    cases.push_back({fmt::format("{} rows", rows),
                     0,
                     [&ctx, w, x, y] { ops::linear_forward(ctx, {.y = y, .x = x, .w = w}); },
                     {}});
  }
  bench::run_interleaved(cases, rounds, bench::Clock::processor);
  fmt::print("one thread, linear {} -> {}, microseconds:", kWidth, O);
  for (const Case& c : cases) fmt::print("  {} {:.1f}", c.name, c.median() * 1e6);
  fmt::print("\n");
}

// GFLOP/s of one thread's best of three, measured by a process of its own: OpenBLAS chooses its
// kernels when it is loaded. 0 when that fails.
double sgemm_rate(const std::string& variables, const std::string& program) {
  double rate_found = 0;
  FILE* pipe = popen((variables + " '" + program + "' --sgemm").c_str(), "r");
  if (pipe == nullptr) return 0;
  if (std::fscanf(pipe, "%lf", &rate_found) != 1) rate_found = 0;
  pclose(pipe);
  return rate_found;
}

// One thread: of processor time. More: of wall time.
void print_sgemm_rate(int threads) {
  if (openblas_set_num_threads != nullptr) openblas_set_num_threads(threads);
  const Sgemm sgemm;
  std::vector<Case> cases = {{"sgemm", 2.0 * 2048 * 2048 * 2048, [&] { sgemm.run(); }, {}}};
  bench::run_interleaved(cases, 5, threads == 1 ? bench::Clock::processor : bench::Clock::wall);
  fmt::print("{}\n", rate(cases[0], cases[0].best()));
}

// Starts this program again with OpenBLAS's faster kernels; returns when they are already in use.
void restart_with_best_sgemm(const char* rounds) {
  char path[4096] = {};
  if (readlink("/proc/self/exe", path, sizeof path - 1) <= 0) return;
  const double own = sgemm_rate("", path);
  const double wide = sgemm_rate("OPENBLAS_CORETYPE=SKYLAKEX", path);
  fmt::print(
      "sgemm 2048^3, one thread: {:.1f} GFLOP/s with OpenBLAS as it comes, {:.1f} with "
      "its AVX-512 kernels\n",
      own, wide);
  std::fflush(stdout);
  if (wide <= own) return;
  setenv("OPENBLAS_CORETYPE", "SKYLAKEX", 1);
  execl(path, path, rounds, "--restarted", nullptr);
}

}  // namespace

int main(int argc, char** argv) {
  bench::put_blas_threads_to_sleep(argv);
  if (argc > 1 && std::strcmp(argv[1], "--sgemm") == 0) {
    print_sgemm_rate(argc > 2 ? std::max(1, std::atoi(argv[2])) : 1);
    return 0;
  }
  if (argc < 3 && cpu::isa_kernels(cpu::Isa::avx512) != nullptr)
    restart_with_best_sgemm(argc > 1 ? argv[1] : "7");
  const int rounds = argc > 1 ? std::max(1, std::atoi(argv[1])) : 7;
  flush_denormals();
  if (openblas_set_num_threads == nullptr)
    fmt::print("this BLAS cannot be told its number of threads\n");
  {
    Scratch scratch;
    measure_instruction_sets(rounds);
    measure_few_rows(Context(nullptr, &scratch), rounds);
  }
  fmt::print(
      "grouped matmul, {} experts, d {}, {}, {} rounds: GFLOP/s (median; one thread: of processor "
      "time)\nand share of sgemm 2048^3 in the same rounds; last column: best rounds\n",
      kExperts, kWidth, cpu::native_kernels().name, rounds);
  fmt::print("threads  rows width     sgemm  {:15}{:15}{:15}{:16}{}\n", "forward", "dx", "dw",
             "all three", "best");
  const int cores = static_cast<int>(std::thread::hardware_concurrency());
  for (const int threads : {1, cores}) {
    if (openblas_set_num_threads != nullptr) openblas_set_num_threads(threads);
    ThreadPool pool(threads);
    Scratch scratch;
    const Context ctx(&pool, &scratch);
    for (const std::int64_t F : {64, 128, 256, 512}) {
      for (const std::int64_t rows : {16, 64, 256}) measure(ctx, rows, F, rounds);
    }
    if (cores == 1) break;
  }
  return 0;
}
