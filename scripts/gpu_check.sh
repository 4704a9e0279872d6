#!/usr/bin/env bash
# Everything that only a GPU can show, in one command: the GPU tests, compute-sanitizer on them,
# short training runs, every benchmark. From a checkout (it builds what is missing) or from a bundle
# (scripts/bundle.sh). A part that fails does not stop the others. Prints one table and leaves it,
# as report.md and report.json, with the parts' logs in the output folder. Exit code: 0 all well,
# 1 a part failed, 69 no usable GPU. Changes no setting of the GPU.
#
#   scripts/gpu_check.sh [--quick] [--only PART[,PART...]] [--output FOLDER]
#     --quick   about 5 minutes instead of 25: no racecheck, shorter runs, fewer rounds
#     --only    tests model_tests memcheck racecheck synccheck training bench moe_layer torch
#     --output  default: $OUT, else build/gpu_check (a bundle: gpu_check)
set -uo pipefail
cd "$(dirname "$0")/.." || exit

die() {
  echo "gpu_check: $2" >&2
  exit "$1"
}

quick=0
only=
output=
while (($# > 0)); do
  case $1 in
    --quick) quick=1 ;;
    --only) only=${2:?} && shift ;;
    --output) output=${2:?} && shift ;;
    *) die 64 "unknown argument $1; the head of this script lists them" ;;
  esac
  shift
done

nvidia-smi -L 2>/dev/null | grep -q GPU || die 69 "no GPU here: nvidia-smi finds none"

if [[ -e VERSION && -d bin ]]; then
  kind=bundle bin=bin benches=bin tests=bin data=data
  commit=$(sed -n 's/^commit: //p' VERSION)
  output=${output:-${OUT:-gpu_check}}
else
  kind=checkout bin=build/cuda benches=build/cuda/tests/bench tests=build/cuda/tests/cuda
  data=build/gpu_data
  output=${output:-${OUT:-build/gpu_check}}
  commit=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
  [[ -z $(git status --porcelain 2>/dev/null) ]] || commit+=" and changes"
  scripts/dev build cuda --target gpu_programs || die 1 "the build failed"
  [[ -e $data/train.bin ]] || scripts/repository_tokens.sh "$bin/grist" "$data" ||
    die 1 "no token files"
fi
mkdir -p "$output"
rm -f "$output"/*.jsonl "$output/parts.tsv"
touch "$output/parts.tsv"

query() { nvidia-smi --query-gpu="$1" --format=csv,noheader,nounits | head -n 1; }
memory_gib=$(($(query memory.total) / 1024))
python3 - "$output/facts.json" "$kind" "$commit" "$(query name)" "$(query driver_version)" \
  "$memory_gib GiB" "$(query clocks.max.sm) MHz" <<'PY'
import datetime, json, platform, sys

keys = ["from", "commit", "device", "driver", "memory", "largest SM clock"]
facts = dict(zip(keys, sys.argv[2:]))
facts["date"] = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
facts["system"] = f"{platform.machine()}, {platform.platform()}"
with open(sys.argv[1], "w", encoding="utf-8") as file:
    json.dump(facts, file, indent=1)
PY

begin=$SECONDS
failed=0
wanted() { [[ -z $only || ,$only, == *,$1,* ]]; }
skip() { # skip PART REASON
  wanted "$1" || return 0
  echo "gpu_check: $1: skipped, $2"
  printf '%s\tskipped: %s\t0\n' "$1" "$2" >>"$output/parts.tsv"
}
part() { # part NAME LIMIT-IN-SECONDS COMMAND...
  wanted "$1" || return 0
  local name=$1 limit=$2 start=$SECONDS status=0
  shift 2
  echo "gpu_check: [$((SECONDS - begin)) s] $name ..."
  timeout --kill-after=10 "$limit" "$@" >"$output/$name.log" 2>&1 || status=$?
  if ((status != 0)); then
    failed=1
    tail -n 15 "$output/$name.log"
    ((status != 124)) || echo "gpu_check: $name was not done after $limit s"
  elif [[ $name == training ]]; then
    cat "$output/$name.log"
  fi
  echo "gpu_check: $name: $( ((status == 0)) && echo ok || echo "FAILED with code $status"), \
$((SECONDS - start)) s"
  printf '%s\t%d\t%d\n' "$name" "$status" $((SECONDS - start)) >>"$output/parts.tsv"
}
sanitizer=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null)
sanitize() { # sanitize TOOL LIMIT
  if [[ -z $sanitizer ]]; then
    skip "$1" "no compute-sanitizer"
  else
    part "$1" "$2" "$sanitizer" --tool "$1" --error-exitcode 1 "$tests/cuda_gpu_test"
  fi
}
benchmark() { # benchmark PART LIMIT PROGRAM ARGUMENTS...
  if [[ -x $3 ]]; then
    part "$1" "$2" "${@:3}" --json "$output/$1.jsonl"
  else
    skip "$1" "$3 is not built"
  fi
}

python=${GRIST_PYTHON:-python3}
# pip's cuBLAS, where the toolkit has none (kernels/cuda/cublas_library.cpp)
pip_cublas() {
  "$python" - 2>/dev/null <<'PY'
import pathlib, nvidia

print(next(lib.parent for folder in nvidia.__path__
           for lib in pathlib.Path(folder).glob("*/lib/libcublas.so.1[23]")))
PY
}
if [[ -z ${GRIST_CUBLAS:-} && ! -e /usr/local/cuda/lib64/libcublas.so.13 ]] &&
  folder=$(pip_cublas); then
  export GRIST_CUBLAS=$folder
fi
rounds=$( ((quick)) && echo 5 || echo 20)
part tests 600 "$tests/cuda_gpu_test"
part model_tests 300 "$tests/cuda_model_gpu_test"
((quick)) && how=(--quick) || how=()
part training 900 python3 scripts/gpu_training.py --grist "$bin/grist" --data "$data" \
  --output "$output/training" --memory-gib "$memory_gib" "${how[@]}"
cp "$output/training/training.jsonl" "$output/" 2>/dev/null
benchmark bench 600 "$benches/cuda_bench" --rounds "$rounds"
benchmark moe_layer 300 "$benches/moe_layer_bench" --device cuda --rounds "$rounds"
if "$python" -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
  part torch 600 "$python" scripts/bench_torch_gpu.py --rounds "$rounds" \
    --json "$output/torch.jsonl" "$output/bench.jsonl" "$output/moe_layer.jsonl"
else
  skip torch "no PyTorch that sees the GPU; GRIST_PYTHON names the interpreter"
fi
sanitize memcheck 600
sanitize synccheck 600
if ((quick)); then skip racecheck "--quick"; else sanitize racecheck 900; fi

echo
python3 scripts/gpu_report.py "$output" || failed=1
echo "gpu_check: $((SECONDS - begin)) s; everything is in $output"
exit "$failed"
