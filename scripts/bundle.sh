#!/usr/bin/env bash
# Makes one folder, and a tarball of it, that runs on a machine with a GPU and nothing installed but
# its driver: grist, the GPU tests, the benchmarks, the shared libraries that they need, configs, a
# little text to train on, and scripts/gpu_check.sh (docs/cuda.md). Needs no GPU. glibc stays the
# machine's own, so it must not be older than this one's.
#
#   scripts/bundle.sh [--check] [BUILD] [OUTPUT]
#     BUILD   build/cuda, already built; OUTPUT   build/grist-bundle (and .tar.gz)
#     --check tries the bundle: from another folder, without this machine's libraries and environment
set -euo pipefail
cd "$(dirname "$0")/.."

check=0
if [[ ${1:-} == --check ]]; then
  check=1
  shift
fi
build=${1:-build/cuda}
output=$(realpath -m "${2:-build/grist-bundle}")
largest=$((60 << 20)) # bytes of the tarball

die() {
  echo "bundle: $*" >&2
  exit 1
}

command -v patchelf >/dev/null || die "patchelf is missing: apt-get install patchelf"
[[ -x $build/grist ]] || die "$build/grist is missing: scripts/dev build cuda"

# Those that are there: a build without nvcc has no GPU programs.
programs=("$build/grist")
for program in tests/cuda/cuda{,_model}_gpu_test tests/bench/{cuda,moe_layer}_bench; do
  if [[ -x $build/$program ]]; then programs+=("$build/$program"); fi
done

# Of glibc and of the driver: the machine's own.
not_ours='^(ld-linux.*|lib(c|m|mvec|dl|rt|pthread|resolv|util|anl|cuda|nvidia.*))\.so'
libraries() { # paths of the shared libraries of the given programs, once each
  ldd "$@" | sed -n 's/.* => \(\/[^ ]*\) .*/\1/p' | sort -u | while read -r path; do
    if [[ ! $(basename "$path") =~ $not_ours ]]; then echo "$path"; fi
  done
}

rm -rf "$output" "$output.tar.gz"
mkdir -p "$output"/{bin,lib,licenses,scripts}
missing=$(ldd "${programs[@]}" | grep 'not found' || true)
[[ -z $missing ]] || die "libraries are missing: $missing"

for program in "${programs[@]}"; do
  strip --strip-debug -o "$output/bin/$(basename "$program")" "$program"
  patchelf --set-rpath "\$ORIGIN/../lib" "$output/bin/$(basename "$program")"
done
while read -r path; do
  name=$(basename "$path")
  install -m 644 "$(realpath "$path")" "$output/lib/$name"
  patchelf --set-rpath "\$ORIGIN" "$output/lib/$name"
  package=$({ dpkg -S "$(realpath "$path")" || dpkg -S "$path"; } 2>/dev/null | head -n 1)
  package=${package%%:*}
  if [[ -n $package && -f /usr/share/doc/$package/copyright ]]; then
    cp -L "/usr/share/doc/$package/copyright" "$output/licenses/$package"
  fi
done < <(libraries "${programs[@]}")
cp LICENSE "$output/"
cp -r configs "$output/"
mkdir "$output/tests"
cp -r tests/golden "$output/tests/"
cp scripts/{gpu_check.sh,gpu_report.py,gpu_training.py,bench_torch_gpu.py} "$output/scripts/"
scripts/repository_tokens.sh "$output/bin/grist" "$output/data" >/dev/null
glibc=$(objdump -T "$output"/bin/* "$output"/lib/* | grep -o 'GLIBC_[0-9.]*' | sort -V | tail -n 1)
{
  echo "commit: $(git rev-parse HEAD)$([[ -z $(git status --porcelain) ]] || echo ' and changes')"
  echo "made: $(date -u +'%F %H:%M UTC') with $("${CXX:-g++}" --version | head -n 1)"
  echo "needs: $(uname -m), glibc ${glibc#GLIBC_} or later"
} >"$output/VERSION"
tar -C "$(dirname "$output")" --sort=name --owner=0 --group=0 -czf "$output.tar.gz" \
  "$(basename "$output")"
bytes=$(stat -c %s "$output.tar.gz")
echo "bundle: $output.tar.gz, $((bytes >> 20)) MiB; $(tail -n 1 "$output/VERSION")"
((bytes <= largest)) || die "$output.tar.gz has $bytes bytes; more than $largest is too much to carry"
((check)) || exit 0

# ---- does it run elsewhere?
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
tar -C "$place" -xzf "$output.tar.gz"
bundle=/$(basename "$output")
in_place=(env -i)
prefix=$place
elsewhere=(unshare --mount --pid --fork --mount-proc)
if "${elsewhere[@]}" true 2>/dev/null; then # nothing but glibc, the bundle and an empty /tmp
  loader=$(realpath /lib64/ld-linux-x86-64.so.2)
  folder=$(dirname "$loader")
  mkdir -p "$place"/{lib64,dev,proc} "$place$folder"
  cp "$loader" "$place/lib64/ld-linux-x86-64.so.2"
  cp "$folder"/lib{c,m}.so.6 "$place$folder/"
  in_place=(env -i "$(command -v unshare)" "${elsewhere[@]:1}" --root="$place")
  prefix=
else
  echo "bundle: unshare is not allowed here: only another folder and an empty environment"
fi
run() { # run EXPECTED-STATUS PROGRAM ARGUMENTS...
  local expected=$1 status=0 out
  shift
  out=$("${in_place[@]}" "$prefix$bundle/bin/$1" "${@:2}" 2>&1) || status=$?
  if ((status != expected)); then
    die "$1 ${*:2} ended with $status, expected $expected: $out"
  fi
  printf 'bundle: %-40s ends with %d: %s\n' "$1 ${2:-}" "$status" "$(tail -n 1 <<<"$out")"
}
cat >"$place$bundle/check.yaml" <<YAML
seed: 1
device: cpu
run: {dir: $prefix/tmp/run}
model:
  num_hidden_layers: 1
  hidden_size: 32
  num_attention_heads: 2
  intermediate_size: 64
  moe: {expansion_rate: 4, granularity: 2, flops_multiplier: 1}
data:
  tokenizer: $prefix$bundle/data/tokenizer.json
  train: [{path: $prefix$bundle/data/train}]
  seq_length: 64
train: {micro_batch_size: 2, global_batch_size: 2, train_iters: 4}
optim: {lr: 1.0e-3, lr_decay_style: constant}
YAML
mkdir -p "$place/tmp"
run 0 grist --help
run 0 grist train "$prefix$bundle/check.yaml"
if [[ -e $place$bundle/bin/cuda_gpu_test ]]; then
  nvidia-smi >/dev/null 2>&1 || run 69 cuda_gpu_test
fi
