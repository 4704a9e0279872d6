"""The mistakes that kernel_mutants.py plants: `old` becomes `new` in `file`, and `source` is built
from it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    name: str
    what: str
    file: str
    source: str
    tests: str  # which find it, as googletest wants it
    old: str
    new: str


CUDA = "kernels/cuda/"
LINEAR = "Shapes/CudaLinear*:CudaLinearBits*"
HOPPER = "Hopper/CudaLinear*:Shapes/CudaExperts*sm90:DTypes/CudaExpertRows*sm90:Sm90Matmuls*"
EXPERTS = "Shapes/CudaExperts*:DTypes/CudaExpertRows*"
ATTENTION = "Shapes/CudaAttention*:CudaAttentionBits*"


def portable(name, file, tests, what, old, new, source=None):
    return Mutant(name, what, CUDA + file, CUDA + (source or file), tests, old, new)


def hopper(name, file, source, what, old, new):
    return Mutant(name, what, CUDA + "sm90/" + file, CUDA + "sm90/" + source, HOPPER, old, new)


def attention(name, file, source, what, old, new):
    return Mutant(name, what, CUDA + "sm90/" + file, CUDA + "sm90/" + source,
                  "Shapes/HopperAttention*", old, new)


def matmul(name, file, what, old, new):
    return portable(name, file, LINEAR, what, old, new, "linear.cu")


MUTANTS = [
    # ---- the matmuls of every GPU
    matmul("mma_wait", "matmul_mma.cuh", "waits for one copy group too few",
           "ptx::cp_async_wait<kStages - 2>();", "ptx::cp_async_wait<kStages - 1>();"),
    matmul("mma_stage_barrier", "matmul_mma.cuh",
           "no barrier before a stage is used and the next one filled",
           "__syncthreads();  // the stage is there, and all are done with the one before it", ""),
    matmul("mma_sums_barrier", "matmul_mma.cuh", "sums stored over stages that others still read",
           "  __syncthreads();\n  store_sums(s.sums, sums);", "  store_sums(s.sums, sums);"),
    matmul("mma_finish_barrier", "matmul_mma.cuh",
           "no barrier between storing sums and reading them",
           "  store_sums(s.sums, sums);\n  __syncthreads();", "  store_sums(s.sums, sums);"),
    matmul("mma_depth_tail", "matmul_mma.cuh", "no check of the depth's tail",
           "valid_[i] && depth + piece_ * kPiece < end_", "valid_[i]"),
    matmul("simt_barrier", "matmul_simt.cuh", "no barrier before operands are overwritten",
           "multiply_step(sum, s, row, col);\n    __syncthreads();",
           "multiply_step(sum, s, row, col);"),
    matmul("simt_chain", "matmul_simt.cuh", "old values added at the chain's end",
           "if (!e.accumulate) return false;", "return false;"),
    matmul("accumulate", "matmul_epilogue.cuh", "accumulate ignored", "if (accumulate) {",
           "if (false) {"),
    portable("empty_experts", "matmul_epilogue.cuh", EXPERTS,
             "dw of empty experts not zeroed", "return e.accumulate && t.depth_begin",
             "return t.depth_begin", "experts.cu"),
    portable("row_tail", "grouped_matmul.cu", EXPERTS,
             "the last tile of an expert is whole", "min(end, begin + height)", "begin + height"),
    # ---- other kernels of every GPU
    portable("scan_reuse", "block_scan.cuh", "CudaDispatchPlan*",
             "shared sums of a call before overwritten",
             "__syncthreads();  // `shared` may still be read from a call before", "",
             "dispatch.cu"),
    portable("places_order", "dispatch.cu", "CudaDispatchPlan*",
             "places changed while the warp reads them",
             "__syncwarp();\n    if (e >= 0 && before == 0)", "if (e >= 0 && before == 0)"),
    portable("places_ready", "dispatch.cu", "CudaDispatchPlan*",
             "places used before all are summed",
             "  __syncthreads();\n  const std::int32_t* tile_begins",
             "  const std::int32_t* tile_begins"),
    portable("slots_tail", "dispatch.cu", "CudaDispatchPlan*", "no check of the last tile's tail",
             "slot < a.slots ? a.ids[slot] : -1", "a.ids[slot]"),
    portable("gather_accumulate", "gather.cu", "CudaGather*", "accumulate ignored",
             "if (a.accumulate)", "if (false)"),
    portable("loss_maxima", "cross_entropy.cu", "Shapes/CudaCrossEntropy*",
             "maxima read before they are written", "= warp_largest;\n  __syncthreads();",
             "= warp_largest;"),
    portable("norm_strips", "norm_backward.cu", "CudaRmsNorm*",
             "sums of strips read before they are written",
             "sums[strip][column] = sum;\n  __syncthreads();", "sums[strip][column] = sum;"),
    portable("attention_wait", "attention_mma.cu", ATTENTION, "values used before they have come",
             "ptx::cp_async_wait<0>();\n    __syncthreads();  // the values",
             "__syncthreads();  // the values"),
    portable("attention_barrier", "attention_mma.cu", ATTENTION,
             "values overwritten while others use them",
             "__syncthreads();  // the keys are there, the values before them used", ""),
    portable("attention_mask", "attention_softmax.cuh", ATTENTION, "the diagonal masked too",
             "n * 8 + i % 2 > own", "n * 8 + i % 2 >= own", "attention_mma.cu"),
    portable("attention_dq_barrier", "attention_mma_backward.cu", ATTENTION,
             "keys overwritten while others use them",
             "__syncthreads();  // these keys are there, those before used", ""),
    # ---- Hopper
    hopper("full_parity", "pipeline.cuh", "row_matmul.cu", "waits for the other parity",
           "ptx::barrier_wait(&m.full[at.stage], at.parity);",
           "ptx::barrier_wait(&m.full[at.stage], at.parity ^ 1U);"),
    hopper("empty_parity", "row_matmul.cuh", "row_matmul.cu", "fills stages that are still read",
           "ptx::barrier_wait(&m.empty[at.stage], at.parity ^ 1U);\n"
           "      load_stage<kWeights, true>",
           "load_stage<kWeights, true>"),
    hopper("announced_bytes", "row_matmul.cuh", "row_matmul.cu",
           "announces the bytes of one operand", "Memory::kBytesB + (kRows ? Memory::kBytesA : 0)",
           "Memory::kBytesB"),
    hopper("proxy_fence", "pipeline.cuh", "row_matmul.cu", "no fence.proxy.async after cp.async",
           "ptx::fence_async_proxy();\n", ""),
    hopper("init_fence", "pipeline.cuh", "row_matmul.cu", "no fence after the mbarriers are made",
           "ptx::fence_barrier_init();", ""),
    hopper("wgmma_fence", "pipeline.cuh", "row_matmul.cu", "no wgmma.fence", "ptx::wgmma_fence();",
           ""),
    hopper("wgmma_fence_once", "pipeline.cuh", "row_matmul.cu",
           "wgmma.fence at the ring's begin alone", "ptx::wgmma_fence();",
           "if (at.stage == 0) ptx::wgmma_fence();"),
    hopper("released_early", "pipeline.cuh", "row_matmul.cu", "a stage released before it is read",
           "ptx::wgmma_wait<1>();  // the stage before is read", ""),
    hopper("sums_early", "pipeline.cuh", "row_matmul.cu",
           "sums used before the last product is done", "ptx::wgmma_wait<0>();",
           "ptx::wgmma_wait<1>();"),
    hopper("late_wait", "pipeline.cuh", "weight_matmul.cu",
           "announces a stage whose copies have not come", "ptx::cp_async_wait<kLag>();",
           "ptx::cp_async_wait<kLag + 1>();"),
    hopper("late_syncwarp", "pipeline.cuh", "weight_matmul.cu",
           "one lane announces the copies of others",
           "    __syncwarp();\n    if (threadIdx.x % kWarp == 0) ptx::barrier_arrive",
           "    if (threadIdx.x % kWarp == 0) ptx::barrier_arrive"),
    hopper("writer_meets", "epilogue.cuh", "row_matmul.cu",
           "rows read before the warpgroup wrote them", "    fill(box, v);\n    meet();",
           "    fill(box, v);"),
    hopper("writer_turn", "epilogue.cuh", "row_matmul.cu", "one box instead of two", "turn_ ^= 1;",
           "turn_ = 0;"),
    hopper("writer_tail", "epilogue.cuh", "row_matmul.cu", "rows of the next expert written",
           "if (row >= rows) break;", ""),
    hopper("gradient_wait", "epilogue_backward.cuh", "row_matmul.cu", "z read before it has come",
           "ptx::cp_async_wait<0>();", "ptx::cp_async_wait<1>();"),
    hopper("gradient_meets", "epilogue_backward.cuh", "row_matmul.cu",
           "z of other threads read without a barrier", "    writer.meet();\n", ""),
    hopper("weight_empty", "weight_matmul.cuh", "weight_matmul.cu",
           "dw of empty experts not zeroed", "for (float& sum : acc) sum = 0;", ""),
    hopper("weight_accumulate", "weight_matmul.cuh", "weight_matmul.cu", "accumulate ignored",
           "if (p.accumulate) v =", "if (false) v ="),
    hopper("weight_tail", "weight_matmul.cuh", "weight_matmul.cu", "rows of the next expert count",
           "const bool whole = row + kDepth <= tile.end;", "const bool whole = true;"),
    hopper("gather_tail", "row_matmul.cuh", "row_matmul.cu", "indices read past the block's rows",
           "if (row < tile.block.rows) {", "if (true) {"),
    hopper("blocks_tail", "row_blocks.cu", "row_blocks.cu", "the last block of an expert is whole",
           "min(kBlockRows, end - row)", "kBlockRows"),
    hopper("blocks_reuse", "row_blocks.cu", "row_blocks.cu",
           "sums overwritten while others read them",
           "listed += sums[kThreads - 1];\n    __syncthreads();", "listed += sums[kThreads - 1];"),
    attention("last_proxy_fence", "attention.cuh", "attention_forward.cu",
              "no fence.proxy.async after the last tile's copies", "ptx::fence_async_proxy();", ""),
    attention("output_fence", "attention_forward.cu", "attention_forward.cu",
              "no wgmma.fence before the last product",
              "v_at);\n  keep(o);\n  ptx::wgmma_fence();", "v_at);\n  keep(o);"),
    attention("values_released", "attention_forward.cu", "attention_forward.cu",
              "values released and o scaled before the product is done",
              "    ptx::wgmma_wait<0>();\n    keep(o);\n    release(m.v, v_at);",
              "    release(m.v, v_at);"),
    attention("left_fence", "attention_dkv.cuh", "attention_backward.cu",
              "no wgmma.fence after probabilities are rounded",
              "keep(dv);\n    ptx::wgmma_fence();", "keep(dv);"),
    attention("gradients_early", "attention_dq.cuh", "attention_backward.cu",
              "gradients of scores used before they are done",
              "ptx::wgmma_wait<0>();\n    keep(dp);", "keep(dp);"),
    attention("row_values", "attention_dkv.cuh", "attention_backward.cu",
              "one lane announces what others wrote", "    __syncwarp();\n  }\n};", "  }\n};"),
    attention("release_order", "attention.cuh", "attention_backward.cu",
              "one lane releases what others read", "{\n  __syncwarp();\n  if (lane_index()",
              "{\n  if (lane_index()"),
]
