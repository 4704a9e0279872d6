#!/usr/bin/env python3
"""Do transformers 4 and 5 compute what grist exports, and grist what they save? By hand, not in CI.

Trains a tiny model of each family with grist, exports it in fp32 and bf16, and loads every folder
unmodified in two virtual environments: transformers 4.57 and the newest 5. No key may be missing
or unexpected, fp32 logits must be equal within 1e-4, and greedy text must be the same for 64
tokens. Then the other way: what each version saves again must import and give the same logits.
Exits 1 on a difference.

  scripts/check_hub.py [FOLDER]     keeps its work in FOLDER (default: a temporary one)

The environments are made in .venv (PyTorch, about 2 GB each), or given as GRIST_PYTHON_4 and
GRIST_PYTHON_5. Needs build/cpu/grist.
"""

import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time

import python_environment

ROOT = python_environment.ROOT
GRIST = ROOT / "build" / "cpu" / "grist"
VERSIONS = {"4": ["torch==2.15.0", "transformers==4.57.6", "safetensors==0.8.0", "numpy==2.4.6"],
            "5": ["torch==2.15.0", "transformers>=5.23", "safetensors==0.8.0", "numpy==2.4.6"]}
LOGIT_BOUND = 1e-4
PROMPT = "the bad cage"
NEW_TOKENS = 64

CONFIG = """
run: {dir: set}
seed: 7
device: cpu
model:
  num_hidden_layers: 3
  hidden_size: 48
  num_attention_heads: 4
  num_key_value_heads: 2
  intermediate_size: 64
  initializer_range: 0.1
  rope_theta: 20000
  %s
data:
  tokenizer: tokenizer/tokenizer.json
  train: [{path: train}]
  seq_length: 128
train: {micro_batch_size: 4, global_batch_size: 8, train_iters: 60}
optim: {lr: 5.0e-3, lr_warmup_iters: 5}
log: {interval: 60}
"""
MOE = "moe: {expansion_rate: 2, granularity: 4, flops_multiplier: 0.5}"
SIGMOID = ["model.moe.router.score_function=sigmoid"]
MODELS = {
    "llama": ("", []),
    "llama_tied": ("", ["model.tie_word_embeddings=true"]),
    "qwen3": ("", ["model.qk_norm=true", "model.head_dim=16"]),
    "mixtral": (MOE, []),
    "mixtral_tied": (MOE, ["model.tie_word_embeddings=true", "model.head_dim=16"]),
    "qwen3_moe": (MOE, ["model.qk_norm=true", "model.moe.first_k_dense_replace=1"]),
    "qwen3_moe_before": (MOE, ["model.qk_norm=true", "model.moe.router.pre_softmax=true"]),
    "qwen2_moe": (MOE, ["model.moe.router.pre_softmax=true"]),
    "qwen2_moe_dense_first": (MOE, ["model.moe.first_k_dense_replace=1"]),
    "granitemoeshared": (MOE, ["model.moe.shared_expert_intermediate_size=24"]),
    "glm4_moe": (MOE, SIGMOID + ["model.moe.router.norm_topk_prob=true",
                                 "model.moe.router.routed_scaling_factor=1.5",
                                 "model.moe.expert_bias_update_rate=0.01",
                                 "model.moe.first_k_dense_replace=1",
                                 "model.moe.shared_expert_intermediate_size=32"]),
    "glm4_moe_qk_norm": (MOE, SIGMOID + ["model.qk_norm=true"]),
}


def grist(folder, *arguments):
    done = subprocess.run([GRIST, *map(str, arguments)], cwd=folder, capture_output=True,
                          errors="replace")
    if done.returncode != 0:
        sys.exit(f"grist {' '.join(map(str, arguments))}: exit {done.returncode}: {done.stderr}")
    return done.stdout


def make_text(path):
    """Documents of a few hundred made-up words."""
    draw = random.Random(1)
    words = ["".join(draw.choice("abcdefghiklmnoprstu") for _ in range(draw.randint(2, 7)))
             for _ in range(200)]
    with open(path, "w", encoding="utf-8") as file:
        for _ in range(400):
            text = " ".join(draw.choice(words) for _ in range(60))
            file.write(json.dumps({"text": text}) + "\n")


def export_all(folder):
    """Every model as NAME-fp32 and NAME-bf16 with the logits and the text that grist has."""
    make_text(folder / "text.jsonl")
    grist(folder, "tokenizer", "train", "--input", "text.jsonl", "--vocab-size", 320, "--output",
          "tokenizer")
    grist(folder, "prepare", "--input", "text.jsonl", "--tokenizer", "tokenizer/tokenizer.json",
          "--output", "train")
    for name, (experts, sets) in MODELS.items():
        (folder / f"{name}.yaml").write_text(CONFIG % experts)
        sets = [word for s in [f"run.dir=runs/{name}", *sets] for word in ("--set", s)]
        grist(folder, "train", f"{name}.yaml", *sets)
        text = grist(folder, "generate", f"runs/{name}", "--prompt", PROMPT, "--temperature", 0,
                     "--max-tokens", NEW_TOKENS)
        (folder / f"{name}.txt").write_text(text[:-1])
        for dtype in ("fp32", "bf16"):
            grist(folder, "export", f"runs/{name}", "--to", "hf", "--output",
                  f"hub/{name}-{dtype}", "--dtype", dtype, "--save-logits",
                  f"{name}-{dtype}.safetensors")


