#!/usr/bin/env python3
"""Times a training step of transformers' Mixtral on this CPU, as the yardstick for grist's own.

A step is what a user of PyTorch would run, in fp32: forward, backward, gradient clipping and fused
AdamW, on random tokens of the shape that a grist config names. The auxiliary losses are left out,
which favours PyTorch. Every way that transformers offers to run the experts is tried, eager and
through torch.compile; one that fails or needs too much memory is reported with its reason. Progress
goes to stderr; stdout gets one JSON line with every variant's median and the best.

  scripts/bench_pytorch.py [--config configs/run/s_1xflops_g8.yaml] [--threads N] [--micro-batch N]
      [--accumulate N] [--steps N] [--variants eager,grouped_mm+compile,...]
"""

import argparse
import gc
import json
import os
import pathlib
import statistics
import sys
import time

import python_environment

python_environment.use(python_environment.TRUTH_PACKAGES)

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import torch  # noqa: E402
import transformers  # noqa: E402
import yaml  # noqa: E402

EXPERTS = ["eager", "batched_mm", "grouped_mm"]  # transformers' names
VARIANTS = EXPERTS + [f"{name}+compile" for name in EXPERTS]
WARM_UP = 2  # steps; the first compiles


def read_shape(path):
    """The numbers of a grist config that decide the work of a step."""
    with open(path, encoding="utf-8") as file:
        config = yaml.safe_load(file)
    model, moe = config["model"], config["model"]["moe"]
    granularity = moe["granularity"]
    heads = model["num_attention_heads"]
    return {"layers": model["num_hidden_layers"], "hidden": model["hidden_size"], "heads": heads,
            "kv_heads": model.get("num_key_value_heads", heads),
            "head_dim": model.get("head_dim", model["hidden_size"] // heads),
            "experts": granularity * moe["expansion_rate"],
            "top_k": round(granularity * moe["flops_multiplier"]),
            "expert_width": model["intermediate_size"] // granularity,
            "vocab": model["vocab_size"], "length": config["data"]["seq_length"],
            "micro_batch": config["train"]["micro_batch_size"]}


def flops_per_token(s):
    """Forward and backward: 6 a weight of a matmul, and causal attention at half its square."""
    attention = s["hidden"] * s["head_dim"] * (2 * s["heads"] + 2 * s["kv_heads"])
    experts = 3 * s["top_k"] * s["hidden"] * s["expert_width"] + s["experts"] * s["hidden"]
    weights = s["layers"] * (attention + experts) + s["vocab"] * s["hidden"]
    scores = s["layers"] * s["heads"] * s["head_dim"] * s["length"]
    return 6 * (weights + scores)


def build(s, experts):
    torch.manual_seed(1)
    config = transformers.MixtralConfig(
        vocab_size=s["vocab"], hidden_size=s["hidden"], intermediate_size=s["expert_width"],
        num_hidden_layers=s["layers"], num_attention_heads=s["heads"],
        num_key_value_heads=s["kv_heads"], head_dim=s["head_dim"],
        max_position_embeddings=s["length"], num_local_experts=s["experts"],
        num_experts_per_tok=s["top_k"], use_cache=False, bos_token_id=None, eos_token_id=None,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4})
    config._attn_implementation = "sdpa"
    config._experts_implementation = experts
    return transformers.MixtralForCausalLM(config).train()


def too_big(s, experts):
    """batched_mm copies the expert's weights for every row: bytes, if that is out of proportion."""
    if experts != "batched_mm":
        return None
    rows = s["micro_batch"] * s["length"] * s["top_k"]
    need = 4 * rows * 3 * s["hidden"] * s["expert_width"] * s["layers"]  # kept for backward
    have = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return need if need > have / 4 else None


