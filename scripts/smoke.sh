#!/usr/bin/env bash
# Trains for a minute and checks what came out: twice half a minute, the second run going on from
# the first one's checkpoint. The corpus is this repository's own text, so nothing is downloaded.
#
#   scripts/smoke.sh [GRIST]      default: build/cpu/grist
set -euo pipefail
cd "$(dirname "$0")/.."

grist=${1:-build/cpu/grist}
folder=build/smoke
seconds=${GRIST_SMOKE_SECONDS:-60}

rm -rf "$folder"
scripts/repository_tokens.sh "$grist" "$folder"

cat >"$folder/config.yaml" <<YAML
seed: 1
run: {dir: $folder/run}
model:
  num_hidden_layers: 2
  hidden_size: 64
  num_attention_heads: 2
  intermediate_size: 128
  moe: {expansion_rate: 4, granularity: 4, flops_multiplier: 1}
data:
  tokenizer: $folder/tokenizer.json
  train: [{path: $folder/train}]
  validation: [{path: $folder/validation}]
  seq_length: 128
train:
  micro_batch_size: 4
  global_batch_size: 8
  train_iters: 1000000  # never reached: max_hours stops each run
  max_hours: $(python3 -c "print($seconds / 7200)")
optim: {lr: 2.0e-3, lr_decay_style: constant, lr_warmup_iters: 20}
log: {interval: 5}
YAML

for part in 1 2; do
  status=0
  "$grist" train "$folder/config.yaml" || status=$?
  if ((status != 75)); then
    echo "smoke: run $part ended with code $status, expected 75 (stopped by max_hours, saved)" >&2
    exit 1
  fi
  python3 - "$folder/run/metrics.jsonl" "$folder/steps" <<'PY'
import json, math, pathlib, sys

rows = [json.loads(line) for line in open(sys.argv[1], encoding="utf-8")]
train = [row for row in rows if "loss" in row]
steps = [row["step"] for row in train]
before = pathlib.Path(sys.argv[2])
reached = int(before.read_text()) if before.exists() else 0
before.write_text(str(steps[-1]))
losses = [row["loss"] for row in train]
if not all(isinstance(x, float) and math.isfinite(x) for x in losses):
    sys.exit("smoke: a loss is not finite")
if steps != sorted(set(steps)):
    sys.exit("smoke: metrics.jsonl repeats or reorders steps")
if steps[-1] <= reached:
    sys.exit(f"smoke: no step after {reached}")
if steps[-1] >= 60 and losses[-1] > 0.85 * losses[0]:
    sys.exit(f"smoke: the loss went from {losses[0]:.3f} to {losses[-1]:.3f} only")
print(f"smoke: step {steps[-1]}, loss {losses[0]:.3f} -> {losses[-1]:.3f}")
PY
done
