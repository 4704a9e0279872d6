#pragma once
// What the GPU's benchmark measures, by family. Shapes are those of real models; `tiny` ones only
// show that everything runs.
#include "gpu.h"
#include "kernels/cuda/cublas.h"

namespace grist::bench {

struct Sizes {
  std::int64_t N = 16384, D = 2048, F = 6144, V = 50304;  // tokens, widths, vocabulary
  std::int64_t loss_tokens = 8192;                        // of the output layer
  std::int64_t H = 16, Hkv = 4, Dh = 128, documents = 4;  // attention: documents of N/4
  std::int64_t E = 128, K = 8;                            // routing
  std::int64_t flat = std::int64_t{1} << 28;              // parameters
  struct Experts {
    std::int64_t E, K, F;
  };
  // OLMoE's and Qwen3-30B-A3B's experts, and the latter's cut in three: equal work in each.
  std::vector<Experts> experts = {{64, 8, 1024}, {128, 8, 768}, {384, 24, 256}};
  static Sizes tiny() {
    return {.N = 64,
            .D = 64,
            .F = 96,
            .V = 136,
            .loss_tokens = 48,
            .H = 2,
            .Hkv = 1,
            .Dh = 64,
            .documents = 2,
            .E = 8,
            .K = 2,
            .flat = 5000,
            .experts = {{4, 2, 32}}};
  }
};

struct Bench {
  const Context& ctx;
  Table& table;
  const Sizes& sizes;
  bool cublas = false;  // is there; else nothing stands beside our products
};

// `run` with dense products by our kernels or by cuBLAS.
template <class F> std::function<void()> with(cuda::DenseMatmul choice, F run) {
  return [choice, run] {
    cuda::set_dense_matmul(choice);
    run();
  };
}

void measure_rows(const Bench& b);     // norm, rope, swiglu, embedding, gathers
void measure_flat(const Bench& b);     // optimizer, sums, conversions
void measure_routing(const Bench& b);  // router, plans
void measure_linear(const Bench& b);   // dense products, output layer and loss
void measure_experts(const Bench& b);  // grouped products
void measure_attention(const Bench& b);

}  // namespace grist::bench
