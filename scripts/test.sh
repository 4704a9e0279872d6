#!/usr/bin/env bash
# Installs what is missing, builds, and runs every test. Arguments go to ctest, e.g. -R router.
set -euo pipefail
cd "$(dirname "$0")/.."

./scripts/install_dependencies.sh
cmake --preset cpu
cmake --build --preset cpu
ctest --preset cpu "$@"
