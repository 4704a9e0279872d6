#!/usr/bin/env bash
# From a fresh machine to a trained fine-grained MoE: installs what is missing, builds, makes a
# corpus of public-domain text, trains, draws the loss, writes some text, and compares the model
# with gzip and xz on held-out chapters. Start it again after a stop: each step skips what is done,
# and training goes on from its last checkpoint.
set -euo pipefail
cd "$(dirname "$0")/.."

grist=build/cpu/grist
data=data/quickstart
run=runs/quickstart
config=configs/run/quickstart.yaml
log=build/quickstart.log

die() {
  echo "quickstart: $*" >&2
  exit 1
}

report() { # report SECONDS-AT-START TEXT
  printf 'quickstart: %-58s %5d s\n' "$2" $((SECONDS - $1))
}

# quiet TEXT COMMAND...: one line when it works, the end of its output when it does not.
quiet() {
  local start=$SECONDS text=$1 status=0
  shift
  echo "quickstart: $text ..."
  "$@" >"$log" 2>&1 || status=$?
  if ((status != 0)); then
    tail -n 30 "$log" >&2
    die "$text: '$*' failed with code $status; all of its output is in $log"
  fi
  report "$start" "$text"
}

# shown TEXT COMMAND...: the command's own output, then the line.
shown() {
  local start=$SECONDS text=$1 status=0
  shift
  "$@" || status=$?
  ((status != 75)) || die "$text: stopped and saved; start this script again to go on"
  ((status == 0)) || die "$text: '$*' failed with code $status; its message is above"
  report "$start" "$text"
}

# make_file TARGET INPUTS... -- TEXT COMMAND...: only when the target is missing or older.
make_file() {
  local target=$1 stale=0 text
  shift
  [[ -e $target ]] || stale=1
  while [[ $1 != -- ]]; do
    if [[ $1 -nt $target ]]; then stale=1; fi
    shift
  done
  text=$2
  shift 2
  if ((stale == 0)); then
    echo "quickstart: $text: already done"
    return
  fi
  rm -f "$target"
  quiet "$text" "$@"
  [[ -e $target ]] || die "$text: '$*' did not write $target"
}

build() {
  cmake --preset cpu && cmake --build --preset cpu --target grist
}

prepare() { # prepare PART
  "$grist" prepare --input "$data/$1.jsonl" --tokenizer "$data/tokenizer.json" \
    --output "$data/$1" --overwrite
}

mkdir -p build
shown "packages" ./scripts/install_dependencies.sh
quiet "build" build
shown "corpus" python3 scripts/corpus/fetch_public_domain.py --output "$data"
make_file "$data/tokenizer.json" "$data/train.jsonl" -- "tokenizer: byte-level BPE of 4096" \
  "$grist" tokenizer train --input "$data/train.jsonl" --vocab-size 4096 \
  --output "$data"
for part in train validation; do
  make_file "$data/$part.idx" "$data/$part.jsonl" "$data/tokenizer.json" -- \
    "tokens of the $part text" prepare "$part"
done
shown "training ($config)" "$grist" train "$config"
shown "loss curve" python3 scripts/plot_loss.py "$run"
shown "sample" "$grist" generate "$run" --prompt "It was a fine morning" \
  --max-tokens 120 --temperature 0.8 --seed 1
shown "compression" python3 scripts/compare_compression.py "$run" "$data/validation.jsonl" \
  "$data/validation"
echo "quickstart: done in $SECONDS s; the run is in $run"
