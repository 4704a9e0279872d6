#!/usr/bin/env bash
# Checks that every C++ file is formatted as .clang-format says; scripts/dev fmt formats them.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v clang-format >/dev/null; then
  echo "format: skipped, clang-format is not installed (scripts/install_dependencies.sh)"
  exit 0
fi
mapfile -d '' -t files < <(git ls-files -zco --exclude-standard '*.h' '*.cpp' '*.cu' '*.cuh')
printf '%s\0' "${files[@]}" | xargs -0 -n 16 -P 2 clang-format --dry-run --Werror
echo "format: ${#files[@]} files, 0 problems"
