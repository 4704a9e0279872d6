#!/usr/bin/env bash
# Faults in numbers that a push has no time for: real processes that die, hang, are stopped, killed
# and signalled; lives of a run in the simulator; damaged checkpoints; the monitors of the ranks.
# Prints one table of what was done and how many tests failed; exits 1 when one failed.
#
#   scripts/soak.sh [MINUTES]     about how long; default 15. The tests must be built: build/cpu
set -uo pipefail
cd "$(dirname "$0")/.." || exit

minutes=${1:-15}
tests=$PWD/build/cpu/tests
output=$(mktemp -d)
times() { awk -v n="$1" -v m="$minutes" 'BEGIN { printf "%d", n * m / 15 }'; } # a count for 15 minutes

# Open MPI leaves the shared memory of ranks that were killed: what is new and in nobody's use goes.
segments() { find /dev/shm -maxdepth 1 -name 'vader_segment.*' -user "$(id -un)" | sort; }
sweep() {
  comm -13 "$output/before" <(segments) | while read -r file; do
    fuser -s "$file" 2>/dev/null || rm -f "$file"
  done
}
segments >"$output/before"
trap 'sweep; rm -rf "$output"' EXIT

# part NAME TEST FILTER [VARIABLE=VALUE ...]
part() {
  local start=$SECONDS name=$1 log=$output/$1.log
  env "${@:4}" "$tests/$2" --gtest_filter="$3" >"$log" 2>&1 </dev/null
  local status=$?
  local failed
  failed=$(grep -c '^\[  FAILED  \] .* ms)$' "$log")
  ((status != 0 && failed == 0)) && failed=1
  sed -n 's/^tally: //p' "$log" | awk -v part="$name" '
    { n = $1; $1 = ""; if (!($0 in count)) order[++kinds] = $0; count[$0] += n }
    END { for (i = 1; i <= kinds; ++i) printf "%s\t%d%s\n", part, count[order[i]], order[i] }' \
    >>"$output/table"
  printf '%s\t%d failed, %d s\n' "$name" "$failed" $((SECONDS - start)) >>"$output/table"
  if ((failed > 0)); then
    echo "$name" >>"$output/failed"
    grep -E -B2 -A25 ': Failure$' "$log" | head -200
  fi
  sweep
}

processes() { # mostly at work
  part jobs app/app_test 'RankFaults.*:RankDisks.*' "GRIST_TEST_SCALE=$(times 3)"
  part runs app/app_test 'Interrupted.*' "GRIST_TEST_SCALE=$(times 5)"
}
models() { # mostly waiting, then one core
  part monitors watch/watch_test 'MonitorProcesses.*' "GRIST_TEST_SCALE=$(times 18)"
  part simulator ckpt/ckpt_test 'Simulator.*' "GRIST_SOAK_SCENARIOS=$(times 20000)"
  part damage ckpt/ckpt_test 'RankCorruption.Every*' "GRIST_SOAK_SCENARIOS=$(times 20000)"
  part points ckpt/ckpt_test '*EveryOperation*:RankDisk.*:RankPowerCut.*'
}

echo "$(date -u +'%F %H:%M UTC'), $(nproc) cores, $(git rev-parse --short HEAD), about $minutes minutes"
processes &
models
wait
sort -s -k1,1 "$output/table" | awk -F'\t' '{ printf "%-10s  %s\n", $1, $2 }'
[[ ! -e $output/failed ]]
