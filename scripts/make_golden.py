#!/usr/bin/env python3
"""Makes tests/golden/*.safetensors and *.json: what PyTorch and transformers compute.

Run by hand when a golden must change; the results are committed. tests/golden/README.md says what
each file holds. The stored numbers come from a float64 run of transformers' own modules, rounded to
fp32; a float32 run of the same code is compared with it, and its error is stored beside, as the
yardstick for a tolerance. Single thread, fixed seeds. A seed is taken only if every routing
decision of all ten steps is clear enough that rounding cannot change who goes where.

  scripts/make_golden.py [NAME...]      GRIST_PYTHON=/path/to/python skips making an environment
"""

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

from golden_models import (AUX_COEFF, GOLDENS, SHAPE, Z_COEFF, build, decays,  # noqa: E402
                           grist_config, hub_config, hub_tensors, is_sigmoid, precision,
                           random_weights)

OUTPUT = python_environment.ROOT / "tests" / "golden"
MAX_BYTES = 300 * 1024
STEPS = 10
BATCH, LENGTH = 2, 19
IGNORED = -1  # the target of a position that is not counted
OPTIM = {"lr": 1e-2, "adam_beta1": 0.9, "adam_beta2": 0.95, "adam_eps": 1e-8,
         "weight_decay": 0.1, "clip_grad": 1.0}

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
    """Logits (B, T, V), and per MoE layer: choice scores (what top-k ranks) and router logits
    (B*T, E), weights and ids (B*T, K) best first; documents apart where rows hold many."""
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
    layers = []
    for gate, outputs in zip(gates, seen):
        router_logits, weights, chosen = (torch.cat([o[i] for o in outputs]) for i in range(3))
        scores = router_logits.detach()
        if is_sigmoid(spec):
            scores = scores.sigmoid() + gate.e_score_correction_bias
        order = scores.gather(1, chosen).argsort(dim=-1, descending=True)
        layers.append({"scores": scores, "logits": router_logits,
                       "weights": weights.gather(1, order), "ids": chosen.gather(1, order)})
    return logits, layers


def losses(logits, routing, labels, spec):
    """Cross entropy and the output logits' z-loss per target; our aux and z losses of the whole
    batch, summed over layers."""
    flat = labels.reshape(-1)
    targets = int((flat != IGNORED).sum())
    ce = F.cross_entropy(logits.reshape(len(flat), -1), flat, ignore_index=IGNORED,
                         reduction="sum") / targets
    aux = z = torch.zeros((), dtype=logits.dtype)
    for layer in routing:
        tokens, experts = layer["logits"].shape
        count = torch.bincount(layer["ids"].reshape(-1), minlength=experts).to(logits.dtype)
        fraction = count / (spec["top_k"] * tokens)
        if is_sigmoid(spec):
            score = torch.sigmoid(layer["logits"])
            probability = score / score.sum(dim=-1, keepdim=True)
        else:
            probability = torch.softmax(layer["logits"], dim=-1)
        aux = aux + AUX_COEFF * experts * (fraction * probability.mean(dim=0)).sum()
        z = z + Z_COEFF / tokens * torch.logsumexp(layer["logits"], dim=-1).square().sum()
    parts = {"loss": ce, "aux_loss": aux, "z_loss": z}
    if "head_z_coeff" in spec:
        squares = torch.logsumexp(logits.reshape(len(flat), -1)[flat != IGNORED], dim=-1).square()
        parts["lm_head_z_loss"] = spec["head_z_coeff"] * squares.sum() / targets
    return {**parts, "total_loss": sum(parts.values())}


def smallest_gap(routing, top_k):
    """The closest call between consecutive experts of the first k+1, over all tokens and layers."""
    gaps = []
    for layer in routing:
        best = torch.sort(layer["scores"], dim=-1, descending=True).values[:, :top_k + 1]
        gaps.append(float((best[:, :-1] - best[:, 1:]).min()))
    return min(gaps)


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
            parts = losses(logits, routing, labels, spec)
        result["gap"] = min(result["gap"], smallest_gap(routing, spec["top_k"]))
        result["chosen"].append([layer["ids"] for layer in routing])
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
                          routing=[{k: t.detach() for k, t in r.items()} for r in routing])
        optimizer.step()
    result["final"] = {n: p.detach().clone() for n, p in named.items()}
    return result


# --- files ---------------------------------------------------------------------------------------

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
        if single["gap"] <= spec["gap"]:
            continue
        double = train(spec, weights, text, torch.float64)
        same = all(torch.equal(a, b) for x, y in zip(single["chosen"], double["chosen"])
                   for a, b in zip(x, y))
        if double["gap"] > spec["gap"] and same:
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
    dense = SHAPE["num_hidden_layers"] - len(run_["routing"])
    for layer, routing in enumerate(run_["routing"], start=dense):
        tensors[f"output.router_logits.{layer}"] = routing["logits"].to(torch.float32)
        tensors[f"output.router_weights.{layer}"] = routing["weights"].to(torch.float32)
        tensors[f"output.router_ids.{layer}"] = routing["ids"].to(torch.int32)
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
