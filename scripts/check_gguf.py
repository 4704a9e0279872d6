#!/usr/bin/env python3
"""Does llama.cpp compute what grist exports? By hand, not in CI.

Trains a tiny model of each architecture with grist and exports it as GGUF in fp32, f16 and bf16.
PyPI's gguf reads every field and tensor: the numbers are those of the Hugging Face export (rows of
queries and keys paired, f16 rounded by numpy). Then llama-cpp-python, built from PyPI's source,
loads every file: the same tokens for a text, logits within each type's error, and in fp32 the same
greedy text for 64 tokens. Exits 1 on a difference.

  scripts/check_gguf.py [--files-only] [FOLDER]     keeps its work in FOLDER (default: a temporary one)

--files-only leaves llama.cpp out. The environment is made in .venv/gguf (llama.cpp is compiled there, 20 minutes on 2 cores), or given
as GRIST_PYTHON. Needs build/cpu/grist and a C++ compiler.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import check_hub
import python_environment

FILE_PACKAGES = ["gguf==0.19.0", "safetensors==0.8.0", "numpy==2.4.6"]
PACKAGES = [*FILE_PACKAGES, "llama-cpp-python==0.3.36"]
MODELS = {
    "llama": ("", []),
    "llama_gqa_wide": ("", ["model.head_dim=16", "model.num_key_value_heads=1"]),
    "qwen3": ("", ["model.qk_norm=true", "model.head_dim=16"]),
    "mixtral": (check_hub.MOE, []),
    "mixtral_tied": (check_hub.MOE, ["model.tie_word_embeddings=true", "model.head_dim=16"]),
    "qwen3_moe": (check_hub.MOE, ["model.qk_norm=true"]),
    "qwen3_moe_tied": (check_hub.MOE, ["model.qk_norm=true", "model.tie_word_embeddings=true"]),
}
NEIGHBOURS = ("llama", "mixtral")  # llama.cpp rotates neighbouring rows of these
# Of the largest logit: fp32 sums in another order, the weights' and llama.cpp's own rounding (its
# attention keeps keys and values in f16).
BOUNDS = {"fp32": 5e-3, "f16": 1e-2, "bf16": 6e-2}


def export_all(folder):
    check_hub.make_text(folder / "text.jsonl")
    run = check_hub.grist
    run(folder, "tokenizer", "train", "--input", "text.jsonl", "--vocab-size", 320, "--output",
        "tokenizer")
    run(folder, "prepare", "--input", "text.jsonl", "--tokenizer", "tokenizer/tokenizer.json",
        "--output", "train")
    for name, (experts, sets) in MODELS.items():
        (folder / f"{name}.yaml").write_text(check_hub.CONFIG % experts)
        sets = [word for s in [f"run.dir=runs/{name}", *sets] for word in ("--set", s)]
        run(folder, "train", f"{name}.yaml", *sets)
        text = run(folder, "generate", f"runs/{name}", "--prompt", check_hub.PROMPT,
                   "--temperature", 0, "--max-tokens", check_hub.NEW_TOKENS)
        (folder / f"{name}.txt").write_text(text[:-1])
        run(folder, "export", f"runs/{name}", "--to", "hf", "--output", f"hub/{name}",
            "--save-logits", f"{name}.safetensors")
        for dtype in BOUNDS:
            run(folder, "export", f"runs/{name}", "--to", "gguf", "--output",
                f"{name}-{dtype}.gguf", "--dtype", dtype)


# --- the file, by PyPI's gguf --------------------------------------------------------------------

def hub_name(name, layer, mixtral):
    """The hub's names of a GGUF tensor; several for stacked experts."""
    outer = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
    stem = name.removesuffix(".weight")
    if stem in outer:
        return [outer[stem] + ".weight"]
    at = f"model.layers.{layer}."
    stem = stem.split(".", 2)[2]
    inner = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
             "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
             "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
             "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
             "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
             "ffn_gate_inp": "block_sparse_moe.gate" if mixtral else "mlp.gate"}
    if stem in inner:
        return [at + inner[stem] + ".weight"]
    word = stem.removeprefix("ffn_").removesuffix("_exps")
    if mixtral:
        word = {"gate": "w1", "up": "w3", "down": "w2"}[word]
        return [f"{at}block_sparse_moe.experts.{{}}.{word}.weight"]
    return [f"{at}mlp.experts.{{}}.{word}_proj.weight"]


def expected(np, hub, name, config):
    mixtral = config["model_type"] == "mixtral"
    layer = name.split(".")[1] if name.startswith("blk.") else None
    (pattern,) = hub_name(name, layer, mixtral)
    if "{}" in pattern:
        experts = config.get("num_local_experts", config.get("num_experts"))
        return np.stack([hub[pattern.format(e)] for e in range(experts)])
    value = hub[pattern]
    heads = {"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"}.get(
        name.split(".")[-2])
    if heads and config["model_type"] in NEIGHBOURS:
        value = value.reshape(config[heads], 2, -1, value.shape[1]).swapaxes(1, 2).reshape(
            value.shape)
    return value


