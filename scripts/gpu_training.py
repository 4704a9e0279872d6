#!/usr/bin/env python3
"""Short real training runs on a GPU, judged: part of scripts/gpu_check.sh.

- fp32 on the GPU and on the CPU: the same losses, but for rounding;
- bf16 on the GPU: near them, and the loss falls;
- with CUDA graphs and without: the same bits;
- a run that stops without a save and goes on: the same bits (grist verify resume);
- speed: a step of a model like OLMoE, with as many layers as the memory allows.
Prints progress, writes training.jsonl into the output folder (lines as in docs/cuda.md) and exits 1
when something is wrong.

  scripts/gpu_training.py --grist bin/grist --data data --output out [--quick] [--memory-gib 141]
"""

import argparse
import json
import math
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

SMALL = {
    "seed": 1,
    "model": {"num_hidden_layers": 2, "hidden_size": 128, "num_attention_heads": 2,
              "intermediate_size": 256,
              "moe": {"expansion_rate": 4, "granularity": 4, "flops_multiplier": 1}},
    "data": {"seq_length": 128},
    "train": {"micro_batch_size": 8, "global_batch_size": 16},
    "optim": {"lr": 2.0e-3, "lr_decay_style": "constant", "lr_warmup_iters": 10},
    "log": {"interval": 1},
}
# The shapes of OLMoE-1B-7B (arXiv 2409.02060), with fewer layers.
LARGE = {
    "seed": 1,
    "model": {"hidden_size": 2048, "num_attention_heads": 16, "intermediate_size": 8192,
              "vocab_size": 50304,
              "moe": {"expansion_rate": 8, "granularity": 8, "flops_multiplier": 1}},
    "data": {"seq_length": 4096},
    "train": {"micro_batch_size": 4, "global_batch_size": 8},
    "optim": {"lr": 1.0e-4, "lr_decay_style": "constant"},
    "log": {"interval": 1},
}
LAYER_GIB, HEAD_GIB, BATCH_GIB = 7.1, 3.5, 1.6  # 18 bytes a parameter; activations of a layer


def layers_for(memory_gib):
    """Layers of LARGE that fill 85 % of the memory, at most OLMoE's own 16."""
    return max(1, min(16, int((0.85 * memory_gib - HEAD_GIB - 4) / (LAYER_GIB + BATCH_GIB))))


class Failed(Exception):
    pass


class Runs:
    def __init__(self, arguments):
        self.grist, self.data = arguments.grist.resolve(), arguments.data.resolve()
        self.output = arguments.output.resolve()
        self.output.mkdir(parents=True, exist_ok=True)

    def config(self, name, base, settings):
        """A new run: writes base with "section.key" settings; JSON is YAML too."""
        config = json.loads(json.dumps(base))
        config["run"] = {"dir": str(self.output / name)}
        for folder in self.output.glob(f"{name}*/"):
            shutil.rmtree(folder)
        config["data"] |= {"tokenizer": str(self.data / "tokenizer.json"),
                           "train": [{"path": str(self.data / "train")}]}
        for key, value in settings.items():
            section = config
            *path, last = key.split(".")
            for part in path:
                section = section.setdefault(part, {})
            section[last] = value
        path = self.output / f"{name}.yaml"
        path.write_text(json.dumps(config, indent=1), encoding="utf-8")
        return path

    def start(self, name, *command, limit=1200):
        begin = time.monotonic()
        with open(self.output / f"{name}.log", "w", encoding="utf-8") as log:
            try:
                status = subprocess.run([self.grist, *command], stdout=log,
                                        stderr=subprocess.STDOUT, check=False,
                                        timeout=limit).returncode
            except subprocess.TimeoutExpired:
                raise Failed(f"{name}: not done after {limit} s") from None
        if status != 0:
            raise Failed(f"{name}: ended with code {status}: {self.last_line(name)}")
        print(f"  {name}: done in {time.monotonic() - begin:.0f} s", flush=True)

    def train(self, name, base, settings):
        """The lines of the run's logged steps. Nothing is saved."""
        settings = {"checkpoint.save_interval": 0} | settings
        self.start(name, "train", self.config(name, base, settings))
        return self.logged(name)

    def logged(self, name):
        path = self.output / name / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
        return [row for row in map(json.loads, lines) if "loss" in row]

    def last_line(self, name):
        lines = (self.output / f"{name}.log").read_text(encoding="utf-8").splitlines()
        return lines[-1] if lines else ""


def same_losses(name, found, expected, tolerance):
    """Raises when two runs' losses differ by more than the tolerance, relatively."""
    worst = 0.0
    for a, b in zip(found, expected, strict=True):
        if not (isinstance(a, float) and math.isfinite(a)):
            raise Failed(f"{name}: a loss is not finite")
        worst = max(worst, abs(a - b) / b)
    if not worst <= tolerance:
        raise Failed(f"{name}: losses differ from the CPU's by {worst:.1e}, allowed {tolerance:.0e}")
    return worst


