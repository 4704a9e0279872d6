#!/usr/bin/env python3
"""Makes tests/golden/*.safetensors and *.json: what PyTorch and transformers compute.

Run by hand when a golden must change; the results are committed. tests/golden/README.md says what
each file holds. The stored numbers come from a float64 run of transformers' own modules, rounded to
fp32; a float32 run of the same code is compared with it, and its error is stored beside, as the
yardstick for a tolerance. Single thread, fixed seeds. A seed is taken only if every routing
decision of all ten steps is decided by more than MIN_GAP, so that rounding cannot change who goes
where.

  scripts/make_golden.py [NAME...]      GRIST_PYTHON=/path/to/python skips making an environment
"""

import contextlib
import itertools
import json
import math
import os
import sys
import tempfile

import python_environment

python_environment.use(python_environment.TRUTH_PACKAGES)

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
import transformers  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from torch.overrides import TorchFunctionMode  # noqa: E402

OUTPUT = python_environment.ROOT / "tests" / "golden"
MIN_GAP = 1e-3
MAX_BYTES = 300 * 1024
STEPS = 10
BATCH, LENGTH = 2, 19
IGNORED = -1  # the target of a position that is not counted
AUX_COEFF, Z_COEFF = 0.05, 0.01
OPTIM = {"lr": 1e-2, "adam_beta1": 0.9, "adam_beta2": 0.95, "adam_eps": 1e-8,
         "weight_decay": 0.1, "clip_grad": 1.0}