def check_file(folder, name, dtype):
    """Every tensor, by number; every field, by being there and readable."""
    import numpy as np
    from gguf import GGUFReader
    from safetensors.numpy import load_file
    config = json.loads((folder / "hub" / name / "config.json").read_text())
    hub = load_file(folder / "hub" / name / "model.safetensors")
    reader = GGUFReader(folder / f"{name}-{dtype}.gguf")
    fields = {k: f.contents() for k, f in reader.fields.items()}
    problems = []
    count = 0
    for t in reader.tensors:
        want = expected(np, hub, t.name, config)
        count += want.size
        kind = t.tensor_type.name
        got = np.asarray(t.data)
        if kind == "F16":
            same = np.array_equal(got, want.astype(np.float16))
        elif kind == "BF16":
            wide = (got.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
            same = np.all(np.abs(wide.reshape(want.shape) - want) <= np.abs(want) * 2.0**-8)
        else:
            same = np.array_equal(got, want)
        if not same:
            problems.append(t.name)
    numbers = sum(v.size for v in hub.values())
    if count != numbers:
        problems.append(f"{count} of {numbers} numbers")
    tokenizer = json.loads((folder / "tokenizer" / "tokenizer.json").read_text())
    tokens = [f"[PAD{i}]" for i in range(config["vocab_size"])]
    for token, number in tokenizer["model"]["vocab"].items():
        tokens[number] = token
    merges = [" ".join(pair) for pair in tokenizer["model"]["merges"]]
    if (fields["tokenizer.ggml.tokens"] != tokens or fields["tokenizer.ggml.merges"] != merges
            or fields["tokenizer.ggml.pre"] != "gpt-2"):
        problems.append("tokenizer")
    return problems


# --- the model, by llama.cpp ---------------------------------------------------------------------

def check_model(folder, name, dtype):
    import numpy as np
    from llama_cpp import Llama
    from safetensors.numpy import load_file
    saved = load_file(folder / f"{name}.safetensors")
    ids = [int(i) for i in saved["input_ids"]]
    llama = Llama(str(folder / f"{name}-{dtype}.gguf"), n_ctx=128, logits_all=True, verbose=False,
                  n_threads=1)
    text = "the bad cage, in 1999; two  blanks\nand caf\u00e9"
    ours = encode(folder, text)
    theirs = llama.tokenize(text.encode(), add_bos=True, special=False)
    llama.eval(ids)
    got = np.array(llama.scores[:len(ids)])
    difference = float(np.abs(got - saved["logits"]).max() / np.abs(saved["logits"]).max())
    result = {"tokens": ours == theirs, "difference": difference}
    if dtype == "fp32":
        llama.reset()
        prompt = llama.tokenize(check_hub.PROMPT.encode(), add_bos=True, special=False)
        out, end = [], llama.token_eos()
        llama.eval(prompt)
        for _ in range(check_hub.NEW_TOKENS):
            token = int(np.argmax(llama.scores[len(prompt) + len(out) - 1]))
            if token == end:
                break
            out.append(token)
            llama.eval([token])
        said = llama.detokenize(prompt + out).decode(errors="replace")
        result["text"] = said == (folder / f"{name}.txt").read_text()
    return result


def encode(folder, text):
    done = subprocess.run([check_hub.GRIST, "tokenizer", "encode", "tokenizer/tokenizer.json"],
                          cwd=folder, input=text.encode(), capture_output=True, check=True)
    return [int(i) for i in done.stdout.split()]


def check(folder, with_llama):
    export_all(folder)
    failures = 0
    for name in MODELS:
        for dtype, bound in BOUNDS.items():
            problems = check_file(folder, name, dtype)
            said = "every tensor and field"
            if with_llama:
                model = check_model(folder, name, dtype)
                if not model["tokens"]:
                    problems.append("other tokens")
                if model["difference"] >= bound:
                    problems.append("logits")
                if not model.get("text", True):
                    problems.append("text")
                said += f", logits within {model['difference']:.1e} of the largest"
                said += ", 64 tokens equal" if model.get("text") else ""
            failures += bool(problems)
            print(f"{'FAIL' if problems else 'ok  '} {name:16} {dtype:5} {said} {problems or ''}",
                  flush=True)
    print(f"{len(MODELS) * len(BOUNDS)} files, {failures} problems")
    return 1 if failures else 0


def main():
    words = sys.argv[1:]
    if set(words) & {"-h", "--help"}:
        print(__doc__)
        return 0
    with_llama = "--files-only" not in words
    if with_llama:
        python_environment.use(PACKAGES, "gguf")
    else:
        python_environment.use(FILE_PACKAGES, "gguf-files")
    folders = [w for w in words if not w.startswith("-")]
    if folders:
        folder = pathlib.Path(folders[0]).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        return check(folder, with_llama)
    with tempfile.TemporaryDirectory() as folder:
        return check(pathlib.Path(folder), with_llama)


if __name__ == "__main__":
    sys.exit(main())