# --- in each environment -------------------------------------------------------------------------

def largest_difference(folder, name, model, torch):
    from safetensors.torch import load_file
    want = load_file(folder / f"{name}.safetensors")
    with torch.no_grad():
        got = model(want["input_ids"].long()[None]).logits[0]
    return (got - want["logits"]).abs().max().item()


def greedy_text(path, model, torch):
    from transformers import AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(path)
    ids = torch.tensor([tokenizer(PROMPT, add_special_tokens=False)["input_ids"]])
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW_TOKENS,
                         do_sample=False)
    return tokenizer.decode(out[0], skip_special_tokens=True, clean_up_tokenization_spaces=False)


def load_all(folder, label):
    """Loads every export, compares, saves it again. One line of JSON a folder."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch
    import transformers
    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(1)
    for path in sorted((folder / "hub").iterdir()):
        kind = "torch_dtype" if transformers.__version__.startswith("4.") else "dtype"
        model, info = transformers.AutoModelForCausalLM.from_pretrained(
            path, output_loading_info=True, **{kind: torch.float32})
        model.eval()
        wrong = {k: sorted(map(str, v)) for k, v in info.items() if v}
        name, dtype = path.name.rsplit("-", 1)
        line = {"name": path.name, "version": transformers.__version__, "keys": wrong,
                "class": type(model).__name__,
                "difference": largest_difference(folder, path.name, model, torch)}
        if dtype == "fp32":
            line["text"] = greedy_text(path, model, torch) == (folder / f"{name}.txt").read_text()
            model.save_pretrained(folder / f"saved-{label}" / name)
        print("result:" + json.dumps(line), flush=True)


# --- both ----------------------------------------------------------------------------------------

def import_again(folder, label):
    """What transformers saved: the largest logit difference of the export of its import."""
    import_differences = {}
    for path in sorted((folder / f"saved-{label}").iterdir()):
        run = folder / f"imported-{label}" / path.name
        grist(folder, "import", path, "--output", run)
        logits = folder / f"imported-{label}" / f"{path.name}.safetensors"
        grist(folder, "export", run, "--to", "hf", "--output", f"again-{label}/{path.name}",
              "--save-logits", logits)
        same = logits.read_bytes() == (folder / f"{path.name}-fp32.safetensors").read_bytes()
        import_differences[path.name] = same
    return import_differences


def python_of(label, packages):
    given = os.environ.get(f"GRIST_PYTHON_{label}")
    return given or str(python_environment.make_environment(f"hub-{label}", packages))


def check(folder):
    begin = time.time()
    export_all(folder)
    print(f"{2 * len(MODELS)} exports made in {time.time() - begin:.0f} s", flush=True)
    failures = 0
    for label, packages in VERSIONS.items():
        done = subprocess.run([python_of(label, packages), __file__, "--load", folder, label],
                              capture_output=True, text=True)
        lines = [json.loads(line[7:]) for line in done.stdout.splitlines()
                 if line.startswith("result:")]
        for line in lines:
            fine = (not line["keys"] and line["difference"] < LOGIT_BOUND
                    and line.get("text", True))
            failures += not fine
            text = {True: ", 64 tokens equal", False: ", TEXT DIFFERS", None: ""}[line.get("text")]
            print(f"{'ok  ' if fine else 'FAIL'} transformers {line['version']} {line['name']:28} "
                  f"{line['class']:28} {line['difference']:.1e}{text} {line['keys'] or ''}")
        if done.returncode != 0 or len(lines) != 2 * len(MODELS):
            sys.exit(f"transformers {label}: exit {done.returncode}: {done.stderr[-3000:]}")
        for name, same in import_again(folder, label).items():
            failures += not same
            print(f"{'ok  ' if same else 'FAIL'} saved by transformers {label}, imported: {name}")
    print(f"{failures} failures in {time.time() - begin:.0f} s")
    return 1 if failures else 0


def main():
    if sys.argv[1:2] == ["--load"]:
        return load_all(pathlib.Path(sys.argv[2]), sys.argv[3])
    if len(sys.argv) > 1:
        folder = pathlib.Path(sys.argv[1]).absolute()
        folder.mkdir(parents=True)
        return check(folder)
    with tempfile.TemporaryDirectory() as folder:
        return check(pathlib.Path(folder))


if __name__ == "__main__":
    sys.exit(main())