SHAPE = {"num_hidden_layers": 2, "hidden_size": 24, "num_attention_heads": 4,
         "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 61, "max_position_embeddings": 32}
# One golden a name. `documents`: lengths of the documents in each row, None for one a row.
GOLDENS = {
    "mixtral": {"type": "mixtral", "top_k": 2, "norm": True, "tied": False, "theta": 1e4,
                "eps": 1e-5, "documents": None},
    "mixtral_packed": {"type": "mixtral", "top_k": 2, "norm": True, "tied": False, "theta": 1e4,
                       "eps": 1e-5, "documents": [[7, 12], [1, 13, 5]]},
    "qwen3_moe_norm": {"type": "qwen3_moe", "top_k": 3, "norm": True, "tied": False, "theta": 1e6,
                       "eps": 1e-6, "documents": None},
    "qwen3_moe": {"type": "qwen3_moe", "top_k": 3, "norm": False, "tied": True, "theta": 1e6,
                  "eps": 1e-6, "documents": None},
}
NUM_EXPERTS, EXPERT_WIDTH = 8, 12


class Float64(TorchFunctionMode):
    """transformers casts to float32 in norms, softmax and RoPE; here those casts mean float64."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        def widen(value):
            return torch.float64 if value is torch.float32 else value

        if func is torch.Tensor.float:
            return args[0].double()
        args = tuple(widen(a) for a in args)
        result = func(*args, **{k: widen(v) for k, v in (kwargs or {}).items()})
        assert getattr(result, "dtype", None) is not torch.float32, f"{func} stayed in float32"
        return result


@contextlib.contextmanager
def precision(dtype):
    torch.set_default_dtype(dtype)
    with Float64() if dtype is torch.float64 else contextlib.nullcontext():
        yield
    torch.set_default_dtype(torch.float32)


# --- configuration -------------------------------------------------------------------------------

def hub_config(spec):
    """config.json as transformers reads it."""
    config = dict(SHAPE, rope_theta=spec["theta"], rms_norm_eps=spec["eps"], hidden_act="silu",
                  num_experts_per_tok=spec["top_k"], tie_word_embeddings=spec["tied"],
                  attention_dropout=0.0, use_cache=False, bos_token_id=None, eos_token_id=None)
    if spec["type"] == "mixtral":
        config.update(model_type="mixtral", architectures=["MixtralForCausalLM"],
                      num_local_experts=NUM_EXPERTS, intermediate_size=EXPERT_WIDTH,
                      sliding_window=None)
    else:
        config.update(model_type="qwen3_moe", architectures=["Qwen3MoeForCausalLM"],
                      num_experts=NUM_EXPERTS, moe_intermediate_size=EXPERT_WIDTH,
                      intermediate_size=2 * EXPERT_WIDTH, norm_topk_prob=spec["norm"],
                      decoder_sparse_step=1, mlp_only_layers=[], attention_bias=False,
                      use_sliding_window=False)
    return config


def grist_config(spec):
    """The same model in the words of grist's `model` block."""
    pre_softmax = not spec["norm"]  # softmax, top-k, divide by the sum IS softmax after top-k
    moe = {"num_experts": NUM_EXPERTS, "num_experts_per_tok": spec["top_k"],
           "moe_intermediate_size": EXPERT_WIDTH, "aux_loss_coeff": AUX_COEFF,
           "aux_loss_scope": "micro_batch", "z_loss_coeff": Z_COEFF,
           "router": {"score_function": "softmax", "pre_softmax": pre_softmax,
                      "norm_topk_prob": False}}
    return dict(SHAPE, intermediate_size=2 * EXPERT_WIDTH, rope_theta=spec["theta"],
                rms_norm_eps=spec["eps"], qk_norm=spec["type"] == "qwen3_moe",
                tie_word_embeddings=spec["tied"], moe=moe)


def build(spec, dtype):
    config = hub_config(spec)
    config_class = {"mixtral": transformers.MixtralConfig,
                    "qwen3_moe": transformers.Qwen3MoeConfig}[spec["type"]]
    model_class = getattr(transformers, config["architectures"][0])
    config = config_class(**{k: v for k, v in config.items() if k != "rope_theta"},
                          rope_parameters={"rope_type": "default", "rope_theta": spec["theta"]})
    config._attn_implementation = "eager"
    config._experts_implementation = "eager"
    with precision(dtype):
        return model_class(config).to(dtype).train()


def random_weights(spec, seed):
    """Large enough that routing is decided and every non-linearity is used."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, parameter in sorted(build(spec, torch.float32).named_parameters()):
        std = {"gate": 0.5, "embed_tokens": 0.4 if spec["tied"] else 1.0}.get(
            name.split(".")[-2], 0.2)
        mean = 1.0 if "norm" in name else 0.0
        weights[name] = mean + std * torch.randn(parameter.shape, generator=generator)
    return weights


def random_text(spec, seed):
    """ids, labels and the documents of each row as (row, begin, end)."""
    generator = torch.Generator().manual_seed(1000 + seed)
    text = torch.randint(SHAPE["vocab_size"], (BATCH, LENGTH + 1), generator=generator)
    ids, labels = text[:, :-1].clone(), text[:, 1:].clone()
    labels[0, 3] = labels[1, LENGTH - 1] = IGNORED
    documents = []
    for row, lengths in enumerate(spec["documents"] or [[LENGTH]] * BATCH):
        begin = 0
        for length in lengths:
            documents.append((row, begin, begin + length))
            begin += length
            if begin < LENGTH:
                labels[row, begin - 1] = IGNORED  # the next document's start is not a target
        assert begin == LENGTH
    return ids, labels, documents


# --- the model's losses --------------------------------------------------------------------------

def run(model, spec, ids, documents):
    """Logits (B, T, V) and, per layer, router logits (B*T, E), weights and ids (B*T, K)."""
    gates = [m for n, m in model.named_modules() if n.endswith("mlp.gate")]
    seen = [[] for _ in gates]
    hooks = [g.register_forward_hook(lambda _m, _i, out, s=s: s.append(out))
             for g, s in zip(gates, seen)]
    if spec["documents"] is None:
        logits = model(input_ids=ids).logits
    else:
        pieces = [model(input_ids=ids[r:r + 1, b:e]).logits[0] for r, b, e in documents]
        logits = torch.cat(pieces).view(BATCH, LENGTH, -1)
    for hook in hooks:
        hook.remove()
    outputs = [[torch.cat([out[i] for out in s]) for i in range(3)] for s in seen]
    return logits, outputs


def losses(logits, routing, labels, top_k):
    """Cross entropy per target; our aux and z losses of the whole batch, summed over layers."""
    flat = labels.reshape(-1)
    targets = int((flat != IGNORED).sum())
    ce = F.cross_entropy(logits.reshape(len(flat), -1), flat, ignore_index=IGNORED,
                         reduction="sum") / targets
    aux = z = torch.zeros((), dtype=logits.dtype)
    for router_logits, _, chosen in routing:
        tokens, experts = router_logits.shape
        count = torch.bincount(chosen.reshape(-1), minlength=experts).to(logits.dtype)
        fraction = count / (top_k * tokens)
        mean_probability = torch.softmax(router_logits, dim=-1).mean(dim=0)
        aux = aux + AUX_COEFF * experts * (fraction * mean_probability).sum()
        z = z + Z_COEFF / tokens * torch.logsumexp(router_logits, dim=-1).square().sum()
    return {"loss": ce, "aux_loss": aux, "z_loss": z, "total_loss": ce + aux + z}


def smallest_gap(routing, top_k):
    """The closest call between consecutive experts of the first k+1, over all tokens and layers."""
    gaps = []
    for router_logits, _, _ in routing:
        best = torch.sort(router_logits.detach(), dim=-1, descending=True).values[:, :top_k + 1]
        gaps.append(float((best[:, :-1] - best[:, 1:]).min()))
    return min(gaps)


def decays(name):
    return not ("norm" in name or name.endswith("gate.weight") or "embed_tokens" in name)


def train(spec, weights, text, dtype):
    """The first step's outputs and gradients, then STEPS AdamW steps on the same batch."""
    ids, labels, documents = text
    model = build(spec, dtype)
    model.load_state_dict(weights, strict=not spec["tied"])
    named = dict(model.named_parameters())
    optimizer = torch.optim.AdamW(
        [{"params": [p for n, p in named.items() if decays(n)],
          "weight_decay": OPTIM["weight_decay"]},
         {"params": [p for n, p in named.items() if not decays(n)], "weight_decay": 0.0}],
        lr=OPTIM["lr"], betas=(OPTIM["adam_beta1"], OPTIM["adam_beta2"]), eps=OPTIM["adam_eps"],
        foreach=False)
    result = {"steps": [], "chosen": [], "gap": math.inf}
    for step in range(STEPS + 1):
        with precision(dtype):
            logits, routing = run(model, spec, ids, documents)
            parts = losses(logits, routing, labels, spec["top_k"])
        result["gap"] = min(result["gap"], smallest_gap(routing, spec["top_k"]))
        result["chosen"].append([r[2] for r in routing])
        line = {key: value.item() for key, value in parts.items()}
        if step == STEPS:
            result["after"] = line
            break
        optimizer.zero_grad(set_to_none=True)
        parts["total_loss"].backward()
        grads = {n: torch.zeros_like(p) if p.grad is None else p.grad.clone()
                 for n, p in named.items()}
        line["grad_norm"] = torch.nn.utils.clip_grad_norm_(
            model.parameters(), OPTIM["clip_grad"], foreach=False).item()
        result["steps"].append(line)
        if step == 0:
            result.update(logits=logits.detach(), grads=grads,
                          routing=[[t.detach() for t in r] for r in routing])
        optimizer.step()
    result["final"] = {n: p.detach().clone() for n, p in named.items()}
    return result


# --- files ---------------------------------------------------------------------------------------

def hub_tensors(spec, tensors):
    """From transformers' fused experts to the names and shapes of files on the hub."""
    mixtral = spec["type"] == "mixtral"
    words = ("w1", "w3", "w2") if mixtral else ("gate_proj", "up_proj", "down_proj")
    result = {}
    for name, tensor in tensors.items():
        hub = name.replace(".mlp.", ".block_sparse_moe.") if mixtral else name
        prefix, _, leaf = hub.rpartition(".")
        if leaf == "gate_up_proj":
            for expert in range(NUM_EXPERTS):
                gate, up = tensor[expert].chunk(2)
                result[f"{prefix}.{expert}.{words[0]}.weight"] = gate
                result[f"{prefix}.{expert}.{words[1]}.weight"] = up
        elif leaf == "down_proj":
            for expert in range(NUM_EXPERTS):
                result[f"{prefix}.{expert}.{words[2]}.weight"] = tensor[expert]
        else:
            result[hub] = tensor
    return result


def fp32(tensors, prefix=""):
    return {prefix + n: t.detach().to(torch.float32).contiguous().clone()
            for n, t in tensors.items()}


def check_names(spec, weights, ids, want):
    """transformers must load our names from a folder, unmodified, and give the same logits."""
    with tempfile.TemporaryDirectory() as folder:
        save_file(fp32(hub_tensors(spec, weights)), f"{folder}/model.safetensors", {"format": "pt"})
        with open(f"{folder}/config.json", "w", encoding="utf-8") as file:
            json.dump(hub_config(spec), file)
        model, info = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager",
            experts_implementation="eager", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"], info
    if spec["documents"] is None:
        torch.testing.assert_close(model(input_ids=ids).logits, want.float(), rtol=1e-4, atol=1e-4)


def relative(got, want):
    """Norm of the difference over the norm, the comparison that tests make per tensor."""
    scale = want.double().norm().item()
    return (got.double() - want.double()).norm().item() / scale if scale else got.norm().item()


def yardstick(single, double):
    """How far PyTorch's own float32 run is from float64."""
    def worst(key):
        return max(relative(single[key][n], double[key][n]) for n in double[key])

    steps = zip(single["steps"], double["steps"])
    return {"logits": relative(single["logits"], double["logits"]),
            "worst_gradient": worst("grads"), "worst_final_weight": worst("final"),
            "worst_step_value": max(abs(s[k] / d[k] - 1) for s, d in steps for k in d)}


def find_run(spec):
    """The first seed whose routing is decisive, and the same in both precisions, over all steps."""
    for seed in itertools.count(1):
        weights, text = random_weights(spec, seed), random_text(spec, seed)
        single = train(spec, weights, text, torch.float32)
        if single["gap"] <= MIN_GAP:
            continue
        double = train(spec, weights, text, torch.float64)
        same = all(torch.equal(a, b) for x, y in zip(single["chosen"], double["chosen"])
                   for a, b in zip(x, y))
        if double["gap"] > MIN_GAP and same:
            return seed, weights, text, single, double


def store_tensors(name, spec, weights, text, run_):
    ids, labels, documents = text
    positions = torch.zeros_like(ids)
    for row, begin, end in documents:
        positions[row, begin:end] = torch.arange(end - begin)
    tensors = {"input.ids": ids.to(torch.int32), "input.labels": labels.to(torch.int32),
               "input.positions": positions.to(torch.int32)}
    if spec["documents"] is not None:
        starts = [r * LENGTH + b for r, b, _ in documents] + [BATCH * LENGTH]
        tensors["input.cu_seqlens"] = torch.tensor(starts, dtype=torch.int32)
    tensors["output.logits"] = run_["logits"].to(torch.float32).contiguous()
    for layer, (router_logits, chosen_weights, chosen) in enumerate(run_["routing"]):
        tensors[f"output.router_logits.{layer}"] = router_logits.to(torch.float32)
        tensors[f"output.router_weights.{layer}"] = chosen_weights.to(torch.float32)
        tensors[f"output.router_ids.{layer}"] = chosen.to(torch.int32)
    for prefix, part in (("", weights), ("grad.", run_["grads"]), ("final.", run_["final"])):
        tensors.update(fp32(hub_tensors(spec, part), prefix))
    path = OUTPUT / f"{name}.safetensors"
    save_file(tensors, path, {"format": "pt"})  # two keys would come in random order
    path.chmod(0o644)
    size = path.stat().st_size
    assert size < MAX_BYTES, f"{path.name} has {size} bytes, more than {MAX_BYTES}"
    return size


def make(name):
    spec = GOLDENS[name]
    seed, weights, text, single, double = find_run(spec)
    check_names(spec, weights, text[0], double["logits"])
    size = store_tensors(name, spec, weights, text, double)
    gap = min(single["gap"], double["gap"])
    record = {"golden": name, "made_with": {"torch": torch.__version__.split("+")[0],
                                            "transformers": transformers.__version__},
              "seed": seed, "smallest_gap": gap, "config": grist_config(spec),
              "hub_config": hub_config(spec), "optim": OPTIM,
              "num_targets": int((text[1] != IGNORED).sum()),
              "no_decay": [n for n in hub_tensors(spec, weights) if not decays(n)],
              "steps": double["steps"], "after": double["after"],
              "float32_error": yardstick(single, double)}
    path = OUTPUT / f"{name}.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    errors = ", ".join(f"{k} {v:.1e}" for k, v in record["float32_error"].items())
    print(f"{name}: seed {seed}, smallest gap {gap:.2e}, {size} bytes, loss "
          f"{double['steps'][0]['loss']:.4f} -> {double['after']['loss']:.4f}; fp32: {errors}",
          flush=True)


def main():
    names = sys.argv[1:] or list(GOLDENS)
    unknown = [n for n in names if n not in GOLDENS]
    if unknown:
        sys.exit(f"unknown golden {unknown[0]}; there are: {' '.join(GOLDENS)}")
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    OUTPUT.mkdir(parents=True, exist_ok=True)
    for name in names:
        make(name)


if __name__ == "__main__":
    main()
