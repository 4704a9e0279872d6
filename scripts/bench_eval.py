#!/usr/bin/env python3
"""Times `grist eval` beside lm-evaluation-harness with transformers: the same weights, requests and
cores, in fp32.

A model of a grist config's shape (one training step old) answers the invented questions of
tests/golden/eval. The harness gets every batch size and way to run the experts that is named, its
best one counts, and neither its imports nor its loading of the model are timed; of grist the whole
command is. The runs take turns; the accuracies of both must be the same. Tokens are those of
grist's report: of all requests, before anything is shared.

  scripts/bench_eval.py [--config configs/run/quickstart.yaml] [--threads N] [--shots N]
      [--batches 8,32] [--experts eager,grouped_mm] [--rounds N] [--grist build/cpu/grist]
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import python_environment

python_environment.use([*python_environment.TRUTH_PACKAGES, "accelerate==1.15.0",
                        "lm-eval==0.4.13"])

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import datasets  # noqa: E402
import lm_eval  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from lm_eval.models.huggingface import HFLM  # noqa: E402

from make_eval_golden import TASKS, local_dataset, strings  # noqa: E402
from make_eval_rows import FILES  # noqa: E402

QUESTIONS = python_environment.ROOT / "tests" / "golden" / "eval"
POSITIONS = 1024


def say(text):
    print(text, file=sys.stderr, flush=True)


def read_questions():
    return {stem: [json.loads(line) for line in (QUESTIONS / f"{stem}.jsonl").open()]
            for stem in FILES}


def train(args, folder, rows):
    """A run folder with a tokenizer of its own."""
    texts = sorted(set(strings(rows)))
    (folder / "text.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))

    def grist(*words):
        subprocess.run([args.grist, *map(str, words)], check=True, cwd=python_environment.ROOT,
                       stdout=subprocess.DEVNULL)

    text, tokenizer = folder / "text.jsonl", folder / "tokenizer" / "tokenizer.json"
    grist("tokenizer", "train", "--input", text, "--vocab-size", 1024, "--output",
          folder / "tokenizer")
    grist("prepare", "--input", text, "--tokenizer", tokenizer, "--output", folder / "tokens")
    sets = [f"run.dir={folder / 'run'}", f"data.tokenizer={tokenizer}", "data.validation=[]",
            f"data.train=[{{path: {folder / 'tokens'}}}]", "data.seq_length=64",
            "train.train_iters=1", "train.eval_interval=0", "optim.lr_warmup_iters=0",
            f"model.max_position_embeddings={POSITIONS}", "precision=fp32"]
    grist("train", args.config, *(w for s in sets for w in ("--set", s)))
    return folder / "run"


def to_transformers(args, run, folder):
    subprocess.run([args.grist, "export", run, "--to", "hf", "--output", folder, "--no-proof"],
                   check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return folder


def harness_run(model, tokenizer, batch, shots):
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch)
    start = time.monotonic()
    results = lm_eval.simple_evaluate(model=lm, tasks=TASKS, num_fewshot=shots, bootstrap_iters=0)
    return time.monotonic() - start, results["results"]


def grist_run(args, run, folder):
    report = folder / "results.json"
    start = time.monotonic()
    subprocess.run([args.grist, "eval", run, "--data", QUESTIONS, "--num-fewshot", str(args.shots),
                    "--threads", str(args.threads), "--output", report], check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.monotonic() - start, json.loads(report.read_text())


def differing(ours, theirs):
    """Tasks whose accuracies are not the same."""
    return [name for name, values in theirs.items()
            for key in ("acc,none", "acc_norm,none")
            if key in values and abs(values[key] - ours[name][key]) > 1e-5]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--config", default="configs/run/quickstart.yaml")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--shots", type=int, default=0)
    parser.add_argument("--batches", default="8,32")
    parser.add_argument("--experts", default="eager,grouped_mm")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--grist", default=str(python_environment.ROOT / "build/cpu/grist"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_grad_enabled(False)
    rows = read_questions()
    datasets.load_dataset = local_dataset(rows)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        run = train(args, folder, rows)
        hub = to_transformers(args, run, folder / "hub")
        tokenizer = transformers.PreTrainedTokenizerFast(
            tokenizer_file=str(folder / "tokenizer" / "tokenizer.json"), eos_token="<|endoftext|>")
        seconds = {}
        for _ in range(args.rounds):
            took, report = grist_run(args, run, folder)
            seconds.setdefault("grist", []).append(took)
            say(f"grist: {took:.1f} s")
            for experts in args.experts.split(","):
                model = transformers.AutoModelForCausalLM.from_pretrained(
                    hub, dtype=torch.float32, experts_implementation=experts).eval()
                for batch in map(int, args.batches.split(",")):
                    took, results = harness_run(model, tokenizer, batch, args.shots)
                    label = f"harness, {experts}, batch {batch}"
                    seconds.setdefault(label, []).append(took)
                    say(f"{label}: {took:.1f} s; tasks that differ: "
                        f"{differing(report['results'], results) or 'none'}")
    tokens = report["tokens"]
    print(f"{tokens} tokens, {report['computed_tokens']} computed by grist, {args.threads} threads")
    medians = {label: statistics.median(s) for label, s in seconds.items()}
    for label, median in medians.items():
        print(f"{label:<32} {median:8.1f} s {tokens / median:10.0f} tokens/s")
    best = min(m for label, m in medians.items() if label != "grist")
    print(f"grist is {best / medians['grist']:.1f} times as fast as the best of the harness")


if __name__ == "__main__":
    main()
