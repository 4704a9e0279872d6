// Gradients of attention for Hopper: TMA, mbarriers and wgmma, bf16, heads of 64 and 128.
//
// Shapes    those of attention.cu with such heads.
// Launch    a block owns 128 rows, a multiplying warpgroup 64 of them: attention_dkv.cuh,
//           attention_dq.cuh. Scores are computed twice, so that each gradient has one writer.
// Numerics  those of attention_mma_backward.cu, built with -ftz=true too.
// Traffic   as there: own rows and gradients once, the other side's once a block that meets them.
// See       kernels/cuda/attention.cu, test tests/cuda/sm90_attention_test.cpp.
#include "attention_dkv.cuh"
#include "attention_dq.cuh"
#include "grist/ops/attention.h"
#include "kernels/cuda/launch.h"

namespace grist::cuda::attention::hopper {

bool backward(const Context& ctx, const ops::AttentionBackward& a,
              const BackwardOperands<bf16>& b) {
  if (!takes(b.Dh, a.q, a.k, a.v, a.do_, a.dq, a.dk, a.dv)) return false;
  const RowBlocks keys =
      make_row_blocks(ctx, a.cu_seqlens_k, a.k.shape[0], kBlockRows, Order::first_first);
  const RowBlocks queries =
      make_row_blocks(ctx, a.cu_seqlens_q, a.q.shape[0], kBlockRows, Order::last_first);
  Backward p = {b, map_of(a.q), map_of(a.do_), map_of(a.k), map_of(a.v), keys.blocks, keys.count};
  for_head(b.Dh, [&](auto head) {
    launch(dkv_kernel<head()>, static_cast<unsigned>(keys.bound * b.Hkv), kBlockThreads,
           sizeof(DkvMemory<head()>), stream_of(ctx), p);
    p.blocks = queries.blocks;
    p.count = queries.count;
    launch(dq_kernel<head()>, static_cast<unsigned>(queries.bound * b.H), kBlockThreads,
           sizeof(DqMemory<head()>), stream_of(ctx), p);
  });
  return true;
}

}  // namespace grist::cuda::attention::hopper
