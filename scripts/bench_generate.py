#!/usr/bin/env python3
"""Times `grist generate` beside transformers' generate: the same weights, prompt and cores, in fp32,
greedily, one text at a time, both with their cache of keys and values.

A model of a grist config's shape (one training step old) is exported to Hugging Face. Of each the
time for a long text less that for a short one counts, so that starting and loading do not; the runs
take turns. The texts must be the same.

  scripts/bench_generate.py [--config configs/run/s_1xflops_g8.yaml] [--threads N] [--tokens N]
      [--experts eager,grouped_mm] [--rounds N] [--grist build/cpu/grist]
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import check_hub
import python_environment

python_environment.use(python_environment.TRUTH_PACKAGES)

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import torch  # noqa: E402
import transformers  # noqa: E402

PROMPT = "the bad cage"
SHORT = 16


def train(args, folder):
    """A run folder with a tokenizer of its own, and its export."""
    check_hub.make_text(folder / "text.jsonl")
    run = folder / "run"

    def grist(*words):
        subprocess.run([args.grist, *map(str, words)], check=True, cwd=python_environment.ROOT,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    tokenizer = folder / "tokenizer"
    grist("tokenizer", "train", "--input", folder / "text.jsonl", "--vocab-size", 400, "--output",
          tokenizer)
    grist("prepare", "--input", folder / "text.jsonl", "--tokenizer", tokenizer / "tokenizer.json",
          "--output", folder / "tokens")
    (folder / "config.yaml").write_text("\n".join(
        line for line in (python_environment.ROOT / args.config).read_text().splitlines()
        if "train_tokens" not in line))
    sets = [f"run.dir={run}", f"data.tokenizer={tokenizer / 'tokenizer.json'}",
            "data.validation=[]", f"data.train=[{{path: {folder / 'tokens'}}}]",
            "data.seq_length=64", "train.micro_batch_size=4", "train.global_batch_size=4",
            "train.train_iters=1", "train.eval_interval=0", "optim.lr_warmup_iters=0",
            f"model.max_position_embeddings={args.tokens + 64}", "precision=fp32"]
    grist("train", folder / "config.yaml", *(w for s in sets for w in ("--set", s)))
    grist("export", run, "--to", "hf", "--output", folder / "hub", "--no-proof")
    return run, folder / "hub"


def grist_run(args, run, tokens):
    start = time.monotonic()
    done = subprocess.run([args.grist, "generate", run, "--prompt", PROMPT, "--temperature", "0",
                           "--max-tokens", str(tokens), "--threads", str(args.threads)], check=True,
                          capture_output=True, text=True, errors="replace")
    return time.monotonic() - start, done.stdout[:-1]


def transformers_run(model, tokenizer, tokens):
    ids = torch.tensor([tokenizer(PROMPT, add_special_tokens=False)["input_ids"]])
    start = time.monotonic()
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens,
                         do_sample=False, use_cache=True)
    took = time.monotonic() - start
    if out.shape[1] != ids.shape[1] + tokens:
        sys.exit(f"the text ends after {out.shape[1] - ids.shape[1]} tokens; another seed, please")
    return took, tokenizer.decode(out[0], clean_up_tokenization_spaces=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--config", default="configs/run/s_1xflops_g8.yaml")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--experts", default="eager,grouped_mm")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--grist", default=str(python_environment.ROOT / "build/cpu/grist"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_grad_enabled(False)
    transformers.utils.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as name:
        run, hub = train(args, pathlib.Path(name))
        tokenizer = transformers.AutoTokenizer.from_pretrained(hub)
        rates = {}
        for _ in range(args.rounds):
            runs = {"grist": lambda n: grist_run(args, run, n)}
            for experts in args.experts.split(","):
                model = transformers.AutoModelForCausalLM.from_pretrained(
                    hub, dtype=torch.float32, experts_implementation=experts).eval()
                runs[f"transformers, {experts}"] = (
                    lambda n, model=model: transformers_run(model, tokenizer, n))
            texts = {}
            for label, generate in runs.items():
                short, _ = generate(SHORT)
                long, texts[label] = generate(args.tokens)
                rates.setdefault(label, []).append((args.tokens - SHORT) / (long - short))
            if len(set(texts.values())) != 1:
                sys.exit(f"the texts differ: {texts}")
    print(f"{args.tokens} tokens behind {PROMPT!r}, {args.threads} threads, the same text")
    medians = {label: statistics.median(r) for label, r in rates.items()}
    for label, median in medians.items():
        print(f"{label:<28} {median:9.1f} tokens/s")
    best = max(m for label, m in medians.items() if label != "grist")
    print(f"grist is {medians['grist'] / best:.1f} times as fast as the best of transformers")


if __name__ == "__main__":
    main()
