// cuBLAS as kernels/cuda/cublas.h uses it, on the emulation or the library itself: every
// transposition against double loops, and which operands it refuses.
#include "kernels/cuda/cublas.h"

#include <gtest/gtest.h>

#include "cuda/fixture.h"
#include "grist/core/error.h"
#include "ops/linear_reference.h"

namespace grist {
namespace {

using namespace cuda::cublas;  // NOLINT(google-build-using-namespace)
using test::count;
using test::normals;
using test::OnDevice;
using Floats = std::vector<float>;

class CublasProduct : public ::testing::TestWithParam<std::tuple<bool, bool>> {
 protected:
  static constexpr int M = 5, N = 7, K = 11;
  bool ta = std::get<0>(GetParam()), tb = std::get<1>(GetParam());
  // Column-major, one element more between columns than is in use.
  int rows_a = ta ? K : M, cols_a = ta ? M : K, rows_b = tb ? N : K, cols_b = tb ? K : N;
  int lda = rows_a + 1, ldb = rows_b + 1, ldc = M + 1;
  Floats a = test::rounded_to_bf16(normals(std::int64_t{lda} * cols_a, "a"));
  Floats b = test::rounded_to_bf16(normals(std::int64_t{ldb} * cols_b, "b"));
  Floats c = test::rounded_to_bf16(normals(std::int64_t{ldc} * N, "c"));

  int run(const Context& ctx, const OnDevice& da, const OnDevice& db, const OnDevice& dc,
          float beta, int m = M) const {
    std::string why;
    const Library* library = open_library(why);
    if (library == nullptr) throw Error(ExitCode::device_unavailable, why);
    void* handle = nullptr;
    EXPECT_EQ(library->create(&handle), 0);
    EXPECT_EQ(library->set_stream(handle, reinterpret_cast<cudaStream_t>(ctx.stream)), 0);
    const float one = 1;
    const TensorView out = dc.view();
    return library->gemm(handle, ta ? kTransposed : kPlain, tb ? kTransposed : kPlain, m, N, K,
                         &one, da.view().data, CUDA_R_16BF, lda, db.view().data, CUDA_R_16BF, ldb,
                         &beta, out.data, out.dtype == DType::f32 ? CUDA_R_32F : CUDA_R_16BF, ldc,
                         kCompute32F, kDefaultAlgorithm);
  }
  // C column by column; the rows between columns keep their values.
  std::vector<double> want(double beta) const {
    std::vector<double> out(c.begin(), c.end());
    for (int j = 0; j < N; ++j) {
      for (int i = 0; i < M; ++i) {
        double sum = beta * out[count(i + std::int64_t{j} * ldc)];
        for (int k = 0; k < K; ++k) {
          sum += double{a[count(ta ? k + std::int64_t{i} * lda : i + std::int64_t{k} * lda)]} *
                 double{b[count(tb ? j + std::int64_t{k} * ldb : k + std::int64_t{j} * ldb)]};
        }
        out[count(i + std::int64_t{j} * ldc)] = sum;
      }
    }
    return out;
  }
};

TEST_P(CublasProduct, MatchesFormula) {
  const test::CudaContext ctx;
  const OnDevice da(*ctx, a, {cols_a, lda}, DType::bf16), db(*ctx, b, {cols_b, ldb}, DType::bf16);
  for (const float beta : {0.0F, 1.0F}) {
    const OnDevice exact(*ctx, c, {N, ldc}), rounded(*ctx, c, {N, ldc}, DType::bf16);

    EXPECT_EQ(run(*ctx, da, db, exact, beta), 0);
    EXPECT_EQ(run(*ctx, da, db, rounded, beta), 0);

    auto t = test::chain_tolerance(K);
    EXPECT_TRUE(test::close(exact.floats(), want(double{beta}), t));
    t.relative += 1.0 / 256;  // bf16 results
    EXPECT_TRUE(test::close(rounded.floats(), want(double{beta}), t));
  }
}

TEST_P(CublasProduct, RefusesOperandsBeyondTheirMemory) {
  // Only the emulation knows where allocations end.
  if (cuda::dense_matmul_name() != "cuBLAS 0.0.0") return;
  const test::CudaContext ctx;
  const OnDevice da(*ctx, a, {cols_a, lda}, DType::bf16), db(*ctx, b, {cols_b, ldb}, DType::bf16);
  const OnDevice dc(*ctx, c, {N, ldc});
  const OnDevice small(*ctx, Floats(8, 1.0F), {8}, DType::bf16), small_c(*ctx, Floats(8), {8});

  EXPECT_NE(run(*ctx, small, db, dc, 0), 0);
  EXPECT_NE(run(*ctx, da, small, dc, 0), 0);
  EXPECT_NE(run(*ctx, da, db, small_c, 0), 0);
  EXPECT_NE(run(*ctx, da, db, dc, 0, ldc + 1), 0) << "columns that overlap";
  EXPECT_EQ(dc.floats(), c) << "a refused product writes nothing";
}

std::string name_of_case(const ::testing::TestParamInfo<std::tuple<bool, bool>>& tested) {
  return std::string(std::get<0>(tested.param) ? "T" : "N") +
         (std::get<1>(tested.param) ? "T" : "N");
}

INSTANTIATE_TEST_SUITE_P(Transpositions, CublasProduct,
                         ::testing::Combine(::testing::Bool(), ::testing::Bool()), name_of_case);

}  // namespace
}  // namespace grist