def time_steps(s, variant, options):
    """Seconds of each step after the warm-up, and the last loss."""
    experts, _, compiled = variant.partition("+")
    model = build(s, experts)
    forward = torch.compile(model) if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95),
                                  weight_decay=0.1, fused=True)
    generator = torch.Generator().manual_seed(2)
    seconds, loss = [], None
    for step in range(WARM_UP + options.steps):
        tokens = torch.randint(s["vocab"], (options.accumulate, s["micro_batch"], s["length"]),
                               generator=generator)
        start = time.perf_counter()
        for batch in tokens:
            loss = forward(input_ids=batch, labels=batch).loss / options.accumulate
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        took = time.perf_counter() - start
        print(f"{variant}: step {step}{' (warm-up)' if step < WARM_UP else ''}: {took:.2f} s, "
              f"loss {loss.item() * options.accumulate:.3f}", file=sys.stderr, flush=True)
        if step >= WARM_UP:
            seconds.append(took)
    return seconds


def run_variant(s, variant, options):
    """One entry of the result."""
    experts, _, compiled = variant.partition("+")
    need = too_big(s, experts)
    if need:
        return {"failed": f"needs {need / 2**30:.0f} GiB for copies of weights"}
    try:
        seconds = time_steps(s, variant, options)
    except Exception as error:  # whatever torch raises: the other variants still count
        return {"failed": f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"}
    finally:
        if compiled:
            torch._dynamo.reset()
        gc.collect()
    median = statistics.median(seconds)
    tokens = options.accumulate * s["micro_batch"] * s["length"]
    return {"step_s": round(median, 4), "fastest_s": round(min(seconds), 4),
            "tokens_per_s": round(tokens / median, 1)}


def sgemm_rate(size=2048, repeats=5):
    """FLOP/s of torch's own square matmul, the best of a few."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    best = float("inf")
    for _ in range(repeats + 1):
        start = time.perf_counter()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = python_environment.ROOT / "configs" / "run" / "s_1xflops_g8.yaml"
    parser.add_argument("--config", type=pathlib.Path, default=default)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--micro-batch", type=int, help="sequences; default: the config's")
    parser.add_argument("--accumulate", type=int, default=1, help="micro-batches a step")
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each variant")
    parser.add_argument("--variants", default=",".join(VARIANTS))
    options = parser.parse_args()
    options.variants = options.variants.split(",")
    for variant in options.variants:
        if variant not in VARIANTS:
            parser.error(f"unknown variant {variant}; there are: {' '.join(VARIANTS)}")
    if min(options.threads, options.accumulate, options.steps, options.micro_batch or 1) < 1:
        parser.error("--threads, --micro-batch, --accumulate and --steps are at least 1")
    return parser, options


def main():
    parser, options = arguments()
    try:
        shape = read_shape(options.config)
    except (OSError, KeyError, TypeError, yaml.YAMLError) as error:
        parser.error(f"{options.config}: cannot read the shape ({error!r}); "
                     "give --config a YAML file with model.moe.granularity and its two companions")
    shape["micro_batch"] = options.micro_batch or shape["micro_batch"]
    torch.set_num_threads(options.threads)
    transformers.logging.set_verbosity_error()
    rate = sgemm_rate()
    variants = {v: run_variant(shape, v, options) for v in options.variants}
    rate = max(rate, sgemm_rate())
    timed = {v: r for v, r in variants.items() if "tokens_per_s" in r}
    best = max(timed, key=lambda v: timed[v]["tokens_per_s"], default=None)
    result = {"torch": torch.__version__, "transformers": transformers.__version__,
              "threads": options.threads, "shape": shape, "accumulate": options.accumulate,
              "flops_per_token": flops_per_token(shape), "sgemm_gflops": round(rate / 1e9, 1),
              "variants": variants, "best": best}
    if best:
        result["best_tokens_per_s"] = timed[best]["tokens_per_s"]
        share = timed[best]["tokens_per_s"] * flops_per_token(shape) / rate
        result["best_share_of_sgemm"] = round(share, 3)
    print(json.dumps(result))
    return 0 if best else 1


if __name__ == "__main__":
    sys.exit(main())
