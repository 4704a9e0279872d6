#!/usr/bin/env bash
# Compiles every public header alone: each must include what it uses.
set -euo pipefail
cd "$(dirname "$0")/.."

# Not the headers inside kernels/cpu: some are the body of a file that is compiled once an
# instruction set.
mapfile -d '' -t headers < <(find include kernels/backends.h -name '*.h' -print0)
printf '%s\0' "${headers[@]}" | xargs -0 -P 2 -I '{}' "${CXX:-g++}" -std=c++20 -fsyntax-only \
  -Wall -Wextra -Werror -Iinclude -I. -include '{}' -x c++ /dev/null
echo "headers: ${#headers[@]} files, 0 problems"
