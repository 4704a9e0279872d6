// Attention against the machine's own big sgemm (OpenBLAS, 2048^3), with the same number of
// threads, in the same rounds. FLOPs are those of the causal half: 2 products of q (q + 1) / 2
// scores forward, 5 backward. Usage: attention_bench [rounds].
//
// An OpenBLAS older than the processor, or told so, takes its slower AVX2 kernels, which would
// flatter us: where the processor has AVX-512 the program starts itself again with the variable
// that asks for the faster ones.
#include <fmt/core.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <thread>

#include "bench/bench.h"
#include "grist/core/context.h"
#include "grist/ops/attention.h"
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

struct Shapes {
  std::int64_t documents, length, H, Hkv, Dh;
};

constexpr Shapes kShapes[] = {
    {8, 256, 8, 8, 32},  {8, 256, 8, 8, 64},  {4, 512, 8, 8, 64},   {4, 512, 8, 2, 64},
    {2, 1024, 8, 8, 64}, {1, 2048, 8, 8, 64}, {1, 2048, 8, 2, 128}, {64, 32, 8, 8, 64},
};

struct Attention {
  std::vector<Buffer> keep;
  Context ctx;
  TensorView q, k, v, o, lse, dq, dk, dv, do_;
  std::vector<std::int32_t> cu;
  double scores;  // pairs of a query and a key that it sees

  Attention(const Context& context, const Shapes& s) : ctx(context) {
    const std::int64_t N = s.documents * s.length;
    const Shape wide{N, s.H, s.Dh}, narrow{N, s.Hkv, s.Dh};
    q = random_tensor(keep, wide, "q");
    o = random_tensor(keep, wide, "o");
    dq = random_tensor(keep, wide, "dq");
    do_ = random_tensor(keep, wide, "do");
    k = random_tensor(keep, narrow, "k");
    v = random_tensor(keep, narrow, "v");
    dk = random_tensor(keep, narrow, "dk");
    dv = random_tensor(keep, narrow, "dv");
    lse = random_tensor(keep, {N, s.H}, "lse");
    for (std::int64_t d = 0; d <= s.documents; ++d)
      cu.push_back(static_cast<std::int32_t>(d * s.length));
    const auto length = static_cast<double>(s.length);
    scores = static_cast<double>(s.documents * s.H) * length * (length + 1) / 2;
  }
  ConstTensorView boundaries() const {
    return {cu.data(), DType::i32, {static_cast<std::int64_t>(cu.size())}};
  }
  float scale() const { return 1.0F / std::sqrt(static_cast<float>(q.shape[2])); }
  double product_flops() const { return 2 * scores * static_cast<double>(q.shape[2]); }
  void forward() const {
    ops::attention_forward(ctx, {.o = o,
                                 .lse = lse,
                                 .q = q,
                                 .k = k,
                                 .v = v,
                                 .cu_seqlens_q = boundaries(),
                                 .cu_seqlens_k = boundaries(),
                                 .scale = scale()});
  }
  void backward() const {
    ops::attention_backward(ctx, {.dq = dq,
                                  .dk = dk,
                                  .dv = dv,
                                  .do_ = do_,
                                  .o = o,
                                  .lse = lse,
                                  .q = q,
                                  .k = k,
                                  .v = v,
                                  .cu_seqlens_q = boundaries(),
                                  .cu_seqlens_k = boundaries(),
                                  .scale = scale()});
  }
};

void run(int threads, int rounds) {
  if (openblas_set_num_threads != nullptr) openblas_set_num_threads(threads);
  ThreadPool pool(threads);
  Scratch scratch;
  Context ctx;
  ctx.pool = &pool;
  ctx.scratch = &scratch;
  constexpr int kSide = 2048;
  std::vector<Buffer> keep;
  const TensorView a = random_tensor(keep, {kSide, kSide}, "a");
  const TensorView b = random_tensor(keep, {kSide, kSide}, "b");
  const TensorView c = random_tensor(keep, {kSide, kSide}, "c");
  std::vector<Case> cases{{"sgemm 2048^3",
                           2.0 * kSide * kSide * kSide,
                           [&] {
                             const float one = 1, zero = 0;
                             sgemm_("N", "N", &kSide, &kSide, &kSide, &one, a.as<float>(), &kSide,
                                    b.as<float>(), &kSide, &zero, c.as<float>(), &kSide);
                           },
                           {}}};
  std::vector<Attention> attention;
  attention.reserve(std::size(kShapes));
  for (const Shapes& s : kShapes) {
    const Attention& x = attention.emplace_back(ctx, s);
    const auto name = fmt::format("{:2} x {:4}, {} heads, {} kv, {:3} wide", s.documents, s.length,
                                  s.H, s.Hkv, s.Dh);
    cases.push_back({name + "  forward ", 2 * x.product_flops(), [&x] { x.forward(); }, {}});
    cases.push_back({name + "  backward", 5 * x.product_flops(), [&x] { x.backward(); }, {}});
  }
  bench::run_interleaved(cases, rounds,
                         threads == 1 ? bench::Clock::processor : bench::Clock::wall);
  const double reference = cases[0].flops / cases[0].median();
  fmt::print("{} thread{}\n", threads, threads == 1 ? "" : "s");
  for (const Case& one : cases) {
    const double rate = one.flops / one.median();
    fmt::print("  {:<46} {:9.0f} us {:7.1f} GFLOP/s {:5.1f} % of sgemm\n", one.name,
               one.median() * 1e6, rate * 1e-9, 100 * rate / reference);
  }
}

}  // namespace

int main(int argc, char** argv) {
  bench::put_blas_threads_to_sleep(argv);
  if (argc < 3 && cpu::isa_kernels(cpu::Isa::avx512) != nullptr) {
    setenv("OPENBLAS_CORETYPE", "SKYLAKEX", 1);
    execl("/proc/self/exe", argv[0], argc > 1 ? argv[1] : "15", "--restarted", nullptr);
    fmt::print("OpenBLAS as it comes\n");  // execl returns only when it fails
  }
  flush_denormals();
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 15;
  run(1, rounds);
  const int cores = static_cast<int>(std::thread::hardware_concurrency());
  if (cores > 1) run(cores, rounds);
  return 0;
}
