#!/usr/bin/env python3
"""Step time on ranks beside one rank with as many threads, in turn on the same cores.

Each round runs `grist train` on random tokens once a case: one rank with all threads (the reference), and RANKS
ranks that share those threads in several settings. Prints the median step of each case and its ratio to a case
of the same round (medians over rounds): by default the reference, for an elastic case also its layout twin.

  scripts/bench_ranks.py [--config FILE] [--ranks N] [--threads N] [--micro N] [--batch N] [--steps N] [--rounds N]
      [--cases WORD,...] [--mpirun ARGUMENTS] [--memory]
"""

import argparse
import json
import os
import pathlib
import re
import statistics
import sys
import tempfile

import bench_step


def cases(ranks, threads):
    """name -> (ranks, threads of each, settings)"""
    each = max(1, threads // ranks)
    spread = {"parallel.expert_model_parallel_size": ranks}
    elastic = {"parallel.deterministic": "elastic"}
    plain = {"parallel.zero_stage": 0}
    alone = {"parallel.overlap_grad_reduce": "false", "parallel.overlap_expert_exchange": "false"}
    return {
        "reference": (1, threads, {}),
        "elastic-1": (1, threads, elastic),
        "zero1": (ranks, each, {}),
        "zero1-alone": (ranks, each, alone),
        "zero0": (ranks, each, plain),
        "zero1-elastic": (ranks, each, elastic),
        "ep": (ranks, each, spread),
        "ep-alone": (ranks, each, spread | alone),
        "ep-zero0": (ranks, each, spread | plain),
        "ep-elastic": (ranks, each, spread | elastic),
    }


TWINS = {"elastic-1": "reference", "zero1-elastic": "zero1", "ep-elastic": "ep"}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--config", default="configs/run/s_1xflops_g8.yaml")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of all ranks together")
    parser.add_argument("--micro", type=int, default=2, help="sequences of a micro-batch")
    parser.add_argument("--batch", type=int, default=16, help="sequences of a step")
    parser.add_argument("--steps", type=int, default=3, help="timed steps a run, after two others")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", default="", help="some of the cases, by name; all of them")
    parser.add_argument("--mpirun", default="", help="more arguments of mpirun")
    parser.add_argument("--memory", action="store_true", help="print the memory that start-up announces")
    return parser.parse_args()


def train(options, folder, case):
    """The median step in seconds, and the lines of the announced memory."""
    ranks, threads, extra = case
    target = folder / f"run{len(list(folder.glob('run*')))}"
    settings = {"run.dir": target, "data.tokenizer": "", "data.train": f"[{{path: {folder / 'tokens'}}}]",
                "data.validation": "[]", "train.eval_interval": 0, "train.eval_iters": 0,
                "train.train_tokens": 0, "train.train_iters": options.steps + 2, "optim.lr_warmup_iters": 1,
                "train.micro_batch_size": options.micro, "train.global_batch_size": options.batch,
                "log.interval": 1, "threads": threads, "checkpoint.save_interval": 0} | extra
    command = ["mpirun", "-np", str(ranks), *options.mpirun.split()] if ranks > 1 else []
    command += [str(bench_step.BUILD / "grist"), "train", options.config]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    allow = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"} if os.geteuid() == 0 else {}
    said = bench_step.run(command, allow)
    rows = [json.loads(line) for line in (target / "metrics.jsonl").read_text().splitlines()][2:]
    return statistics.median(row["seconds"] for row in rows), said


def main():
    options = arguments()
    chosen = cases(options.ranks, options.threads)
    names = options.cases.split(",") if options.cases else list(chosen)
    if unknown := [name for name in names if name not in chosen]:
        sys.exit(f"unknown case {unknown[0]}; there are: {' '.join(chosen)}")
    seconds = {name: [] for name in names}
    memory = {}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        vocab = bench_step.read_config(bench_step.ROOT / options.config)["vocab_size"]
        bench_step.write_tokens(folder / "tokens", vocab)
        for number in range(options.rounds):
            for case in names:
                time, said = train(options, folder, chosen[case])
                seconds[case].append(time)
                memory[case] = said
            line = ", ".join(f"{case} {times[-1]:.3f}" for case, times in seconds.items())
            print(f"round {number + 1}, load {os.getloadavg()[0]:.1f}: {line}", flush=True)
    report(options, chosen, seconds)
    if options.memory:
        for case, said in memory.items():
            print(case, *re.findall(r".*(?:MB|MiB|GB|GiB).*", said), sep="\n  ")


def report(options, chosen, seconds):
    print(f"{options.config}, {options.batch} sequences a step in micro-batches of {options.micro}, "
          f"medians of {options.rounds} rounds of {options.steps} steps")
    for name, times in seconds.items():
        ranks, threads, _ = chosen[name]
        line = f"{name:14} {ranks} x {threads}  {statistics.median(times):7.3f} s"
        for other in dict.fromkeys(["reference", TWINS.get(name, "reference")]):
            if other in seconds:
                ratio = statistics.median(a / b for a, b in zip(times, seconds[other]))
                line += f"  {ratio:.3f} of {other}"
        print(line)


if __name__ == "__main__":
    main()
