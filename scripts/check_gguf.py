#!/usr/bin/env python3
"""Does llama.cpp compute what grist exports? By hand, not in CI.

Trains a tiny model of each architecture with grist and exports it as GGUF in fp32, f16 and bf16.
PyPI's gguf reads every field and tensor: the numbers are those of the Hugging Face export (rows of
queries and keys paired, f16 rounded by numpy). Then llama.cpp (PyPI's xllamacpp, which holds it
compiled) loads every file: the same tokens for a text, log-probabilities of every token at every
place within each type's error, and in fp32 the same greedy text for 64 tokens. Exits 1 on a
difference.

  scripts/check_gguf.py [--files-only] [FOLDER]     keeps its work in FOLDER (default: a temporary one)

--files-only leaves llama.cpp out. The environment is made in .venv, or given as GRIST_PYTHON. Needs
build/cpu/grist.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import urllib.request

import check_hub
import python_environment

FILE_PACKAGES = ["gguf==0.19.0", "safetensors==0.8.0", "numpy==2.4.6"]
PACKAGES = [*FILE_PACKAGES, "xllamacpp==2026.10.11549"]
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
# Of a log-probability: fp32 sums in another order; weights rounded, and what llama.cpp multiplies
# with them, so that now and then another expert is chosen.
BOUNDS = {"fp32": 1e-4, "f16": 5e-2, "bf16": 5e-1}


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

def ask(server, path, question):
    request = urllib.request.Request(server.listening_address + path, json.dumps(question).encode(),
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def check_model(folder, name, dtype):
    import numpy as np
    import xllamacpp
    from safetensors.numpy import load_file
    saved = load_file(folder / f"{name}.safetensors")
    ids = [int(i) for i in saved["input_ids"]]
    params = xllamacpp.CommonParams()
    params.model.path = str(folder / f"{name}-{dtype}.gguf")
    params.n_ctx, params.n_parallel, params.cpuparams.n_threads = 128, 1, 1
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server = xllamacpp.Server(params)
    text = "the bad cage, in 1999; two  blanks\nand caf\u00e9"
    tokens = ask(server, "/tokenize", {"content": text, "add_special": True})["tokens"]
    question = {"temperature": 0, "cache_prompt": False, "n_probs": saved["logits"].shape[1]}
    difference, places = 0.0, 0
    for place, logits in enumerate(saved["logits"].astype(np.float64)):
        want = logits - logits.max()
        want -= np.log(np.exp(want).sum())
        answer = ask(server, "/completion", {**question, "prompt": ids[:place + 1], "n_predict": 1,
                                             "ignore_eos": True})
        # A token that ends inside a character is held back with its probabilities.
        shown = answer.get("completion_probabilities", [])[:1]
        places += len(shown)
        for token in [t for one in shown for t in one["top_logprobs"]]:
            difference = max(difference, abs(token["logprob"] - want[token["id"]]))
    if places < len(ids) // 2:
        sys.exit(f"{name}: only {places} of {len(ids)} places have probabilities")
    result = {"tokens": tokens == encode(folder, text), "difference": difference}
    if dtype == "fp32":
        answer = ask(server, "/completion", {"temperature": 0, "prompt": check_hub.PROMPT,
                                             "n_predict": check_hub.NEW_TOKENS})
        said = check_hub.PROMPT + answer["content"]
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
                    problems.append("log-probabilities")
                if not model.get("text", True):
                    problems.append("text")
                said += f", log-probabilities within {model['difference']:.1e}"
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
