#!/usr/bin/env bash
# Compiles every public header alone: each must include what it uses. With --cuda the headers of
# kernels/cuda too, by nvcc.
set -euo pipefail
cd "$(dirname "$0")/.."

# Not the headers inside kernels/cpu: some are the body of a file that is compiled once an
# instruction set.
mapfile -d '' -t headers < <(find include kernels/backends.h -name '*.h' -print0)
printf '%s\0' "${headers[@]}" | xargs -0 -P 2 -I '{}' "${CXX:-g++}" -std=c++20 -fsyntax-only \
  -Wall -Wextra -Werror -Iinclude -I. -include '{}' -x c++ /dev/null
echo "headers: ${#headers[@]} files, 0 problems"

if [[ ${1:-} == --cuda ]]; then
  # Parsed only: for the architecture of which all wrappers of ptx/ are.
  mapfile -d '' -t headers < <(find kernels/cuda \( -name '*.h' -o -name '*.cuh' \) -print0)
  printf '%s\0' "${headers[@]}" | xargs -0 -P 2 -I '{}' nvcc -std=c++20 --expt-relaxed-constexpr \
    -gencode arch=compute_90a,code=sm_90a -Iinclude -I. -Ikernels/cuda -Ikernels/cuda/ptx \
    -include '{}' -x cu -ptx /dev/null -o /dev/null
  echo "device headers: ${#headers[@]} files, 0 problems"
fi
