# SPDX-FileCopyrightText: The bi authors
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# shellcheck shell=bash
# Sourced by scripts/demo and scripts/test: what a fresh machine lacks, and one way to configure and build.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

say() { printf '== %s\n' "$*"; }
die() {
  printf '%s\n' "$@" >&2
  exit 1
}

# ---- packages

missing=()
# need PACKAGE TEST...: notes the package (by its Debian and Ubuntu name) unless the test succeeds.
need() {
  local package=$1
  shift
  "$@" >/dev/null 2>&1 || missing+=("$package")
}
has() { command -v "$1"; }
has_any() {
  local name
  for name; do ! has "$name" || return 0; done
  return 1
}
has_include() { printf '#include <%s>\n' "$1" | g++ -x c++ -E -; }
has_catch2() { has_include catch2/catch_all.hpp || has_include catch2/catch.hpp; }

install_missing() {
  ((${#missing[@]} > 0)) || return 0
  if ! has apt-get >/dev/null; then
    die "This needs some packages, by their Debian names: ${missing[*]}" "Install them, then run $0 again."
  fi
  if ((EUID != 0)); then
    die "This needs some packages. Install them with the next line, then run $0 again." \
      "  sudo apt-get update && sudo apt-get install -y --no-install-recommends ${missing[*]}"
  fi
  say "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  # A stale list may still do, so only the installation decides.
  apt-get update -qq || true
  quietly apt-get install -y --no-install-recommends "${missing[@]}" || die "The installation failed."
  hash -r
}

require_cmake() {
  local version
  version=$(cmake --version | sed -n 's/^cmake version //p')
  if [[ $(printf '%s\n' 3.25 "$version" | sort -V | head -n 1) != 3.25 ]]; then
    die "bi needs CMake 3.25 or newer, and this is CMake $version (Debian 12 and Ubuntu 24.04 have newer ones)." \
      "A newer CMake can be had with: pip install cmake"
  fi
}

# ---- CUDA

# True where nvcc is found, at its usual place if it is not on PATH.
find_nvcc() {
  if ! has nvcc >/dev/null && [[ -x /usr/local/cuda/bin/nvcc ]]; then export PATH=$PATH:/usr/local/cuda/bin; fi
  has nvcc >/dev/null
}
has_gpu() { nvidia-smi -L 2>/dev/null | grep -q '^GPU'; }

# ---- building

# Shows a command's output only if it fails.
quietly() {
  local log
  log=$(mktemp)
  if "$@" >"$log" 2>&1; then
    rm "$log"
  else
    local code=$?
    cat "$log" >&2
    rm "$log"
    return "$code"
  fi
}

# configure PRESET DIR [OPTION...]: with Ninja, as the presets say, or make where there is no Ninja.
configure() {
  local preset=$1 dir=$2 generator=Ninja fresh=()
  shift 2
  has ninja >/dev/null || generator="Unix Makefiles"
  if [[ -f $dir/CMakeCache.txt ]] && ! grep -qx "CMAKE_GENERATOR:INTERNAL=$generator" "$dir/CMakeCache.txt"; then
    fresh=(--fresh)
  fi
  cmake --preset "$preset" -B "$dir" -G "$generator" "${fresh[@]}" "$@"
}
build() { cmake --build "$1" --parallel "$(nproc)"; }
