#!/usr/bin/env bash
# Checks that every C++ file is formatted as .clang-format says; scripts/dev fmt formats them.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v clang-format >/dev/null; then
  echo "format: skipped, clang-format is not installed (scripts/install_dependencies.sh)"
  exit 0
fi
# Releases differ in details; 14 is Debian 12's.
if ! clang-format --version | grep -q 'version 14\.'; then
  echo "format: skipped, clang-format 14 is wanted, this is $(clang-format --version)"
  exit 0
fi
mapfile -d '' -t files < <(git ls-files -zco --exclude-standard '*.h' '*.cpp' '*.cu' '*.cuh')
((${#files[@]} > 0)) || {
  echo "format: git lists no files here" >&2
  exit 1
}
printf '%s\0' "${files[@]}" | xargs -0 -n 16 -P 2 clang-format --dry-run --Werror
echo "format: ${#files[@]} files, 0 problems"