def falls(name, losses):
    """The mean of the last tenth over that of the first steps."""
    last = statistics.mean(losses[-max(1, len(losses) // 10):])
    if not last <= 0.8 * losses[0]:
        raise Failed(f"{name}: the loss went from {losses[0]:.3f} to {last:.3f} only")
    return last


def check_losses(runs, device, quick):
    steps = 20
    cpu, gpu, bf16 = ([row["loss"] for row in runs.train(name, SMALL, {
        "device": where, "precision": precision, "train.train_iters": n})]
        for name, where, precision, n in (
            ("cpu-fp32", "cpu", "fp32", steps), ("gpu-fp32", device, "fp32", steps),
            ("gpu-bf16", device, "bf16" if device == "cuda" else "fp32", 60 if quick else 300)))
    # fp32: only the order of sums differs, until a choice of experts flips. bf16: 8 bits.
    worst = same_losses("gpu-fp32", gpu[:5], cpu[:5], 1e-4)
    same_losses("gpu-fp32", gpu, cpu, 1e-2)
    rounded = same_losses("gpu-bf16", bf16[:steps], cpu, 3e-2)
    last = falls("gpu-bf16", bf16)
    print(f"  losses: fp32 within {worst:.1e} of the CPU's over 5 steps, bf16 within {rounded:.1e} "
          f"over {steps}; bf16 {bf16[0]:.3f} -> {last:.3f} in {len(bf16)} steps")


def check_resume(runs, device, precision):
    name = f"resume-{precision}"
    config = runs.config(name, SMALL, {"device": device, "precision": precision,
                                        "train.train_iters": 20})
    runs.start(name, "verify", "resume", config, "--steps", "20")


def check_graphs(runs, device):
    """The same losses to the last digit, from graphs that were recorded."""
    rows = {graphs: runs.train(f"graphs-{graphs}", SMALL, {
        "device": device, "train.cuda_graphs": graphs, "train.train_iters": 30})
        for graphs in ("auto", "none")}
    if [row["loss"] for row in rows["auto"]] != [row["loss"] for row in rows["none"]]:
        raise Failed("graphs: losses differ from those without")
    log = (runs.output / "graphs-auto.log").read_text(encoding="utf-8")
    if "CUDA graphs: " in log:
        raise Failed(f"graphs: {log[log.index('CUDA graphs: '):].splitlines()[0]}")
    rates = {name: statistics.median(row["tokens_per_second"] for row in found[10:])
             for name, found in rows.items()}
    print(f"  graphs: the same losses; {rates['auto']:.0f} tokens/s, without {rates['none']:.0f}")


def measure_step(runs, device, memory_gib, quick, base=LARGE):
    """A measurement. The run is killed after enough steps: it would save gigabytes at its end."""
    layers, steps = layers_for(memory_gib), 8 if quick else 20
    config = runs.config("step", base, {
        "device": device, "precision": "bf16" if device == "cuda" else "fp32",
        "model.num_hidden_layers": layers, "train.train_iters": 1000000,
        "checkpoint.save_interval": 0, "checkpoint.async_save": False})
    rows, begin = [], time.monotonic()
    with open(runs.output / "step.log", "w", encoding="utf-8") as log, subprocess.Popen(
            [runs.grist, "train", config], stdout=log, stderr=subprocess.STDOUT) as run:
        while len(rows) < steps and run.poll() is None and time.monotonic() < begin + 400:
            time.sleep(0.2)
            rows = runs.logged("step")
        run.kill()
    if len(rows) < steps:
        raise Failed(f"step: {len(rows)} of {steps} steps in {time.monotonic() - begin:.0f} s; "
                     f"its end: {runs.last_line('step')}")
    tokens = base["train"]["global_batch_size"] * base["data"]["seq_length"]
    rate, flops = (statistics.median(row[key] for row in rows[2:])  # the first are slower
                   for key in ("tokens_per_second", "flops_per_second"))
    print(f"  step: {layers} layers, {rate:.0f} tokens/s, {flops / 1e12:.1f} TFLOP/s", flush=True)
    return {"kernel": "training_step", "shape": f"layers={layers} N={tokens} D=2048 E=64 K=8 F=1024",
            "ms": 1e3 * tokens / rate, "tflops": flops / 1e12, "tokens_per_second": rate,
            "against": "ceiling_bf16"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("grist", "data", "output"):
        parser.add_argument(f"--{name}", type=pathlib.Path, required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--memory-gib", type=float, default=80)
    parser.add_argument("--device", default="cuda", help="cpu: tries this script without a GPU")
    a = parser.parse_args()
    runs, failures = Runs(a), []
    parts = [lambda: check_losses(runs, a.device, a.quick),
             lambda: check_resume(runs, a.device, "fp32")]
    if a.device == "cuda":
        def step():
            line = json.dumps(measure_step(runs, a.device, a.memory_gib, a.quick))
            (runs.output / "training.jsonl").write_text(line + "\n", encoding="utf-8")
        parts += [lambda: check_resume(runs, a.device, "bf16"),
                  lambda: check_graphs(runs, a.device), step]
    for part in parts:
        try:
            part()
        except Failed as error:
            failures.append(str(error))
            print(f"  FAILED {error}", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
