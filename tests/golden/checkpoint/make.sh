#!/usr/bin/env bash
# Makes the files beside it: a small checkpoint and what came of it, by an older program. They show
# that checkpoints of before resume with the same bits (tests/train/old_checkpoint_test.cpp), so they
# are never made again with a newer one.
#
#   make.sh GRIST      GRIST: a binary of commit 1eddcb3, the last with the first manifest format
set -euo pipefail
grist=$(realpath "$1")
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

python3 - <<'PY'
import json, random
draw = random.Random(1)
words = ["".join(draw.choice("abcdefghij") for _ in range(draw.randint(2, 5))) for _ in range(60)]
with open("text.jsonl", "w") as f:
    for _ in range(24):
        f.write(json.dumps({"text": " ".join(draw.choices(words, k=draw.randint(10, 60)))}) + "\n")
PY
"$grist" tokenizer train --input text.jsonl --vocab-size 280 --output tokenizer
"$grist" prepare --input text.jsonl --tokenizer tokenizer/tokenizer.json --output tokens

cat > tiny.yaml <<'YAML'
device: cpu
threads: 1
model:
  vocab_size: 280
  tie_word_embeddings: true
  num_hidden_layers: 2
  hidden_size: 16
  num_attention_heads: 2
  num_key_value_heads: 1
  head_dim: 8
  intermediate_size: 24
  moe:
    num_experts: 8
    num_experts_per_tok: 2
    moe_intermediate_size: 6
    first_k_dense_replace: 1
    expert_bias_update_rate: 0.01
    router: {score_function: sigmoid}
data:
  train: [{path: tokens}]
  seq_length: 16
train: {micro_batch_size: 1, global_batch_size: 8, train_iters: 8, eval_interval: 0}
optim: {lr: 1.0e-2, lr_warmup_iters: 2}
parallel: {deterministic: elastic}
checkpoint: {save_interval: 4, keep: 0}
log: {interval: 1}
YAML
"$grist" train tiny.yaml --set run.dir=run

rm -rf "$here/step-00000004" "$here"/tokens.*
cp -r run/checkpoints/step-00000004 "$here/"
cp tokens.* "$here/"
# What the older program made of it: steps 5 to 8, and the sums of the blocks of step 8's one shard.
python3 - run > "$here/expected.json" <<'PY'
import json, sys
run = sys.argv[1]
steps = [json.loads(line) for line in open(run + "/metrics.jsonl")]
manifest = json.load(open(run + "/checkpoints/step-00000008/manifest.json"))
shard = next(f for f in manifest["files"] if f["kind"] == "shard")
later = [s for s in steps if s.get("step", 0) > 4 and "loss" in s]
print(json.dumps({"losses": [s["loss"] for s in later], "grad_norms": [s["grad_norm"] for s in later],
                  "shard": shard["name"], "sums": shard["sums"]}, indent=1))
PY
