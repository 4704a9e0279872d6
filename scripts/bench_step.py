#!/usr/bin/env python3
"""A whole training step of grist beside OpenBLAS's sgemm and PyTorch, in turn on the same cores.

Each round measures OpenBLAS's 2048^3 sgemm (the faster of its kernels), a few steps of `grist train` on random
tokens, and, unless --no-pytorch, the variants of scripts/bench_pytorch.py at the same shape and batch. Prints
medians over rounds and the two ratios: model FLOP/s over sgemm, and tokens/s over the best PyTorch variant.

  scripts/bench_step.py [--config FILE] [--threads N] [--accumulate N] [--steps N] [--rounds N]
      [--variants eager,grouped_mm,...] [--no-pytorch]
"""

import argparse
import json
import os
import pathlib
import random
import statistics
import struct
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "cpu"
TOKENS = 400_000
DOCUMENT = 600


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--config", default="configs/run/s_1xflops_g8.yaml")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--accumulate", type=int, default=1, help="micro-batches a step")
    parser.add_argument("--steps", type=int, default=8, help="timed steps a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--variants", default="eager,grouped_mm,grouped_mm+compile")
    parser.add_argument("--no-pytorch", action="store_true")
    return parser.parse_args()


def write_tokens(prefix, vocab):
    """Random documents as a Megatron pair (docs/formats/tokens.md)."""
    draw = random.Random(1)
    ids = [draw.randrange(vocab) for _ in range(TOKENS)]
    lengths = [DOCUMENT] * (TOKENS // DOCUMENT)
    lengths[-1] += TOKENS - sum(lengths)
    prefix.with_suffix(".bin").write_bytes(struct.pack(f"<{TOKENS}H", *ids))
    starts = [sum(lengths[:i]) * 2 for i in range(len(lengths))]
    n = len(lengths)
    index = b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, 8, n, n + 1)
    index += struct.pack(f"<{n}i", *lengths) + struct.pack(f"<{n}q", *starts)
    index += struct.pack(f"<{n + 1}q", *range(n + 1))
    prefix.with_suffix(".idx").write_bytes(index)


def run(command, environment=None):
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT,
                            env={**os.environ, **(environment or {})}, check=False)
    if result.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} failed with {result.returncode}: "
                 f"{result.stderr.strip()[-500:]}")
    return result.stdout


def sgemm(threads):
    """GFLOP/s; OpenBLAS may not know a new processor, so its AVX-512 kernels are tried too."""
    bench = BUILD / "tests" / "bench" / "matmul_bench"
    rates = []
    for core in ({}, {"OPENBLAS_CORETYPE": "SKYLAKEX"}):
        try:
            rates.append(float(run([bench, "--sgemm", str(threads)], core)))
        except SystemExit:
            if not core:
                raise
    return max(rates)


def grist(options, folder, batch):
    """Tokens/s and GFLOP/s: medians over the steps of one run, the first two left out."""
    target = folder / f"run{len(list(folder.glob('run*')))}"
    iters = options.steps + 2
    settings = {"run.dir": target, "data.tokenizer": "", "data.train": f"[{{path: {folder / 'tokens'}}}]",
                "data.validation": "[]", "train.eval_interval": 0, "train.eval_iters": 0,
                "train.train_tokens": 0, "train.train_iters": iters, "optim.lr_warmup_iters": 1,
                "train.global_batch_size": batch, "log.interval": 1, "threads": options.threads,
                "checkpoint.save_interval": 0}
    command = [BUILD / "grist", "train", options.config]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    run(command)
    rows = [json.loads(line) for line in (target / "metrics.jsonl").read_text().splitlines()][2:]
    return (statistics.median(r["tokens_per_second"] for r in rows),
            statistics.median(r["flops_per_second"] for r in rows) / 1e9)


def pytorch(options):
    command = [sys.executable, ROOT / "scripts" / "bench_pytorch.py", "--config", options.config,
               "--threads", str(options.threads), "--accumulate", str(options.accumulate),
               "--steps", str(max(3, options.steps // 2)), "--variants", options.variants]
    return json.loads(run(command).strip().splitlines()[-1])


def read_config(path):
    """micro_batch_size and vocab_size, without needing a YAML package."""
    values = {}
    for line in pathlib.Path(path).read_text().splitlines():
        key, _, value = line.strip().partition(":")
        if key in ("micro_batch_size", "vocab_size"):
            values[key] = int(value.split("#")[0])
    return values


def main():
    options = arguments()
    config = read_config(ROOT / options.config)
    if config["vocab_size"] > 65536:
        sys.exit(f"{options.config}: vocab_size above 65536 does not fit the tokens this script makes")
    batch = config["micro_batch_size"] * options.accumulate
    rates, tokens, flops, torch = [], [], [], []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_tokens(folder / "tokens", config["vocab_size"])
        for number in range(options.rounds):
            rates.append(sgemm(options.threads))
            speed, rate = grist(options, folder, batch)
            tokens.append(speed)
            flops.append(rate)
            print(f"round {number + 1}: sgemm {rates[-1]:.0f} GFLOP/s, grist {speed:.0f} tokens/s, "
                  f"{rate:.0f} GFLOP/s", flush=True)
            if not options.no_pytorch:
                result = pytorch(options)
                torch.append(result["best_tokens_per_s"])
                each = ", ".join(f"{v} {r['tokens_per_s']:.0f}" for v, r in result["variants"].items()
                                 if "tokens_per_s" in r)
                print(f"         PyTorch {result['torch']}, transformers {result['transformers']}: "
                      f"{each} tokens/s", flush=True)
    print(f"{options.config}, {options.threads} threads, {batch} sequences a step, medians of "
          f"{options.rounds} rounds:")
    share = statistics.median(f / r for f, r in zip(flops, rates))
    print(f"  grist {statistics.median(tokens):.0f} tokens/s, {statistics.median(flops):.0f} GFLOP/s "
          f"of model FLOPs = {100 * share:.0f} % of sgemm {statistics.median(rates):.0f}")
    if torch:
        ratio = statistics.median(t / p for t, p in zip(tokens, torch))
        print(f"  PyTorch, best variant: {statistics.median(torch):.0f} tokens/s; grist is {ratio:.2f} "
              "times as fast")


if __name__ == "__main__":
    main()
