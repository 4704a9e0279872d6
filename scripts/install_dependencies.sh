#!/usr/bin/env bash
# Installs the distribution packages that building and testing need, and only those that are
# missing. Debian 12 and later, Ubuntu 24.04 and later. Without the right to install it lists what
# is missing and exits 1.
set -euo pipefail

needed=(g++ cmake ninja-build pkg-config git libyaml-cpp-dev libfmt-dev libspdlog-dev libgtest-dev
  nlohmann-json3-dev libsimdjson-dev libcli11-dev libopenblas-dev libzstd-dev zlib1g-dev
  libxxhash-dev libpcre2-dev libopenmpi-dev openmpi-bin clang-format python3 shellcheck
  gzip xz-utils)
optional=(ccache mold patchelf) # faster builds, bundles; taken where the release has them

die() {
  echo "install_dependencies: $*" >&2
  exit 1
}

is_installed() {
  [[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}

# Asks for the package's state, so that a tool from elsewhere does not hide a missing package.
missing() {
  local package
  for package in "$@"; do
    is_installed "$package" || echo "$package"
  done
}

has_candidate() {
  [[ -n $(apt-cache show --no-all-versions "$1" 2>/dev/null) ]]
}

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  die "this is not Debian or Ubuntu; install the equivalents of: ${needed[*]}"
fi

mapfile -t wanted < <(missing "${needed[@]}")
mapfile -t extras < <(missing "${optional[@]}")
if ((${#wanted[@]} == 0)); then
  echo "install_dependencies: nothing is missing"
else
  if ((EUID == 0)); then
    as_root=()
  elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    as_root=(sudo -n)
  elif command -v sudo >/dev/null && [[ -t 0 ]] && sudo -v; then
    as_root=(sudo)
  else
    die "missing: ${wanted[*]}; ask an administrator to run: apt-get install ${wanted[*]}"
  fi
  "${as_root[@]}" apt-get -q update || has_candidate "${wanted[0]}" ||
    die "apt-get update failed; check the network and /etc/apt/sources.list"
  for package in "${wanted[@]}"; do
    has_candidate "$package" ||
      die "$package is in no configured package source (Ubuntu: enable universe); then start again"
  done
  available=()
  for package in "${extras[@]}"; do
    if has_candidate "$package"; then available+=("$package"); fi
  done
  echo "install_dependencies: installing ${wanted[*]} ${available[*]}"
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y install \
    --no-install-recommends "${wanted[@]}" "${available[@]}" ||
    die "apt-get install failed; its message is above"
fi

# Ubuntu 22.04's own cmake is older than the build needs.
version=$(cmake --version | sed -n '1s/[^0-9]*\([0-9]*\.[0-9]*\).*/\1/p')
printf '3.25\n%s\n' "$version" | sort -C -V ||
  die "cmake $version is too old, 3.25 is needed (Ubuntu 22.04: snap install cmake --classic)"
