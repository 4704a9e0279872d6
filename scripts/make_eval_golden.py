#!/usr/bin/env python3
"""Makes tests/golden/eval: invented questions for every benchmark, a tiny Mixtral, and what
lm-evaluation-harness 0.4.13 makes of them.

Run by hand when a golden must change; the results are committed. tests/golden/README.md says what
each file holds. No text of any benchmark is used but what the harness itself puts into prompts.

  scripts/make_eval_golden.py      GRIST_PYTHON=/path/to/python skips making an environment
"""

import itertools
import json
import os
import random

import python_environment

python_environment.use([*python_environment.TRUTH_PACKAGES, "accelerate==1.15.0",
                        "lm-eval==0.4.13"])

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import datasets  # noqa: E402
import lm_eval  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
import xxhash  # noqa: E402
from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.models.huggingface import HFLM  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: E402

import golden_models  # noqa: E402
from make_eval_rows import FILES, SUBJECTS, all_rows, all_texts  # noqa: E402

OUTPUT = python_environment.ROOT / "tests" / "golden" / "eval"
VOCABULARY, POSITIONS = 384, 192
# No token's last chosen expert may be so close, in logits, to the first one left out: rounding
# decided then who goes where.
MIN_GAP = 1e-6
SHOTS = (0, 3)
TASKS = ["arc_challenge", "arc_easy", "commonsense_qa", "hellaswag", "mmlu", "openbookqa", "piqa",
         "race", "social_iqa", "truthfulqa_mc1", "truthfulqa_mc2", "winogrande"]
HUB = {("allenai/ai2_arc", "ARC-Easy"): "arc_easy",
       ("allenai/ai2_arc", "ARC-Challenge"): "arc_challenge",
       ("tau/commonsense_qa", None): "commonsense_qa", ("Rowan/hellaswag", None): "hellaswag",
       ("allenai/openbookqa", "main"): "openbookqa", ("baber/piqa", None): "piqa",
       ("EleutherAI/race", "high"): "race", ("lighteval/siqa", None): "social_iqa",
       ("truthfulqa/truthful_qa", "multiple_choice"): "truthfulqa",
       ("allenai/winogrande", "winogrande_xl"): "winogrande",
       **{("cais/mmlu", subject): "mmlu" for subject in SUBJECTS}}


def write_rows(rows):
    for stem in FILES:
        lines = (json.dumps(r, ensure_ascii=i % 2 == 0) + "\n" for i, r in enumerate(rows[stem]))
        (OUTPUT / f"{stem}.jsonl").write_text("".join(lines), encoding="utf-8")


def strings(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from strings(part)


def make_tokenizer(rows):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        sorted(set(strings(rows))),
        trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=["<|endoftext|>"],
                            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                            show_progress=False))
    tokenizer.save(str(OUTPUT / "tokenizer.json"), pretty=False)
    (OUTPUT / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>"}\n')
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer,
                                                eos_token="<|endoftext|>")


class Gap:
    """The closest routing decision that a model has made."""

    def __init__(self, model, top_k):
        self.value, self.top_k = float("inf"), top_k
        for name, module in model.named_modules():
            if name.endswith("mlp.gate"):
                module.register_forward_hook(self.look)

    def look(self, _module, _inputs, output):
        best = torch.sort(output[0], dim=-1, descending=True).values
        gap = best[:, self.top_k - 1] - best[:, self.top_k]
        self.value = min(self.value, gap.min().item())


def make_model(seed):
    golden_models.SHAPE.update(vocab_size=VOCABULARY, max_position_embeddings=POSITIONS)
    spec = golden_models.MIXTRAL
    weights = golden_models.random_weights(spec, seed)
    weights["lm_head.weight"] *= 3  # so that choices differ by more than their lengths
    model = golden_models.build(spec, torch.float32).eval()
    model.load_state_dict(weights)
    save_file({n: t.contiguous().clone()
               for n, t in golden_models.hub_tensors(spec, weights).items()},
              OUTPUT / "model.safetensors")
    return model, golden_models.grist_config(spec), Gap(model, spec["top_k"])


def local_dataset(rows):
    """What stands for datasets.load_dataset: our rows under the hub's names."""
    def load(path=None, name=None, **_):
        stem = HUB[path, name]
        splits = {}
        for file in FILES:
            if file.rpartition("_")[0] != stem:
                continue
            mine = [r for r in rows[file] if path != "cais/mmlu" or r["subject"] == name]
            splits[file.rpartition("_")[2]] = datasets.Dataset.from_list(mine)
        return datasets.DatasetDict(splits)
    return load


def digest(arguments):
    text = "\0".join(part for pair in arguments for part in pair[:2])
    return xxhash.xxh3_64_hexdigest(text.encode())


def golden_of(results):
    tasks = {}
    for name, samples in results["samples"].items():
        rows = [[s["doc_id"], digest(s["arguments"]),
                 [round(r[0][0], 5) for r in s["resps"]]]
                for s in sorted(samples, key=lambda s: s["doc_id"])]
        tasks[name] = rows
    keep = ("results", "groups", "group_subtasks", "n-shot", "n-samples")
    return {"samples": tasks, **{key: results[key] for key in keep}}


def rolling(lm, texts):
    """The harness's log-likelihood of whole texts."""
    return [round(v, 5) for v in lm.loglikelihood_rolling(
        [Instance(request_type="loglikelihood_rolling", doc={}, arguments=(t,), idx=i)
         for i, t in enumerate(texts)])]


def run(tokenizer, texts, seed):
    model, config, gap = make_model(seed)
    golden = {"versions": {"lm_eval": lm_eval.__version__, "torch": torch.__version__,
                           "transformers": transformers.__version__},
              "seed": seed, "config": config,
              "rolling": rolling(HFLM(pretrained=model, tokenizer=tokenizer, batch_size=8), texts)}
    for shots in SHOTS:
        results = lm_eval.simple_evaluate(
            model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=8), tasks=TASKS,
            num_fewshot=shots, log_samples=True, bootstrap_iters=1000)
        golden[f"{shots}_shot"] = golden_of(results)
        golden["gap"] = gap.value
        if gap.value <= MIN_GAP:
            break
    return golden


def main():
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    OUTPUT.mkdir(parents=True, exist_ok=True)
    rows = all_rows(random.Random(10))
    write_rows(rows)
    tokenizer = make_tokenizer(rows)
    datasets.load_dataset = local_dataset(rows)
    texts = all_texts(random.Random(11))
    (OUTPUT / "texts.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    for seed in itertools.count(6):
        golden = run(tokenizer, texts, seed)
        print(f"seed {seed}: closest routing decision {golden['gap']:.1e}")
        if golden["gap"] > MIN_GAP:
            break
    text = json.dumps(golden, separators=(",", ":"), default=float)
    (OUTPUT / "expected.json").write_text(text + "\n", encoding="utf-8")
    total = sum(f.stat().st_size for f in OUTPUT.iterdir())
    print(f"{OUTPUT.relative_to(python_environment.ROOT)}: {total / 1000:.0f} kB")


if __name__ == "__main__":
    main()
